//! The machine as the agent sees it.

use super::disks::{self, Disks};
use super::docker::{Engine, Wanted};
use super::{mounts, personalise, prepare, shutdown};
use crate::agent::{Event, Mailbox, Platform};
use crate::console;
use crate::reaper::Reaper;
use rustix::fd::OwnedFd;
use sbx_wire::guest::{NetworkIdentity, Personalise, Prepare};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// User id of `agent`.
const AGENT_UID: u32 = 1000;

/// What holds once the real root is entered.
struct Booted {
    disks: Disks,
    upper: Arc<OwnedFd>,
    engine: Arc<Engine>,
}

/// See the module.
pub(super) struct Machine {
    mailbox: Mailbox,
    reaper: Reaper,
    booted: OnceLock<Result<Booted, String>>,
    /// What the last personalisation set; also keeps two from running at a time.
    network: Mutex<Option<NetworkIdentity>>,
    shutting_down: Mutex<bool>,
    /// It was made ready to be saved, so there may be others like it.
    prepared: AtomicBool,
}

impl Machine {
    pub(super) fn new(mailbox: Mailbox, reaper: Reaper) -> Self {
        Self {
            mailbox,
            reaper,
            booted: OnceLock::new(),
            network: Mutex::new(None),
            shutting_down: Mutex::new(false),
            prepared: AtomicBool::new(false),
        }
    }

    /// Loads the drivers, mounts the disks, enters the root. Failing is reported on the console and to
    /// whoever asks for personalisation.
    pub(super) fn boot(&self) {
        let booted = self.try_boot().map_err(|error| {
            let text = format!("the machine did not come up: {error}");
            console::say(&text);
            text
        });
        // Set once, here.
        let _ = self.booted.set(booted);
    }

    fn try_boot(&self) -> io::Result<Booted> {
        mounts::load_modules();
        console::debug("root can be mounted");
        let disks = Disks::find()?;
        let upper = Arc::new(mounts::enter_root(&disks)?);
        console::debug("root entered");
        let engine = Arc::new(Engine::bind(
            &disks,
            self.mailbox.clone(),
            self.reaper.clone(),
        )?);
        Ok(Booted {
            disks,
            upper,
            engine,
        })
    }

    fn booted(&self) -> Result<&Booted, String> {
        self.booted.wait().as_ref().map_err(Clone::clone)
    }

    fn network(&self) -> MutexGuard<'_, Option<NetworkIdentity>> {
        self.network.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = std::thread::Builder::new().name(name.into());
    builder.spawn(work).map(drop)
}

/// Starts the engine, if this has not been done.
fn start_engine(engine: &Arc<Engine>, wanted: Wanted) -> io::Result<()> {
    let engine = Arc::clone(engine);
    thread("docker", move || engine.run(&wanted))
}

impl Platform for Machine {
    fn personalise(&self, request: &Personalise) -> Result<(), String> {
        let mut network = self.network();
        let booted = self.booted()?;
        let left_out = personalise::apply(request, network.as_ref());
        for text in left_out.map_err(|error| error.to_string())? {
            self.mailbox.send(Event::Log(text));
        }
        if self.prepared.load(Ordering::SeqCst) {
            // After the entropy: what is drawn here is this machine's alone.
            prepare::part().map_err(|error| error.to_string())?;
            self.prepared.store(false, Ordering::SeqCst);
        }
        *network = Some(request.network.clone());
        let (device, upper) = (booted.disks.upper().to_owned(), Arc::clone(&booted.upper));
        start_engine(&booted.engine, request.into())
            .and_then(|()| thread("grow", move || disks::grow(&device, &upper)))
            .map_err(|error| format!("no thread: {error}"))
    }

    fn prepare(&self, request: &Prepare) -> Result<(), String> {
        let booted = self.booted()?;
        self.prepared.store(true, Ordering::SeqCst);
        let prepared = prepare::begin(request)
            .and_then(|()| start_engine(&booted.engine, request.into()))
            .and_then(|()| booted.engine.await_ready())
            .and_then(|()| prepare::settle(&self.reaper));
        prepared.map_err(|error| error.to_string())
    }

    fn set_clock(&self, unix_ns: u64) -> Result<(), String> {
        personalise::correct_clock(unix_ns).map_err(|error| error.to_string())
    }

    fn shutdown(&self, grace: Duration) {
        let mut shutting_down = self
            .shutting_down
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut shutting_down, true) {
            return;
        }
        let booted = self.booted.get().and_then(|booted| booted.as_ref().ok());
        if let Some(booted) = booted {
            booted.engine.leave_alone();
        }
        shutdown::run(
            grace,
            &self.reaper,
            booted.map(|booted| booted.upper.as_ref()),
        );
    }

    fn default_uid(&self) -> u32 {
        AGENT_UID
    }
}
