//! A daemon's life.

use crate::api;
use crate::authority::Root;
use crate::daemon::Daemon;
use crate::files;
use crate::host::{self, Held};
use crate::keeper;
use crate::lifecycle;
use crate::listener::OwnUser;
use crate::logging;
use crate::reconcile::reconcile;
use crate::removal;
use crate::sign_ins;
use crate::small_kernel;
use crate::store::Store;
use crate::warm;
use sbx_secrets::Vault;
use sbx_wire::home::Home;
use sbx_wire::report::Report;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

/// Time for requests that are being answered when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(2);
/// Time for running supervisors to say how they are, at the start.
const ADOPT: Duration = Duration::from_secs(2);

/// Runs a daemon on `home` until it is told to end. `programs`: where the helper programs are. `ready` is
/// called once, when the socket answers.
///
/// # Errors
/// Why it could not start: another daemon runs, a folder is not usable, the state is of a newer version.
pub fn run(home: Home, programs: PathBuf, ready: impl FnOnce()) -> Result<(), Report> {
    host::harden()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime
        .map_err(|error| Report::bug("runtime", format!("the runtime does not start: {error}")))?;
    let outcome = runtime.block_on(live(home, programs, ready));
    // A worker that builds an image notices by itself that we end.
    runtime.shutdown_timeout(FAREWELL);
    outcome
}

async fn live(home: Home, programs: PathBuf, ready: impl FnOnce()) -> Result<(), Report> {
    let Held { listener, lock } = host::take_hold(&home).await?;
    logging::start(&home.daemon_log())?;
    tracing::info!(
        pid = std::process::id(),
        version = env!("CARGO_PKG_VERSION"),
        "daemon"
    );
    let daemon =
        Arc::new(open(home, programs).inspect_err(|error| tracing::error!(%error, "start"))?);
    adopt(&daemon).await;
    let swept = tokio::spawn(warm::sweep(daemon.clone()));
    let ended = serve(&daemon, OwnUser(listener), ready).await;
    // The next daemon makes its own; without this one, commands start it at once.
    let _ = std::fs::remove_file(daemon.home.daemon_socket());
    daemon.ending.send_replace(true);
    swept.abort();
    warm::leave(&daemon).await;
    lifecycle::clear_runtime(&daemon);
    drop(lock);
    tracing::info!("daemon ends");
    ended
}

fn open(home: Home, programs: PathBuf) -> Result<Daemon, Report> {
    let mut notices = Vec::new();
    let mut store = Store::open(&home, &mut notices)?;
    let mut secrets = Vault::open(&home.state, &mut notices)?;
    let root = Root::open(&home.state, &mut notices)?;
    for folder in ["", "secrets", "ca"] {
        files::remove_unfinished(&home.state.join(folder));
    }
    let sandboxes = reconcile(&home, &mut store, &mut secrets, &mut notices)?;
    for notice in &notices {
        tracing::warn!("{notice}");
    }
    Ok(Daemon::new(
        home,
        programs,
        (store, secrets, root),
        sandboxes,
        notices,
    ))
}

/// Connects to every supervisor that runs, and waits a moment for what they say.
async fn adopt(daemon: &Arc<Daemon>) {
    let mut adopted = JoinSet::new();
    for sandbox in daemon.sandboxes() {
        let daemon = daemon.clone();
        adopted.spawn(async move {
            // The policy may have changed while no daemon ran it through, e.g. from a mended store.
            if let Err(error) = daemon.write_gateway_file(&sandbox) {
                tracing::error!(sandbox = sandbox.name, %error, "gateway.json");
            }
            if !daemon.follow(&sandbox).await {
                if let Err(report) = removal::remove_ended(&daemon, &sandbox).await {
                    tracing::error!(sandbox = sandbox.name, %report, "not removed");
                }
                return;
            }
            tracing::info!(sandbox = sandbox.name, "adopted");
            let mut live = sandbox.live.subscribe();
            let said = live.wait_for(|live| !matches!(live, crate::sandbox::Live::Silent));
            let _ = tokio::time::timeout(ADOPT, said).await;
        });
    }
    adopted.join_all().await;
}

async fn serve(
    daemon: &Arc<Daemon>,
    listener: OwnUser,
    ready: impl FnOnce(),
) -> Result<(), Report> {
    let fail = |error| Report::bug("serve", format!("the daemon cannot serve: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(fail)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(fail)?;
    // A closed terminal is no reason to end.
    let _hangup = signal(SignalKind::hangup()).map_err(fail)?;
    let ending = daemon.ending.clone();
    let signals = tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        ending.send_replace(true);
    });
    let mut told = daemon.ending.subscribe();
    let told_again = daemon.ending.subscribe();
    let graceful = async move {
        let _ = told.wait_for(|ending| *ending).await;
    };
    let server =
        axum::serve(listener, api::router(daemon.clone())).with_graceful_shutdown(graceful);
    ready();
    let background = tokio::spawn(small_kernel::keep(daemon.clone()));
    let keeper = tokio::spawn(keeper::keep(daemon.clone()));
    let sign_ins = tokio::spawn(sign_ins::keep(daemon.clone()));
    let outcome = tokio::select! {
        ended = server.into_future() => ended.map_err(fail),
        () = farewell(told_again) => Ok(()),
    };
    signals.abort();
    background.abort();
    keeper.abort();
    sign_ins.abort();
    outcome
}

/// Ends some time after the daemon was told to, for clients that keep their connection.
async fn farewell(mut told: tokio::sync::watch::Receiver<bool>) {
    let _ = told.wait_for(|ending| *ending).await;
    tokio::time::sleep(FAREWELL).await;
}
