//! The one system call whose reply type has fields that only zeroing can fill.
#![expect(
    unsafe_code,
    reason = "libc::statvfs64 has private padding and no safe constructor"
)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Size and use of the file system that holds `fd`.
pub(crate) fn statvfs64(fd: BorrowedFd<'_>) -> io::Result<libc::statvfs64> {
    let mut stat = MaybeUninit::<libc::statvfs64>::zeroed();
    // SAFETY: `stat` is valid for writes of its whole type and `fd` is open for as long as it is borrowed.
    let result = unsafe { libc::fstatvfs64(fd.as_raw_fd(), stat.as_mut_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the type holds integers only, for which all bits zero is a value; the call has filled it in.
    Ok(unsafe { stat.assume_init() })
}
