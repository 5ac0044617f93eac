//! The two programs, started as a script would start them.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use sbx_testkit::Script;
use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;

struct Program {
    child: Child,
    address: SocketAddr,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        Self {
            child,
            address: ready["address"].as_str().unwrap().parse().unwrap(),
        }
    }

    /// Asks the program to end and expects that it does so well.
    fn end(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }
}

fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn anthropic_program_says_where_it_listens_and_records_to_a_file() {
    let folder = TempDir::new().unwrap();
    let [root, script, record] =
        ["root.pem", "script.json", "record.jsonl"].map(|n| folder.path().join(n));
    let scripted = Script::write_and_run("sk-ant-api03-test", "/f", "x", "true", "");
    std::fs::write(&script, serde_json::to_string(&scripted).unwrap()).unwrap();
    let program = Program::start(
        Command::new(env!("CARGO_BIN_EXE_sbx-standin-anthropic"))
            .args(["--listen", "127.0.0.1:0", "--root-pem"])
            .arg(&root)
            .arg("--script")
            .arg(&script)
            .arg("--record")
            .arg(&record),
    );
    let pem = std::fs::read_to_string(&root).unwrap();
    let client = Client::new("api.anthropic.com", program.address, Some(&pem));
    let answer = client.get(
        "/v1/models",
        &[
            "-H",
            "x-api-key: sk-ant-api03-test",
            "-H",
            "anthropic-version: 2023-06-01",
        ],
    );
    assert_eq!(answer.status, 200);
    program.end();
    let lines = lines(&record);
    assert!(
        lines
            .iter()
            .any(|line| line["event"] == "request" && line["path"] == "/v1/models")
    );
    assert_eq!(lines.last().unwrap()["event"], "closed");
}

#[test]
fn http_program_serves_tls_and_records_to_a_file() {
    let folder = TempDir::new().unwrap();
    let [root, record] = ["root.pem", "record.jsonl"].map(|n| folder.path().join(n));
    let program = Program::start(
        Command::new(env!("CARGO_BIN_EXE_sbx-standin-http"))
            .args(["--tls-name", "api.example", "--root-pem"])
            .arg(&root)
            .arg("--record")
            .arg(&record),
    );
    let pem = std::fs::read_to_string(&root).unwrap();
    let client = Client::new("api.example", program.address, Some(&pem));
    assert_eq!(client.get("/echo", &[]).status, 200);
    program.end();
    assert!(lines(&record).iter().any(|line| line["event"] == "request"));
}

#[test]
fn unusable_script_is_one_error_line() {
    let folder = TempDir::new().unwrap();
    let script = folder.path().join("script.json");
    std::fs::write(&script, r#"{"turns":[]}"#).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_sbx-standin-anthropic"))
        .arg("--root-pem")
        .arg(folder.path().join("root.pem"))
        .arg("--script")
        .arg(&script)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.lines().count() == 1 && said.contains("it has no turns"),
        "{said}"
    );
}
