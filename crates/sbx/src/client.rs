//! The command's side of the local API: HTTP/1.1 over the daemon's Unix socket, the daemon started when it
//! is not there.

use crate::answer::{Lines, exchange, lines, lost};
use crate::printer::Printer;
use crate::socket;
use hyper::Method;
use sbx_wire::api::{Attach, DaemonStatus, Event, Shutdown};
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
/// Where a daemon says how it is.
const STATUS: &str = "/v1/status";
/// Time for a daemon to say how it is: it asks nobody for that.
const ANSWERED: Duration = Duration::from_secs(10);
/// The same of one that may just have been started, and looks for its sandboxes first.
const STARTED: Duration = Duration::from_mins(1);
/// Between two looks at whether the socket answers yet.
const POLL: Duration = Duration::from_millis(15);

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
        self.call(Method::GET, path, &(), None).await
    }

    /// `POST` with a JSON body.
    pub(crate) async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
    ) -> Result<T, Report> {
        self.call(Method::POST, path, body, None).await
    }

    /// `DELETE`.
    pub(crate) async fn delete(&self, path: &str) -> Result<(), Report> {
        let _: serde_json::Value = self.call(Method::DELETE, path, &(), None).await?;
        Ok(())
    }

    async fn call<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
        limit: Option<Duration>,
    ) -> Result<T, Report> {
        let stream = self.connect_or_start().await?;
        exchange(stream, method, path, body, limit).await
    }

    /// A request that is answered at once or is not worth waiting for.
    pub(crate) async fn promptly<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
    ) -> Result<T, Report> {
        self.call(method, path, body, Some(ANSWERED)).await
    }

    /// A request whose answer is a stream of [`Event`]s.
    pub(crate) async fn stream<B: Serialize>(
        &self,
        path: &str,
        body: &B,
        printer: &mut Printer,
    ) -> Result<Attach, Report> {
        let stream = self.connect_or_start().await?;
        let mut lines = lines(stream, Method::POST, path, body).await?;
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
        lines(stream, Method::GET, path, &()).await.map(Some)
    }

    /// How the daemon is, which is started if need be.
    pub(crate) async fn status(&self) -> Result<DaemonStatus, Report> {
        self.call(Method::GET, STATUS, &(), Some(STARTED)).await
    }

    /// How the daemon is that runs; `None` when none does.
    pub(crate) async fn status_if_running(&self) -> Result<Option<DaemonStatus>, Report> {
        self.running(Method::GET, STATUS, &(), ANSWERED).await
    }

    /// Tells the daemon to end, and waits until it answers nobody. False: none runs.
    pub(crate) async fn shut_down(&self, body: &Shutdown) -> Result<bool, Report> {
        // One that does not say how it is stops nothing either. Of another version it says it in other words.
        let said: Option<serde_json::Value> =
            self.running(Method::GET, STATUS, &(), ANSWERED).await?;
        if said.is_none() {
            return Ok(false);
        }
        let Some(stream) = self.connect().await? else {
            return Ok(false);
        };
        let limit = (!body.stop_sandboxes).then_some(ANSWERED);
        let told = exchange(stream, Method::POST, "/v1/shutdown", body, limit);
        let _: serde_json::Value = self.while_it_answers(told).await?;
        self.wait_until_gone().await?;
        Ok(true)
    }

    /// What comes of a request that takes as long as it takes, as stops do: as long as the daemon says how it is.
    async fn while_it_answers<T>(
        &self,
        request: impl Future<Output = Result<T, Report>>,
    ) -> Result<T, Report> {
        tokio::pin!(request);
        loop {
            tokio::select! {
                answer = &mut request => return answer,
                () = tokio::time::sleep(ANSWERED) => {}
            }
            let alive = self.running(Method::GET, STATUS, &(), ANSWERED);
            tokio::select! {
                answer = &mut request => return answer,
                alive = alive => {
                    let _: Option<serde_json::Value> = alive?;
                }
            }
        }
    }

    /// A request to a daemon that runs, which it answers within a time; `None` when none does.
    async fn running<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &B,
        limit: Duration,
    ) -> Result<Option<T>, Report> {
        let Some(stream) = self.connect().await? else {
            return Ok(None);
        };
        let answer = exchange(stream, method, path, body, Some(limit)).await;
        answer.map(Some)
    }

    /// Waits until no daemon answers any more.
    async fn wait_until_gone(&self) -> Result<(), Report> {
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
