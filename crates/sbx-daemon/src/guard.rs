//! What a sandbox's shares are told to protect and hide, and what they say of it.

use crate::daemon::Daemon;
use crate::error::io_report;
use crate::files::{self, Found};
use crate::record::Record;
use crate::sandbox::Sandbox;
use crate::store::StoredSetting;
use crate::{folding, git_settings, image, masks, settings, stand_ins};
use sbx_wire::api::{GuardTold, Guarded, GuardedEvent};
use sbx_wire::launch::ShareSpec;
use sbx_wire::launch::files::share_events;
use sbx_wire::report::Report;
use sbx_workspace::pattern::exactly;
use sbx_workspace::protect::{self, Level};
use sbx_workspace::rules::Guarding;
use sbx_workspace::{Mode as Blocks, Pattern, Protection, Rules, hide};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Most text of patterns for one share, bytes: its rules are an argument of its process, of which Linux takes 128 KiB.
const MAX_RULES: usize = 64 << 10;
/// Most bytes of all its rules as that argument, with room for what is added to them last.
const MAX_ARGUMENT: usize = 120 << 10;
/// Most bytes read of a share's file of events; it writes no more.
const MAX_EVENTS: u64 = 2 << 20;
/// Document in a sandbox's folder: how many lines of each share's file of events somebody was told.
const TOLD: &str = "guard-told.json";

/// Gives a share of a sandbox its rules. `folder`: the sandbox's own. Returns what could not be done, for the user.
///
/// # Errors
/// As [`rules`].
pub(crate) fn complete(
    stored: &BTreeMap<String, StoredSetting>,
    record: &Record,
    share: &mut ShareSpec,
    folder: &Path,
) -> Result<Vec<String>, Report> {
    if share.rules.only.is_some() {
        return Ok(Vec::new());
    }
    let (rules, mut notices) = rules(stored, &record.guarding, (&share.host, share.read_only))?;
    share.rules = rules;
    let wanted = masks::wanted(stored, &record.guarding);
    share.rules.late_masks.clone_from(&wanted);
    let (masks, notice) = masks::find(wanted, &share.host);
    share.rules.masks = masks;
    let folder = folder.join(format!("{}.tracked", share.tag));
    notices.extend(notice);
    let told = serde_json::to_string(&share.rules).map_or(MAX_ARGUMENT, |text| text.len());
    let room = MAX_ARGUMENT.saturating_sub(told);
    let (found, notice) = stand_ins::find(&share.host, &share.rules.hide, &folder, room)?;
    share.rules.stand_ins = found;
    notices.extend(notice);
    for notice in &notices {
        tracing::warn!(sandbox = %record.name, notice, "rules of a share");
    }
    if share.read_only {
        return Ok(notices);
    }
    // What is shared read-only inside of this one could be reached through this one: the guest mounts as it likes.
    let inner = record.workspaces.iter().filter(|other| other.read_only);
    for other in inner {
        let below = other.path.strip_prefix(&share.host);
        let Some(below) = below.ok().filter(|below| !below.as_os_str().is_empty()) else {
            continue;
        };
        let names = below.iter().map(|name| name.to_str().unwrap_or_default());
        let pattern = exactly(names);
        let entry = protect::added(&pattern, Blocks::Block).map_err(|error| {
            let message = format!("{} cannot be kept read-only: {error}", other.path.display());
            Report::user("workspace-path", message, "rename the directory")
        })?;
        share.rules.protect.push(entry);
    }
    // That may be the only one that blocks.
    folding::check(&share.rules, (&share.host, false), folding::folds)?;
    Ok(notices)
}

/// The rules of one workspace, from what was chosen, the settings and the workspace itself; and what was not looked at
/// for them, for the user.
///
/// # Errors
/// What in the workspace's own list cannot be meant: a list that is understood in part would show what it was to hide; and
/// what its file system does not let anybody keep.
pub(crate) fn rules(
    stored: &BTreeMap<String, StoredSetting>,
    guarding: &Guarding,
    share: (&Path, bool),
) -> Result<(Rules, Vec<String>), Report> {
    rules_where(stored, guarding, share, folding::folds)
}

/// [`rules`], with a way to know where names are folded.
fn rules_where(
    stored: &BTreeMap<String, StoredSetting>,
    guarding: &Guarding,
    (root, read_only): (&Path, bool),
    folds: fn(&Path) -> io::Result<bool>,
) -> Result<(Rules, Vec<String>), Report> {
    let level = match guarding.protect {
        Some(level) => level,
        None => settings::protect(stored)?,
    };
    let mut protections = protect::standard(level);
    let found = match protect::git_mode(level) {
        // Nothing is written there.
        _ if read_only => git_settings::Found::default(),
        Some(mode) => git_settings::find(root, &git_settings::User::own(), mode)?,
        None => git_settings::Found::default(),
    };
    let text = |entry: &Protection| entry.pattern.as_str().len();
    let mut own = found.protections.iter().map(text).sum::<usize>();
    own += found.stay.iter().map(|stay| stay.path.len()).sum::<usize>();
    protections.extend(found.protections);
    protections.extend(guarding.protect_paths.iter().map(|pattern| Protection {
        pattern: pattern.clone(),
        mode: Blocks::Block,
        what: sbx_workspace::What::Everything,
    }));
    let mut hidden = settings::hide(stored)?;
    for pattern in &guarding.hide {
        // The short word is a pattern as well, of a name that nobody uses.
        let several = hide::one(pattern.as_str());
        hidden.extend(several.unwrap_or_else(|_| vec![pattern.clone()]));
    }
    hidden.extend(ignore_file(root)?);
    let text = |pattern: &Pattern| pattern.as_str().len();
    own += guarding.protect_paths.iter().map(text).sum::<usize>();
    let count = protections.len().max(hidden.len());
    if own + hidden.iter().map(text).sum::<usize>() > MAX_RULES
        || count > sbx_workspace::set::MAX_PATTERNS
    {
        return Err(Report::user(
            "patterns-too-many",
            format!(
                "the patterns for {} are more than {} or take more than {} KiB",
                root.display(),
                sbx_workspace::set::MAX_PATTERNS,
                MAX_RULES >> 10
            ),
            format!("name directories instead of files in {}", hide::FILE),
        ));
    }
    let rules = Rules {
        protect: protections,
        hide: hidden,
        stay: found.stay,
        ..Rules::default()
    };
    let mut notices = found.notices;
    notices.extend(folding::check(&rules, (root, read_only), folds)?);
    Ok((rules, notices))
}

fn ignore_file(root: &Path) -> Result<Vec<Pattern>, Report> {
    let path = root.join(hide::FILE);
    let refuse = |message: String| {
        let shown = path.display();
        Report::user(
            "sbxignore-invalid",
            message,
            format!("correct or remove {shown}"),
        )
    };
    let content = match sbx_files::plain(&path, hide::MAX_FILE) {
        Ok(Some(content)) => content,
        Ok(None) => {
            return Err(refuse(format!(
                "{} is no plain file of at most {} KiB",
                path.display(),
                hide::MAX_FILE >> 10
            )));
        }
        // A workspace may be a file.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(io_report("read", &path, &error)),
    };
    let text = String::from_utf8(content)
        .map_err(|_| refuse(format!("{} is not UTF-8", path.display())))?;
    hide::list(&text).map_err(|error| refuse(format!("{}, {error}", path.display())))
}

/// What was tried in a sandbox. Lines that cannot be read are left out.
pub(crate) async fn report(daemon: &Daemon, sandbox: &Sandbox) -> Result<Guarded, Report> {
    let stored = daemon.store().settings().clone();
    let (record, dir) = (sandbox.record(), sandbox.dir.clone());
    image::blocking(move || tried(&stored, &record, &dir)).await
}

/// Takes note of what somebody was told. While the sandbox is about to start, to end or to go nothing is noted: that is
/// told once more.
pub(crate) async fn told(daemon: &Daemon, name: &str, told: GuardTold) -> Result<(), Report> {
    let sandbox = daemon.sandbox(name)?;
    let Ok(_gate) = sandbox.gate.try_lock() else {
        return Ok(());
    };
    // Looked at under the gate: nobody removes it now.
    if daemon.sandbox(name)?.record().id == told.id {
        let path = sandbox.dir.join(TOLD);
        image::blocking(move || files::replace_json(&path, &told.counted)).await??;
    }
    Ok(())
}

/// [`report`], on a thread that may wait.
fn tried(stored: &BTreeMap<String, StoredSetting>, record: &Record, dir: &Path) -> Guarded {
    let (shares, _) = crate::personalise::shares(record);
    let told = match files::read_json::<Vec<u64>>(&dir.join(TOLD)) {
        Found::Good(counted) => counted,
        Found::Missing | Found::Corrupt(_) => Vec::new(),
    };
    let (mut events, mut counted) = (Vec::new(), Vec::new());
    for (index, share) in shares.iter().enumerate() {
        let mut text = Vec::new();
        if let Ok(file) = File::open(dir.join(share_events(index))) {
            let _cut = file.take(MAX_EVENTS).read_to_end(&mut text);
        }
        let told = told.get(index).copied().unwrap_or_default();
        let mut lines = 0;
        // One that is just being written is for the next time.
        let whole = |line: &&[u8]| line.ends_with(b"\n");
        for line in text.split_inclusive(|byte| *byte == b'\n').filter(whole) {
            lines += 1;
            if let Ok(event) = serde_json::from_slice(line) {
                events.push(GuardedEvent {
                    workspace: share.host.clone(),
                    told: lines <= told,
                    event,
                });
            }
        }
        counted.push(lines);
    }
    events.sort_by_key(|entry| entry.event.unix_ms);
    // No share starts with a setting that cannot be read.
    let chosen = || settings::protect(stored).unwrap_or(Level::Block);
    Guarded {
        protect: record.guarding.protect.unwrap_or_else(chosen),
        events,
        counted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_whose_file_system_folds_names_has_no_rules_that_block() {
        let folder = tempfile::tempdir().unwrap();
        let asked = |level, read_only, folds| {
            let guarding = Guarding {
                protect: Some(level),
                ..Guarding::default()
            };
            let share = (folder.path(), read_only);
            rules_where(&BTreeMap::new(), &guarding, share, folds)
        };
        let refused = asked(Level::Standard, false, |_| Ok(true)).unwrap_err();
        assert_eq!(refused.code, "workspace-folds-case");
        assert!(asked(Level::Standard, true, |_| Ok(true)).is_ok());
        assert!(asked(Level::Standard, false, |_| Ok(false)).is_ok());
        let (_, notices) = asked(Level::Report, false, |_| Ok(true)).unwrap();
        assert!(
            notices.iter().any(|notice| notice.contains(".GIT")),
            "{notices:?}"
        );
        // What hides is read from the workspace itself.
        std::fs::write(folder.path().join(hide::FILE), ".env\n").unwrap();
        assert!(asked(Level::Off, true, |_| Ok(true)).is_err());
    }
}
