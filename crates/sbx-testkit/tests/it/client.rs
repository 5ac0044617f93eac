//! curl, and what it needs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// What curl said.
pub(crate) struct Answer {
    /// curl's exit code: 0 success, 18 cut transfer, 52 empty answer, 60 untrusted certificate, …
    pub(crate) code: i32,
    pub(crate) status: u16,
    /// `1.1` or `2`.
    pub(crate) version: String,
    pub(crate) headers: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub(crate) fn has_header(&self, line: &str) -> bool {
        self.headers
            .to_ascii_lowercase()
            .lines()
            .any(|have| have.trim() == line)
    }
}

/// A client that reaches `host` at an address and trusts a root, as the gateway does.
pub(crate) struct Client {
    folder: TempDir,
    host: String,
    address: SocketAddr,
    root: Option<PathBuf>,
}

impl Client {
    pub(crate) fn new(host: &str, address: SocketAddr, root_pem: Option<&str>) -> Self {
        let folder = TempDir::new().unwrap();
        let root = root_pem.map(|pem| {
            let path = folder.path().join("root.pem");
            std::fs::write(&path, pem).unwrap();
            path
        });
        Self {
            folder,
            host: host.to_owned(),
            address,
            root,
        }
    }

    /// Requests a path. `more` are further curl arguments.
    pub(crate) fn get(&self, path: &str, more: &[&str]) -> Answer {
        let scheme = if self.root.is_some() { "https" } else { "http" };
        let port = self.address.port();
        let headers = self.folder.path().join("headers");
        let body = self.folder.path().join("body");
        for old in [&headers, &body] {
            let _ = std::fs::remove_file(old);
        }
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--max-time", "30", "--noproxy", "*"])
            .arg("--resolve")
            .arg(format!("{}:{port}:{}", self.host, self.address.ip()))
            .arg("--dump-header")
            .arg(&headers)
            .arg("--output")
            .arg(&body)
            .args(["--write-out", "%{http_code} %{http_version}"]);
        if let Some(root) = &self.root {
            curl.arg("--cacert").arg(root);
        }
        curl.args(more)
            .arg(format!("{scheme}://{}:{port}{path}", self.host));
        let output = curl
            .stdin(Stdio::null())
            .output()
            .expect("curl is installed");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let (status, version) = said.split_once(' ').unwrap();
        Answer {
            code: output.status.code().unwrap_or(-1),
            status: status.parse().unwrap(),
            version: version.to_owned(),
            headers: std::fs::read_to_string(&headers).unwrap_or_default(),
            body: String::from_utf8_lossy(&std::fs::read(&body).unwrap_or_default()).into_owned(),
        }
    }
}
