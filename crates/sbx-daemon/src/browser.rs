//! Pages that programs inside ask for, opened in the host's browser. The gateway has judged the address and
//! both sides have parsed it; here it becomes an argument of the host's `xdg-open`, never of a shell.

use crate::daemon::Daemon;
use crate::gateway_link::{RETRY, connect, receive, send};
use crate::sandbox::Sandbox;
use crate::settings;
use sbx_wire::browser::Address;
use sbx_wire::gateway::{Answer, Command};
use std::io;
use std::process::Stdio;
use std::time::Duration;
use tokio::time::Instant;

const OPENER: &str = "xdg-open";
/// Between two pages of one sandbox: a person opens no more, and a program must not flood the screen.
const PAUSE: Duration = Duration::from_secs(3);
/// One of these says that there is a screen (X11, Wayland).
const SCREEN: [&str; 2] = ["WAYLAND_DISPLAY", "DISPLAY"];

/// Takes the pages of one sandbox for as long as it runs.
pub(crate) async fn serve(daemon: &Daemon, sandbox: &Sandbox) {
    let mut opened = None;
    loop {
        if let Err(error) = converse(daemon, sandbox, &mut opened).await {
            tracing::debug!(sandbox = sandbox.name, %error, "pages for the browser");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn converse(
    daemon: &Daemon,
    sandbox: &Sandbox,
    opened: &mut Option<Instant>,
) -> io::Result<()> {
    let (mut read, mut write) = connect(sandbox).await?;
    let mut command = Command::AwaitPage;
    loop {
        send(&mut write, &command).await?;
        let Answer::OpenPage { address } = receive(&mut read).await? else {
            // A gateway of an older version: it is not asked again before there is another one.
            receive(&mut read).await?;
            return Err(io::Error::other("the gateway spoke without being asked"));
        };
        let problem = open(daemon, &address, opened).err();
        tracing::info!(sandbox = sandbox.name, %address, ?problem, "page for the browser");
        command = Command::PageHandled { problem };
    }
}

/// Whether a window can be opened on the host.
pub(crate) fn has_screen() -> bool {
    let screen = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    SCREEN.iter().any(screen)
}

/// Opens a page that a sandbox asks for, or says why not.
fn open(daemon: &Daemon, address: &Address, opened: &mut Option<Instant>) -> Result<(), String> {
    if opened.is_some_and(|last| last.elapsed() < PAUSE) {
        return Err(format!("only one page every {} s", PAUSE.as_secs()));
    }
    show(daemon, address)?;
    *opened = Some(Instant::now());
    Ok(())
}

/// Opens a page, or says why not.
pub(crate) fn show(daemon: &Daemon, address: &Address) -> Result<(), String> {
    if !settings::opens_browser(daemon.store().settings()) {
        return Err(format!("{} is false on the host", settings::BROWSER));
    }
    if !has_screen() {
        return Err("the host has no screen".to_owned());
    }
    let mut command = tokio::process::Command::new(OPENER);
    command
        .arg(address.as_str())
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command
        .spawn()
        .map_err(|error| format!("{OPENER}: {error}"))?;
    // It may stay for as long as the browser does.
    tokio::spawn(async move { child.wait().await });
    Ok(())
}
