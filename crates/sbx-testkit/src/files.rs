//! A folder of files over HTTP or HTTPS, as package registries are: indexes and archives are files. Below `/git/` lie
//! bare repositories, which git's own `git http-backend` serves (git-http-backend(1)); they can be pushed to where
//! their configuration says so.
//!
//! A file answers a POST as well: that is all of a batch API whose answer is known before.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::http::request::Parts;

use crate::http::{self, Reply};
use crate::recorder::{Event, Recorder};
use crate::server::{HttpServer, Running, StartError, bind_tcp};
use crate::tls::TestRoot;

/// Name in the record.
const NAME: &str = "files";
/// Largest request body that is taken, in bytes.
const BODY_LIMIT: usize = 64 << 20;
/// Answer headers of a CGI program end here (RFC 3875, section 6.2).
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A running server of files. Dropping it ends it.
#[derive(Debug)]
pub struct FileServer {
    address: SocketAddr,
    root_pem: Option<String>,
    recorder: Recorder,
    _running: Running,
}

impl FileServer {
    /// Serves the folder over HTTPS on a free loopback port, with a certificate for these names from a root of its
    /// own; without names over plain HTTP.
    pub fn start(folder: &Path, tls_names: &[&str]) -> Result<Self, StartError> {
        let mut tls = None;
        let mut root_pem = None;
        if !tls_names.is_empty() {
            let root = TestRoot::new("File server root")?;
            tls = Some(root.server_config(tls_names, &[b"h2", b"http/1.1"])?);
            root_pem = Some(root.pem());
        }
        let (listener, address) = bind_tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let recorder = Recorder::new();
        let server = HttpServer {
            name: NAME,
            listener,
            tls,
            recorder: recorder.clone(),
        };
        let (folder, shared): (Arc<Path>, _) = (folder.into(), recorder.clone());
        let running = Running::spawn("standin-files", move || {
            server.serve(move |request| handle(folder.clone(), shared.clone(), request))
        })?;
        Ok(Self {
            address,
            root_pem,
            recorder,
            _running: running,
        })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The root certificate that clients must trust, as PEM; none for plain HTTP.
    pub fn root_pem(&self) -> Option<&str> {
        self.root_pem.as_deref()
    }

    /// What was received.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }
}

async fn handle(folder: Arc<Path>, recorder: Recorder, request: hyper::Request<Incoming>) -> Reply {
    let (parts, body) = request.into_parts();
    let Some(body) = http::read_body(body, BODY_LIMIT).await else {
        return Reply::Hangup;
    };
    let length = body.len() as u64;
    let seq = http::record(&recorder, NAME, &parts, length, None, String::new());
    let work = move || {
        if parts.uri.path().starts_with("/git/") {
            git(&folder, &parts, &body)
        } else {
            file(&folder, &parts)
        }
    };
    let text = |error: String| http::whole(StatusCode::INTERNAL_SERVER_ERROR, "text/plain", error);
    let reply = match tokio::task::spawn_blocking(work).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) => text(error.to_string()),
        Err(error) => text(error.to_string()),
    };
    recorder.push(Event::Answered {
        seq,
        status: reply.status(),
    });
    reply
}

/// A file, or the `index.html` of a folder.
fn file(folder: &Path, parts: &Parts) -> std::io::Result<Reply> {
    let path = Path::new(parts.uri.path().trim_start_matches('/'));
    let inside = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let mut path = folder.join(path);
    if path.is_dir() {
        path.push("index.html");
    }
    if !inside || !path.is_file() {
        return Ok(http::whole(
            StatusCode::NOT_FOUND,
            "text/plain",
            "not found\n",
        ));
    }
    let bytes = std::fs::read(&path)?;
    let kind = match (path.extension(), bytes.first()) {
        (Some(extension), _) if extension == "html" => "text/html",
        (_, Some(b'{')) => "application/json",
        _ => "application/octet-stream",
    };
    Ok(http::whole(StatusCode::OK, kind, bytes))
}

/// Runs `git http-backend` (RFC 3875).
fn git(folder: &Path, parts: &Parts, body: &Bytes) -> std::io::Result<Reply> {
    let header = |name| {
        let value = parts.headers.get(name).map(|value| value.to_str());
        value.and_then(Result::ok).unwrap_or_default().to_owned()
    };
    let mut backend = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", folder)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("REMOTE_ADDR", "127.0.0.1")
        .env("REMOTE_USER", "somebody")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (input, body) = (backend.stdin.take(), body.clone());
    // It may answer before it has read everything, and need not read everything.
    let writer = std::thread::spawn(move || input.map(|mut input| input.write_all(&body)));
    let output = backend.wait_with_output()?;
    let _written = writer.join();
    Ok(cgi_reply(&output.stdout))
}

/// A CGI program's answer as ours (RFC 3875, section 6).
fn cgi_reply(output: &[u8]) -> Reply {
    let end = output
        .windows(HEAD_END.len())
        .position(|window| window == HEAD_END);
    let Some(end) = end else {
        return http::whole(StatusCode::BAD_GATEWAY, "text/plain", "no CGI header\n");
    };
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let pairs: Vec<(&str, &str)> = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name, value.trim()))
        .collect();
    let status = pairs
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("status"))
        .and_then(|(_, value)| StatusCode::from_bytes(value.get(..3)?.as_bytes()).ok())
        .unwrap_or(StatusCode::OK);
    let body = output[end + HEAD_END.len()..].to_vec();
    let reply = http::whole(status, "application/octet-stream", body);
    pairs
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case("status"))
        .fold(reply, |reply, (name, value)| reply.with_header(name, value))
}

/// Makes a bare repository at `folder/git/NAME` that can be pushed to, with what `work` holds as its first commit.
///
/// # Errors
/// What git said.
pub fn git_repository(folder: &Path, name: &str, work: &Path) -> std::io::Result<PathBuf> {
    let bare = folder.join("git").join(name);
    let script = r#"set -e
        export GIT_CONFIG_GLOBAL=/dev/null
        git init -q -b main "$1"
        git -C "$1" add -A
        git -C "$1" -c user.name=somebody -c user.email=somebody@example.test commit -qm first
        git clone -q --bare "$1" "$2"
        git -C "$2" config http.receivepack true"#;
    let output = Command::new("sh")
        .args(["-c", script, "sh"])
        .args([work, &bare])
        .output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(std::io::Error::other(text));
    }
    Ok(bare)
}
