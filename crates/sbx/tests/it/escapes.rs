//! Texts that hold what somebody else named, as the command prints them.

use crate::terminal::at_terminal;
use crate::world::World;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};

/// A name that a guest may give to a file: a title for the terminal, escapes of one and of two bytes, a turn of the
/// direction, and lines that look like the command's own.
const NAME: &str = "evil\u{1b}]0;title\u{7}\u{9b}2J\u{7f}\u{202e}\nerror: forged\n  try: forged\r";
/// Its first line, as it is shown.
const SHOWN: &str = "evil?]0;title??2J??";

#[track_caller]
fn is_plain(text: &str) {
    let control = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    assert!(!text.contains(control), "{text:?}");
    let forged =
        |line: &str| line.starts_with("error: forged") || line.starts_with("  try: forged");
    assert!(!text.lines().any(forged), "{text:?}");
}

#[test]
fn a_path_in_an_error_carries_no_escapes_and_no_lines_of_its_own() {
    let world = World::with_policy();
    let folder = world.folder(NAME).display().to_string();
    let done = world.sbx(&["create", "shell", &folder]);
    is_plain(&done.stderr);
    done.refused(SHOWN);
}

/// A daemon whose steps, notices and errors name such a file.
fn serve(world: &mut World) -> UnixListener {
    world.runtime = Some(world.folder("run"));
    let home = world.folders();
    std::fs::create_dir_all(&home.runtime).unwrap();
    let listener = UnixListener::bind(home.daemon_socket()).unwrap();
    let served = listener.try_clone().unwrap();
    std::thread::spawn(move || served.incoming().flatten().for_each(answer));
    listener
}

fn answer(mut stream: UnixStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let start = head.len();
        if reader.read_line(&mut head).unwrap() == 0 {
            return;
        }
        let value = head[start..].strip_prefix("content-length: ");
        length = value.map_or(length, |value| value.trim().parse().unwrap());
    }
    reader.read_exact(&mut vec![0; length]).unwrap();
    let documents = if head.starts_with("GET /v1/secrets ") {
        vec![json!({
            "store": "x",
            "secrets": [{
                "scope": "(global)", "type": "oauth", "name": "x", "secret": NAME, "store": NAME,
            }],
            "custom": [{
                "scope": "(global)", "name": "c", "targets": [NAME], "env": "E", "placeholder": NAME, "secret": NAME, "in_body": false,
                "store": NAME,
            }],
        })]
    } else if head.starts_with("GET /v1/policy/log/follow") {
        let record = json!({
            "time_ms": 4_000_000_000_000_u64, "sandbox": "box", "type": "network", "host": NAME, "port": 443,
            "proxy": "forward", "allowed": false, "rule": null, "rule_text": NAME, "method": "GET", "path": NAME,
            "reason": NAME, "generation": 1,
        });
        vec![
            json!("following"),
            json!({"record": record}),
            json!({"end": NAME}),
        ]
    } else if head.starts_with("GET /v1/status ") {
        vec![json!({
            "status": "running", "socket": "/s", "logs": "/l", "pid": 2, "version": "1",
            "uptime_s": 1, "policy_initialized": true, "notices": [NAME],
        })]
    } else {
        vec![
            json!({"progress": {"step": NAME, "done": 1, "total": 2, "detail": NAME}}),
            json!({"notice": format!("skipped {NAME}")}),
            json!({"failed": {
                "code": "x", "blame": "user", "message": format!("cannot {NAME}"), "try": format!("mend {NAME}"),
            }}),
        ]
    };
    let body: String = documents.iter().map(|one| format!("{one}\n")).collect();
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length";
    let sent = write!(stream, "{head}: {}\r\n\r\n{body}", body.len());
    sent.unwrap();
}

fn holds(document: &Value, text: &str) -> bool {
    match document {
        Value::String(found) => found == text,
        Value::Array(items) => items.iter().any(|item| holds(item, text)),
        Value::Object(fields) => fields.values().any(|field| holds(field, text)),
        _ => false,
    }
}

#[test]
fn what_the_daemon_says_carries_no_escapes_to_a_file_or_a_terminal() {
    let mut world = World::new();
    let listener = serve(&mut world);
    let socket = listener.local_addr().unwrap();
    let folder = world.folder("work").display().to_string();

    let done = world.sbx(&["create", "shell", &folder]);
    is_plain(&done.stderr);
    for text in ["", "skipped ", "error: cannot ", "  try: mend "] {
        let line = format!("{text}{SHOWN}");
        let shown = done.stderr.lines().any(|shown| shown.starts_with(&line));
        assert!(shown, "{line:?}: {done:?}");
    }
    let status = world.sbx(&["daemon", "status"]).ok();
    is_plain(&status);
    assert!(status.contains(&format!("Notice: {SHOWN}")), "{status}");

    for arguments in [
        &["secret", "ls"][..],
        &["daemon", "status", "--json"],
        &["secret", "ls", "--json"],
        &["policy", "log", "--follow", "--since", "1d"],
        &["policy", "log", "--follow", "--since", "1d", "--json"],
    ] {
        let done = world.sbx(arguments);
        is_plain(&done.stdout);
        is_plain(&done.stderr);
        let text = done.ok();
        if !arguments.contains(&"--json") {
            assert!(text.contains(SHOWN), "{text}");
            continue;
        }
        // The values are what they were.
        let document: Value = serde_json::from_str(&text).unwrap();
        assert!(holds(&document, NAME), "{document:#}");
    }

    let (_, text) = at_terminal(&world, &["create", "shell", &folder]);
    // Its own line of progress is moved and cleared by escapes of its own.
    for escape in ["\u{1b}]", "\u{7}", "\u{9b}", "\u{7f}", "\u{202e}"] {
        assert!(!text.contains(escape), "{escape:?}: {text:?}");
    }
    for line in ["", "skipped ", "error: cannot ", "  try: mend "] {
        assert!(
            text.contains(&format!("{line}{SHOWN}")),
            "{line:?}: {text:?}"
        );
    }
    assert!(text.contains(&format!("1/2 {SHOWN}")), "{text:?}");
    // Nobody answers any more.
    std::fs::remove_file(socket.as_pathname().unwrap()).unwrap();
}
