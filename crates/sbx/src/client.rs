//! The command's side of the local API: HTTP/1.1 over the daemon's Unix socket, the daemon started when it
//! is not there.

use crate::printer::Printer;
use crate::socket;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use sbx_wire::api::{Attach, Event};
use sbx_wire::home::Home;
use sbx_wire::report::Report;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;

/// Time that a daemon may take until its socket answers.
const DAEMON_START: Duration = Duration::from_secs(20);
/// Between two looks at whether the socket answers yet.
const POLL: Duration = Duration::from_millis(15);
/// Longest answer that is read, bytes.
const MAX_ANSWER: usize = 64 << 20;

/// Speaks to one daemon.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    home: Home,
}

impl Client {
    pub(crate) fn new(home: Home) -> Self {
        Self { home }
    }

    /// `GET` with the daemon started if need be.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Report> {
        self.call(Method::GET, path, &()).await
    }

    /// `POST` with a JSON body.
    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Report> {
        self.call(Method::POST, path, body).await
    }

    /// `DELETE`.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), Report> {
        let _: serde_json::Value = self.call(Method::DELETE, path, &()).await?;
        Ok(())
    }

    async fn call<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, Report> {
        let stream = self.connect_or_start().await?;
        let response = send(stream, method, path, body).await?;
        read_json(response).await
    }

    /// A request whose answer is a stream of [`Event`]s.
    pub(crate) async fn stream<B: Serialize>(
        &self,
        path: &str,
        body: &B,
        printer: &mut Printer,
    ) -> Result<Attach, Report> {
        let stream = self.connect_or_start().await?;
        let response = send(stream, Method::POST, path, body).await?;
        if response.status() != StatusCode::OK {
            return Err(read_json::<serde_json::Value>(response)
                .await
                .err()
                .unwrap_or_else(lost));
        }
        let mut lines = Lines::new(response);
        while let Some(event) = lines.next().await? {
            match event {
                Event::Progress(progress) => printer.progress(&progress),
                Event::Notice(text) => printer.notice(&text),
                Event::Done(attach) => {
                    printer.finish_progress();
                    return Ok(*attach);
                }
                Event::Failed(report) => {
                    printer.finish_progress();
                    return Err(report);
                }
            }
        }
        printer.finish_progress();
        Err(lost())
    }

    /// `GET` of a streamed answer. `start`: with the daemon started if need be; otherwise `None` when none runs.
    pub(crate) async fn lines(&self, path: &str, start: bool) -> Result<Option<Lines>, Report> {
        let stream = if start {
            self.connect_or_start().await?
        } else {
            match self.connect().await? {
                Some(stream) => stream,
                None => return Ok(None),
            }
        };
        let response = send(stream, Method::GET, path, &()).await?;
        if response.status() != StatusCode::OK {
            return Err(read_json::<serde_json::Value>(response)
                .await
                .err()
                .unwrap_or_else(lost));
        }
        Ok(Some(Lines::new(response)))
    }

    /// Whether a daemon answers, without starting one.
    pub(crate) async fn get_if_running<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<Option<T>, Report> {
        let Some(stream) = self.connect().await? else {
            return Ok(None);
        };
        let response = send(stream, Method::GET, path, &()).await?;
        read_json(response).await.map(Some)
    }

    /// `POST` to a daemon that runs; `None` when none does.
    pub(crate) async fn post_if_running<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<Option<T>, Report> {
        let Some(stream) = self.connect().await? else {
            return Ok(None);
        };
        let response = send(stream, Method::POST, path, body).await?;
        read_json(response).await.map(Some)
    }

    /// Waits until no daemon answers any more.
    pub(crate) async fn wait_until_gone(&self) -> Result<(), Report> {
        let deadline = Instant::now() + Duration::from_mins(1);
        while self.connect().await?.is_some() {
            if Instant::now() > deadline {
                return Err(Report::bug(
                    "daemon-stop",
                    "the daemon still answers after 60 s",
                ));
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// `None`: no daemon runs.
    async fn connect(&self) -> Result<Option<UnixStream>, Report> {
        socket::connect(&self.home.daemon_socket()).await
    }

    async fn connect_or_start(&self) -> Result<UnixStream, Report> {
        if let Some(stream) = self.connect().await? {
            return Ok(stream);
        }
        let mut child = self.spawn_daemon()?;
        let deadline = Instant::now() + DAEMON_START;
        loop {
            if let Some(stream) = self.connect().await? {
                return Ok(stream);
            }
            if let Ok(Some(_)) = child.try_wait() {
                // Another command may have started one at the same moment: theirs wins, ours ends.
                if let Some(stream) = self.connect().await? {
                    return Ok(stream);
                }
                if Instant::now() + DAEMON_START > deadline + Duration::from_secs(2) {
                    return Err(self.daemon_failed());
                }
            }
            if Instant::now() > deadline {
                return Err(self.daemon_failed());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Starts a daemon that survives this shell.
    pub(crate) fn spawn_daemon(&self) -> Result<std::process::Child, Report> {
        let program = beside_us("sbx-daemon")?;
        let mut folder = std::fs::DirBuilder::new();
        let made = folder.recursive(true).mode(0o700).create(&self.home.state);
        made.map_err(|error| {
            Report::environment(
                "state-dir",
                format!("cannot make {}: {error}", self.home.state.display()),
                "set SBX_HOME to a folder that you can write to",
            )
        })?;
        let err = std::fs::File::create(self.home.state.join("daemon-start.err"))
            .map_or_else(|_| Stdio::null(), Stdio::from);
        let mut command = std::process::Command::new(program);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(err)
            .process_group(0);
        command.current_dir("/");
        command.spawn().map_err(|error| {
            Report::environment(
                "daemon-start",
                format!("cannot start the daemon: {error}"),
                "./dev setup",
            )
        })
    }

    fn daemon_failed(&self) -> Report {
        let text =
            std::fs::read_to_string(self.home.state.join("daemon-start.err")).unwrap_or_default();
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let said = lines
            .next()
            .map(|line| line.trim_start_matches("error: ").to_owned());
        let hint = lines
            .find_map(|line| line.trim().strip_prefix("try: ").map(str::to_owned))
            .unwrap_or_else(|| format!("read {}", self.home.daemon_log().display()));
        Report::environment(
            "daemon-start",
            said.unwrap_or_else(|| "the daemon did not come up".to_owned()),
            hint,
        )
    }
}

/// Path of a program that is installed beside this one.
pub(crate) fn beside_us(program: &str) -> Result<std::path::PathBuf, Report> {
    let path = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join(program)));
    path.filter(|path| path.is_file()).ok_or_else(|| {
        Report::environment(
            "installation",
            format!("{program} is not beside sbx"),
            "./dev setup",
        )
    })
}

async fn send<B: Serialize>(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: &B,
) -> Result<Response<Incoming>, Report> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|_| lost())?;
    tokio::spawn(connection);
    let body = serde_json::to_vec(body)
        .map_err(|error| Report::bug("json", format!("cannot encode the request: {error}")))?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "sbx")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| Report::bug("api", format!("cannot build the request: {error}")))?;
    sender.send_request(request).await.map_err(|_| lost())
}

async fn read_json<T: DeserializeOwned>(response: Response<Incoming>) -> Result<T, Report> {
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|_| lost())?
        .to_bytes();
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| other_version(&error));
    }
    Err(serde_json::from_slice(&body).unwrap_or_else(|_| {
        Report::bug(
            "api",
            format!("the daemon answered {status} without a reason"),
        )
    }))
}

/// A streamed answer: one JSON document a line.
pub(crate) struct Lines {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Lines {
    fn new(response: Response<Incoming>) -> Self {
        Self {
            body: response.into_body(),
            buffer: Vec::new(),
        }
    }

    /// The next document; `None` at the end. Nothing is lost when the future is dropped.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, Report> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let document = serde_json::from_slice(&line);
                return document.map(Some).map_err(|error| other_version(&error));
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            let frame = frame.map_err(|_| lost())?;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
            if self.buffer.len() > MAX_ANSWER {
                return Err(Report::bug("api", "the daemon sent an endless line"));
            }
        }
    }
}

fn other_version(error: &serde_json::Error) -> Report {
    Report::environment(
        "api-version",
        format!("the daemon's answer is not understood: {error}"),
        "sbx daemon restart",
    )
}

fn lost() -> Report {
    Report::environment(
        "daemon-lost",
        "the daemon went away during the request",
        "run the command again; `sbx daemon status` names the log",
    )
}

/// Percent-encodes one path segment or query value (RFC 3986, 2.3: unreserved stay).
pub(crate) fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&format!("{byte:02X}"));
        }
        out
    })
}
