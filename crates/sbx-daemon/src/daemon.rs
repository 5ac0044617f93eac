//! What the daemon holds, and the changes that reach running sandboxes.

use crate::authority::Root;
use crate::consent::Consents;
use crate::error::ApiResult;
use crate::image::InitramfsCache;
use crate::policy;
use crate::sandbox::Sandbox;
use crate::settings;
use crate::short_lived::Sessions;
use crate::sign_ins::SignIns;
use crate::small_kernel::Small;
use crate::ssh_agent::Questions;
use crate::store::Store;
use crate::warm::{self, Warm};
use crate::{credentials, files, gateway_link, removal, supervisor_link};
use sbx_secrets::{Keychain, SecretService, Values, Vault};
use sbx_wire::api;
use sbx_wire::gateway::{Authority, GatewayConfig, GatewayFile};
use sbx_wire::home::Home;
use sbx_wire::launch;
use sbx_wire::report::Report;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// Time for running gateways to confirm a change before its request is answered.
const CONFIRM: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Debug)]
pub(crate) struct Daemon {
    /// Its folders.
    pub(crate) home: Home,
    /// Where the helper programs are.
    pub(crate) programs: PathBuf,
    /// When it started.
    pub(crate) started: Instant,
    /// The root certificate authority.
    pub(crate) root: Root,
    /// What is known about the small kernel.
    pub(crate) small: Arc<Small>,
    /// Initial RAM disks that were built.
    pub(crate) initramfs: InitramfsCache,
    /// Snapshots that are being made.
    pub(crate) warm: Warm,
    /// Shared by sandboxes that are being made, from the look for their image until it is known that they lie on it; held
    /// alone while images are removed. Never awaited with a lock of a [`Mutex`] held.
    pub(crate) images: Arc<tokio::sync::RwLock<()>>,
    /// Shared by removals of sandboxes; whoever waits until none is under way takes it alone.
    pub(crate) leaving: tokio::sync::RwLock<()>,
    /// What was tried in sandboxes that are gone.
    pub(crate) reports: removal::Reports,
    /// Becomes true when the daemon is to end.
    pub(crate) ending: watch::Sender<bool>,
    store: Mutex<Store>,
    secrets: Mutex<Vault>,
    /// Values that are not in the vault.
    pub(crate) values: Values,
    /// Whether a key of the SSH agent may sign.
    pub(crate) ssh_questions: Questions,
    /// What is stored, or which sandboxes run, has changed.
    pub(crate) values_changed: Notify,
    /// What is known of tokens that were issued.
    pub(crate) sign_ins: SignIns,
    /// Keys of AWS that end soon.
    pub(crate) short_lived: Sessions,
    /// What somebody is asked to agree to.
    pub(crate) consents: Consents,
    /// Held while something is stored or removed, which may wait for the keychain.
    pub(crate) storing: tokio::sync::Mutex<()>,
    sandboxes: Mutex<BTreeMap<String, Arc<Sandbox>>>,
    reserved: Mutex<BTreeSet<String>>,
    notices: Mutex<Vec<String>>,
    /// Held while `gateway.json` files are written, so that an older state never overwrites a newer one.
    writing: Mutex<()>,
}

/// The data is whole after a panic elsewhere: every change replaces it in one step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Daemon {
    /// Puts the parts together.
    pub(crate) fn new(
        home: Home,
        programs: PathBuf,
        (store, secrets, root): (Store, Vault, Root),
        sandboxes: Vec<Sandbox>,
        notices: Vec<String>,
    ) -> Self {
        let by_name = sandboxes
            .into_iter()
            .map(|s| (s.name.clone(), Arc::new(s)))
            .collect();
        Self {
            home,
            programs,
            started: Instant::now(),
            root,
            small: Arc::default(),
            initramfs: InitramfsCache::default(),
            warm: Warm::default(),
            images: Arc::default(),
            leaving: tokio::sync::RwLock::default(),
            reports: removal::Reports::default(),
            ending: watch::Sender::new(false),
            store: Mutex::new(store),
            secrets: Mutex::new(secrets),
            ssh_questions: Questions::default(),
            values: Values::new(Keychain::new(SecretService::connect)),
            values_changed: Notify::new(),
            sign_ins: SignIns::default(),
            short_lived: Sessions::default(),
            consents: Consents::default(),
            storing: tokio::sync::Mutex::default(),
            sandboxes: Mutex::new(by_name),
            reserved: Mutex::default(),
            notices: Mutex::new(notices),
            writing: Mutex::default(),
        }
    }

    /// The store. Not held across an await.
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        lock(&self.store)
    }

    /// The secrets. Not held across an await.
    pub(crate) fn secrets(&self) -> MutexGuard<'_, Vault> {
        lock(&self.secrets)
    }

    /// What had to be mended at the start.
    pub(crate) fn notices(&self) -> Vec<String> {
        lock(&self.notices).clone()
    }

    /// What there is for a warm start.
    pub(crate) fn snapshots(&self) -> api::Snapshots {
        let (pending, failed) = self.warm.progress();
        api::Snapshots {
            ready: warm::keys(&self.home.cache),
            pending,
            failed,
        }
    }

    /// All sandboxes, in order of name.
    pub(crate) fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        lock(&self.sandboxes).values().cloned().collect()
    }

    /// A sandbox by its name.
    pub(crate) fn sandbox(&self, name: &str) -> Result<Arc<Sandbox>, Report> {
        lock(&self.sandboxes).get(name).cloned().ok_or_else(|| {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
            Report::user(
                "sandbox-not-found",
                format!("sandbox '{shown}' not found"),
                "sbx ls",
            )
        })
    }

    /// Adds a sandbox that has just been made.
    pub(crate) fn add_sandbox(&self, sandbox: Arc<Sandbox>) {
        lock(&self.sandboxes).insert(sandbox.name.clone(), sandbox);
    }

    /// Forgets a sandbox. Its name stays in use until what is returned is dropped. `None`: somebody has the name reserved
    /// already, who made the sandbox and could not finish.
    pub(crate) fn forget_sandbox(self: &Arc<Self>, name: &str) -> Option<Reservation> {
        let mut reserved = lock(&self.reserved);
        lock(&self.sandboxes).remove(name);
        reserved.insert(name.to_owned()).then(|| Reservation {
            daemon: self.clone(),
            name: name.to_owned(),
        })
    }

    /// Takes away the rules and secrets that belong to a name. They would come into force for a later sandbox of it.
    pub(crate) fn forget_name(&self, name: &str) -> Result<(), Report> {
        let mut store = self.store();
        let of_name = |rule: &sbx_policy::Rule| rule.scope.sandbox() == Some(name);
        let rules = if store.policy().document.rules.iter().any(of_name) {
            store.change_policy(|policy| {
                policy.document.remove_sandbox(name);
                Ok(())
            })
        } else {
            Ok(())
        };
        drop(store);
        rules.and(self.secrets().remove_sandbox(name))
    }

    /// Takes a name for a sandbox that is being made, until the reservation is dropped. `None`: it is in use.
    pub(crate) fn reserve(self: &Arc<Self>, name: &str) -> Option<Reservation> {
        // In this order: a sandbox is added before its reservation ends.
        let mut reserved = lock(&self.reserved);
        let free = !lock(&self.sandboxes).contains_key(name) && reserved.insert(name.to_owned());
        free.then(|| Reservation {
            daemon: self.clone(),
            name: name.to_owned(),
        })
    }

    /// Fails until `policy init` has been done.
    pub(crate) fn require_policy(&self) -> Result<(), Report> {
        self.store()
            .policy()
            .preset
            .is_some()
            .then_some(())
            .ok_or_else(policy::not_initialized)
    }

    /// Connects to the sandbox's supervisor, if there is one, and keeps its gateway configured.
    pub(crate) async fn follow(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> bool {
        let Some(ended) = supervisor_link::follow(sandbox).await else {
            return false;
        };
        gateway_link::spawn(self.clone(), sandbox.clone(), ended);
        self.values_changed.notify_one();
        self.sign_ins.changed.notify_one();
        removal::when_ended(self.clone(), sandbox.clone());
        true
    }

    /// The sandbox as it is shown.
    pub(crate) fn show(&self, sandbox: &Sandbox) -> api::Sandbox {
        sandbox.show(credentials::names(&self.secrets(), &sandbox.name))
    }

    /// What lies on disk for the sandbox's gateway.
    pub(crate) fn gateway_file(&self, sandbox: &Sandbox) -> GatewayFile {
        let record = sandbox.record();
        let credential_hosts = credentials::hosts(&self.secrets(), &record);
        let store = self.store();
        let mut policy = store.policy().for_sandbox(Some(&sandbox.name));
        if sandbox
            .damage
            .as_ref()
            .is_some_and(|damage| damage.nameless)
        {
            policy.rules.clear();
        }
        GatewayFile {
            sandbox: sandbox.name.clone(),
            policy,
            upstream: settings::upstream(store.settings()),
            credential_hosts,
        }
    }

    /// Everything that the sandbox's gateway works from.
    pub(crate) fn gateway_config(&self, sandbox: &Sandbox, authority: Authority) -> GatewayConfig {
        let given = credentials::for_gateway(self, sandbox);
        GatewayConfig {
            file: self.gateway_file(sandbox),
            credentials: given.credentials,
            withdrawn: given.withdrawn,
            issuers: given.issuers,
            authority,
        }
    }

    /// Writes the sandbox's record down.
    pub(crate) fn keep_record(&self, sandbox: &Sandbox) -> Result<(), Report> {
        let record = sandbox.record();
        files::replace_json(&sandbox.dir.join(launch::files::SANDBOX), &record)?;
        self.store().put_sandbox(&record)
    }

    /// Brings a change of what is stored to one sandbox, or to all: placeholders for what is new, and [`Self::push`].
    pub(crate) async fn push_secrets(&self, only: Option<&str>) -> ApiResult<()> {
        self.values_changed.notify_one();
        let mut failed = Vec::new();
        for sandbox in self.concerned(only) {
            // What is left of a damaged one is not written down.
            if sandbox.damage.is_some() {
                continue;
            }
            let given = sandbox.change_record(|record| credentials::give(self, record, false));
            let kept = match given {
                Ok(true) => self.keep_record(&sandbox),
                Ok(false) => Ok(()),
                Err(report) => Err(report),
            };
            if let Err(report) = kept {
                failed.push((sandbox.name.clone(), report));
            }
        }
        self.push(only).await?;
        not_everywhere(failed).map_or(Ok(()), |report| Err(report.into()))
    }

    fn concerned(&self, only: Option<&str>) -> Vec<Arc<Sandbox>> {
        self.sandboxes()
            .into_iter()
            .filter(|sandbox| only.is_none_or(|name| sandbox.name == name))
            .collect()
    }

    /// Writes the sandbox's `gateway.json`.
    pub(crate) fn write_gateway_file(&self, sandbox: &Sandbox) -> Result<(), Report> {
        let _writing = lock(&self.writing);
        files::replace_json(
            &sandbox.dir.join(launch::files::GATEWAY),
            &self.gateway_file(sandbox),
        )
    }

    /// Brings a change to one sandbox's gateway, or to all: first the files, then the running gateways, whose
    /// answer is awaited.
    pub(crate) async fn push(&self, only: Option<&str>) -> ApiResult<()> {
        let mut waiting = Vec::new();
        let mut failed = Vec::new();
        for sandbox in self.concerned(only) {
            // One sandbox's full disk is no reason to leave the others with the old policy.
            if let Err(report) = self.write_gateway_file(&sandbox) {
                failed.push((sandbox.name.clone(), report));
            }
            let revision = sandbox.gateway.request();
            if sandbox.is_running() {
                waiting.push((sandbox, revision));
            }
        }
        let deadline = Instant::now() + CONFIRM;
        for (sandbox, revision) in waiting {
            let left = deadline.saturating_duration_since(Instant::now());
            let applied = sandbox.gateway.applied(revision, left).await;
            // One that ended meanwhile has nothing to confirm.
            if let Err(report) = applied
                && sandbox.is_running()
            {
                failed.push((sandbox.name.clone(), report));
            }
        }
        not_everywhere(failed).map_or(Ok(()), |report| Err(report.into()))
    }
}

/// One error about all sandboxes that a stored change has not reached.
fn not_everywhere(failed: Vec<(String, Report)>) -> Option<Report> {
    let names: Vec<String> = failed.iter().map(|(name, _)| format!("'{name}'")).collect();
    let (name, first) = failed.into_iter().next()?;
    let first_of = if names.len() > 1 {
        format!(" (of '{name}')")
    } else {
        String::new()
    };
    Some(Report {
        message: format!(
            "the change is stored, but it is not in force in {}: {}{first_of}",
            names.join(", "),
            first.message
        ),
        hint: first.hint.map(|hint| hint.replace("NAME", &name)),
        ..first
    })
}

/// A name that is taken while its sandbox is being made.
#[derive(Debug)]
pub(crate) struct Reservation {
    daemon: Arc<Daemon>,
    name: String,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        lock(&self.daemon.reserved).remove(&self.name);
    }
}
