//! `sbx-supervisor DIR`: runs the sandbox whose launch document lies in DIR, until it ends.
#![forbid(unsafe_code)]

use sbx_supervisor::life::{Life, StopRequest};
use sbx_supervisor::prepare::{Prepared, all_ended, prepare, remove_sockets, write_last_exit};
use sbx_supervisor::state::{Ended, State};
use sbx_supervisor::{confine, idle, server, spawner};
use sbx_wire::launch::Origin;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode};
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Grace when a signal, not a request, ends the sandbox.
const SIGNAL_GRACE: Duration = Duration::from_secs(10);
/// Time for the spawner to end when its socket is closed, and for helpers that were killed.
const SPAWNER_LIMIT: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let result = match args.as_slice() {
        [flag] if flag == "--version" => tell_version(),
        [flag, dir] if flag == spawner::FLAG => spawner::run(Path::new(dir)).map(|()| true),
        [flag, dir, arguments @ ..] if flag == confine::FLAG => {
            Err(confine::become_machine(Path::new(dir), arguments))
        }
        [dir] if !dir.as_encoded_bytes().starts_with(b"-") => supervise(Path::new(dir)),
        _ => Err(io::Error::other("usage: sbx-supervisor DIR")),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

/// For `sbx diagnose`.
fn tell_version() -> io::Result<bool> {
    use io::Write as _;
    writeln!(io::stdout(), "sbx-supervisor {}", env!("CARGO_PKG_VERSION"))?;
    Ok(true)
}

/// Whoever starts this process may read standard error; the log has it too.
fn complain(error: &io::Error) {
    use io::Write as _;
    // Nobody may be reading any more.
    let _ = writeln!(io::stderr(), "sbx-supervisor: {error}");
}

/// True: the sandbox ended in order.
fn supervise(dir: &Path) -> io::Result<bool> {
    let dir: PathBuf = dir.canonicalize()?;
    let prepared = prepare(&dir).map_err(io::Error::other)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(run(prepared))
}

async fn run(prepared: Prepared) -> io::Result<bool> {
    let Prepared {
        life,
        listener,
        mut spawner,
        mut last_exit,
        lock,
        alive,
    } = prepared;
    let launch = life.launch.clone();
    let grace = launch.auto_stop_s.map(Duration::from_secs);
    let state = State::new(&launch.id, spawner.id(), launch.shares.len(), grace);
    let (stop, stops) = mpsc::channel(1);
    tokio::spawn(idle::watch(state.clone(), stop.clone()));
    let server = tokio::spawn(server::serve(listener, state.clone(), stop.clone()));
    if matches!(launch.origin, Origin::Save(_)) {
        tokio::spawn(stop_with_starter(stop.clone())?);
    }
    tokio::spawn(stop_on_signal(stop)?);
    let ended = match Life::new(life, state.clone()) {
        // Its end closes the spawner's socket.
        Ok(life) => life.run(stops).await,
        Err(error) => Ended {
            reason: error.to_string(),
            orderly: false,
        },
    };
    await_end_of_all(&mut spawner, &alive).await;
    remove_sockets(&launch);
    if let Err(error) = write_last_exit(&mut last_exit, &ended.reason) {
        tracing::error!(%error, "last-exit was not written");
    }
    let orderly = ended.orderly;
    // From here on the next run may start.
    drop(lock);
    state.update(|snapshot| snapshot.ended = Some(ended));
    server.await.map_err(io::Error::other)??;
    Ok(orderly)
}

/// Helpers whose spawner was killed are not ours to wait for, but the lock they hold is.
async fn await_end_of_all(spawner: &mut Child, alive: &File) {
    let wait = async {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while matches!(spawner.try_wait(), Ok(None)) || !all_ended(alive) {
            tick.tick().await;
        }
    };
    if tokio::time::timeout(SPAWNER_LIMIT, wait).await.is_err() {
        tracing::error!("a process of the sandbox does not end");
    }
}

/// Nobody adopts a machine that is to become a snapshot: it ends with the daemon that wants it, whose end of the pipe
/// on standard input the kernel closes.
fn stop_with_starter(
    stop: mpsc::Sender<StopRequest>,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    let mut pipe = pipe::Receiver::from_owned_fd(input)?;
    Ok(async move {
        // Nothing is ever written to it, and an error is an end as well.
        let _ = pipe.read(&mut [0]).await;
        tracing::warn!("whoever wanted the snapshot has ended");
        let grace = Duration::ZERO;
        // Full: it is being stopped already.
        let _ = stop.try_send(StopRequest { grace, idle: None });
    })
}

/// SIGTERM and SIGINT stop the sandbox in order; SIGHUP is not for us.
fn stop_on_signal(
    stop: mpsc::Sender<StopRequest>,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hup = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = hup.recv() => continue,
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            // Full: it is being stopped already.
            let _ = stop.try_send(StopRequest {
                grace: SIGNAL_GRACE,
                idle: None,
            });
        }
    })
}
