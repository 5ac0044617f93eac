//! Every bound of the share, each with what happens when it is hit.

use std::time::Duration;

/// How long the guest may use attributes and names without asking again. A host edit shows inside within this time
/// plus one request, and the promise is one second.
pub const CACHE_TIME: Duration = Duration::from_millis(500);

/// How long look-ups of a masked directory that has just appeared wait until the guest has mounted something there. Beyond:
/// they are answered, and nothing can be made in it.
pub const MOUNT_LIMIT: Duration = Duration::from_secs(3);

/// How long after it was mounted such a directory still sends back whoever has passed the mount point before.
pub const MOUNTED_GRACE: Duration = Duration::from_millis(100);

/// Nodes (files the guest has looked up and not forgotten). About 250 bytes each. Beyond: `ENFILE`.
pub const MAX_NODES: usize = 1_000_000;

/// Open files and directories of the guest, further limited by `RLIMIT_NOFILE` less [`RESERVED_DESCRIPTORS`]
/// and those of [`MAX_DIRECTORIES`].
/// Beyond: `ENFILE`.
pub const MAX_HANDLES: usize = 16_384;

/// Directories whose descriptors are kept for a while, at most an eighth of `RLIMIT_NOFILE`. Beyond: the one that was not
/// used for longest is walked to again.
pub const MAX_DIRECTORIES: usize = 512;

/// Descriptors kept back from the guest: the root, vhost-user sockets, guest memory, queue events, the log, locks of
/// git's ([`MAX_LOCKS`]) and the short-lived ones of a request in flight.
pub const RESERVED_DESCRIPTORS: usize = 64;

/// Locks of git's settings that the guest has at a time, each with the descriptor of its directory. Beyond: `ENFILE`.
pub const MAX_LOCKS: usize = 16;

/// Directories between the root and a file. Beyond: `ENAMETOOLONG`.
pub const MAX_DEPTH: usize = 1024;

/// Bytes of one name, as the kernel has it. Beyond: `ENAMETOOLONG`.
pub const MAX_NAME: usize = 255;

/// Names remembered for one file with several hard links; the oldest is forgotten, and found again by look-up.
pub const MAX_PLACES: usize = 4;

/// Bytes of directory entries read from the host at once and kept per open directory.
pub const DIRECTORY_CHUNK: usize = 8 * 1024;

/// Bytes of content in one request, as the guest's kernel is told. Beyond: a short read or write.
pub const MAX_CONTENT: u32 = 1024 * 1024;

/// Bytes of one request's arguments: a link's text is at most a page, and there are two names at most. Beyond: `E2BIG`.
pub const MAX_ARGUMENTS: usize = 64 * 1024;

/// Bytes of one listing. Beyond: the guest asks for the rest.
pub const MAX_LISTING: usize = 64 * 1024;

/// Descriptors of a queue (QEMU's own bound). Beyond: QEMU is refused.
pub const MAX_QUEUE: u16 = 1024;

/// Requests of one queue that are answered before the other one, and QEMU, have their turn.
pub const TURN: usize = 128;

/// Time after which the guest is told of answers although more requests are waiting.
pub const SIGNAL_AFTER: Duration = Duration::from_micros(100);

/// Bytes copied by one `copy_file_range` request. Beyond: a short copy, the guest asks again.
pub const MAX_COPY: u64 = 16 * 1024 * 1024;

/// Bytes of log one server process writes. Beyond: nothing more is logged.
pub const MAX_LOG: usize = 1024 * 1024;

/// Events of guarded files that one server process says of what it refuses, and again of what is made. Beyond: that the
/// list is full is said; the refusals stand, unsaid.
pub const MAX_EVENTS: usize = 10_000;

/// Bytes of a share's file of events, over all its starts, as long as refusals are said; twice that for what is made.
/// Beyond: as [`MAX_EVENTS`].
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// Of those, kept for the last events, which say that the list is full.
pub const LAST_EVENTS: usize = 4096;

/// Time after which the same change of the same file, where it is made, is said again.
pub const EVENT_AGAIN_MS: u64 = 10_000;

/// Bytes of the state that is taken over from a saved machine: a full table of long names. Beyond: it is refused.
pub const MAX_STATE: u64 = 512 * 1024 * 1024;

/// Files looked at when a directory is renamed to or from a name that rules look into. Beyond: `EACCES`.
pub const MAX_SCAN: usize = 20_000;
