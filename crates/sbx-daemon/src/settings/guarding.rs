//! What the settings say of workspaces: protected, hidden and masked names, directories that may be mounted.

use super::{HIDE, MASK, MOUNTS_ALLOW, MOUNTS_DENY, PROTECT, restricting};
use crate::store::StoredSetting;
use sbx_wire::report::Report;
use sbx_workspace::mask::{Mask, NoMask};
use sbx_workspace::mounts::{MountPolicy, MountRule, NoMountRule};
use sbx_workspace::protect::{Level, NoLevel};
use sbx_workspace::{Pattern, hide};
use std::collections::BTreeMap;

/// How much is protected.
///
/// # Errors
/// As [`hide`].
pub(crate) fn protect(stored: &BTreeMap<String, StoredSetting>) -> Result<Level, Report> {
    restricting(stored, PROTECT, level)
}

pub(super) fn level(text: &str) -> Result<Level, String> {
    text.trim()
        .parse()
        .map_err(|error: NoLevel| error.to_string())
}

/// What is hidden in every workspace.
///
/// # Errors
/// The stored value is none that [`super::check`] lets pass: understood as nothing it would show what it was to hide.
pub(crate) fn hide(stored: &BTreeMap<String, StoredSetting>) -> Result<Vec<Pattern>, Report> {
    restricting(stored, HIDE, hidden)
}

/// Which directories may be workspaces.
///
/// # Errors
/// As [`hide`].
pub(crate) fn mounts(stored: &BTreeMap<String, StoredSetting>) -> Result<MountPolicy, Report> {
    Ok(MountPolicy {
        allow: restricting(stored, MOUNTS_ALLOW, mount_rules)?,
        deny: restricting(stored, MOUNTS_DENY, mount_rules)?,
    })
}

pub(super) fn mount_rules(text: &str) -> Result<Vec<MountRule>, String> {
    let entries = text.split(',').map(str::trim);
    entries
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            entry
                .parse()
                .map_err(|error: NoMountRule| error.to_string())
        })
        .collect()
}

/// Which directories are the sandbox's own.
pub(crate) fn masks(stored: &BTreeMap<String, StoredSetting>) -> Vec<Mask> {
    let list = stored.get(MASK).map(|stored| masked(&stored.value));
    list.and_then(Result::ok).unwrap_or_default()
}

pub(super) fn masked(text: &str) -> Result<Vec<Mask>, String> {
    let entries = text.split(',').map(str::trim);
    entries
        .filter(|entry| !entry.is_empty())
        .map(|entry| entry.parse().map_err(|error: NoMask| error.to_string()))
        .collect()
}

pub(super) fn hidden(text: &str) -> Result<Vec<Pattern>, String> {
    let entries = text.split(',').map(str::trim);
    let mut patterns = Vec::new();
    for entry in entries.filter(|entry| !entry.is_empty()) {
        let several = hide::one(entry).map_err(|error| format!("{entry:?}: {error}"))?;
        patterns.extend(several);
    }
    Ok(patterns)
}
