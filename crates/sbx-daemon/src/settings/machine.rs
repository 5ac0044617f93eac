//! Settings of machines that are started from now on.

use super::{CONFINE, KERNEL, flag};
use crate::store::StoredSetting;
use std::collections::BTreeMap;

/// Whether QEMU is confined. A value that no check has let in does not take that away.
pub(crate) fn confined(stored: &BTreeMap<String, StoredSetting>) -> bool {
    let stored = stored.get(CONFINE).map(|stored| flag(&stored.value));
    !matches!(stored, Some(Ok(false)))
}

/// Which kernel machines are started with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WantedKernel {
    /// The small one once it is there and was seen to be no slower, else the distribution's.
    Auto,
    /// The distribution's.
    Stock,
    /// The small one, built on demand.
    Small,
}

/// Which kernel machines are started with.
pub(crate) fn kernel(stored: &BTreeMap<String, StoredSetting>) -> WantedKernel {
    stored
        .get(KERNEL)
        .and_then(|stored| wanted_kernel(&stored.value).ok())
        .unwrap_or(WantedKernel::Auto)
}

pub(super) fn wanted_kernel(text: &str) -> Result<WantedKernel, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "auto" => Ok(WantedKernel::Auto),
        "stock" => Ok(WantedKernel::Stock),
        "small" => Ok(WantedKernel::Small),
        _ => Err(format!("{text:?} is neither auto, stock nor small")),
    }
}
