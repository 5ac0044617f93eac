//! One request to the daemon's socket, without a command between: a daemon that is killed must not be started again by it.

use serde_json::Value;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest silence of a daemon that works: a start that fails takes 45 s to give up a snapshot, and boots then.
const PATIENCE: Duration = Duration::from_secs(150);

/// What is said of a daemon that ended before it had answered.
pub(super) const LOST: &str = "the daemon ended";

/// How a request ended.
#[derive(Debug)]
pub(super) enum Answer {
    /// It was done: the answer, or the last document of a stream.
    Done(Value),
    /// It was refused or failed, with the reason.
    Refused(String),
    /// The daemon ended before it had answered.
    Lost,
    /// It does not answer.
    Silent,
}

impl Answer {
    /// What was done.
    pub(super) fn done(self) -> Result<Value, String> {
        match self {
            Self::Done(value) => Ok(value),
            Self::Refused(why) => Err(why),
            Self::Lost => Err(LOST.to_owned()),
            Self::Silent => Err(format!(
                "the daemon did not answer within {} s",
                PATIENCE.as_secs()
            )),
        }
    }
}

/// Sends a request and waits for the end of the answer.
pub(super) fn request(socket: &Path, method: &str, path: &str, body: &Value) -> Answer {
    match exchange(socket, method, path, body) {
        Ok(text) => read(&text),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Answer::Silent,
        Err(_) => Answer::Lost,
    }
}

fn exchange(socket: &Path, method: &str, path: &str, body: &Value) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    // Version 1.0: the answer ends where the connection does.
    let head = format!(
        "{method} {path} HTTP/1.0\r\nhost: sbx\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn read(text: &str) -> Answer {
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Answer::Lost;
    };
    let ok = head.split(' ').nth(1) == Some("200");
    // A stream's last line says how it ended; one that was cut off ends with something else.
    let last = body.lines().last().unwrap_or_default();
    let Ok(value) = serde_json::from_str::<Value>(last) else {
        return Answer::Lost;
    };
    if !ok {
        return Answer::Refused(value.to_string());
    }
    let stream = head.contains("x-ndjson") || body.lines().count() > 1;
    match (value.get("failed"), value.get("done")) {
        (Some(report), _) => Answer::Refused(report.to_string()),
        (None, Some(done)) => Answer::Done(done.clone()),
        (None, None) if stream => Answer::Lost,
        (None, None) => Answer::Done(value),
    }
}
