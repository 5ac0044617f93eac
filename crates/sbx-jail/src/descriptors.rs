//! Descriptors that nobody meant to hand on.
#![allow(unsafe_code, reason = "see the SAFETY argument")]

use std::io;

/// Marks every descriptor from `first` on close-on-exec (`close_range(2)`): whatever leaked into this process, a
/// script's lock or pipe, goes no further than to it.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: CLOSE_RANGE_CLOEXEC only sets a flag; it closes nothing, so every owner's descriptor stays valid.
    let result =
        unsafe { libc::close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC.cast_signed()) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
