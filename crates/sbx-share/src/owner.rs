//! Who owns a file, as the guest sees it.

use rustix::fs::Statx;
use virtiofsd::fuse::Attr;

/// Shown for every owner that is not the host user: the kernel's overflow id.
pub(crate) const NOBODY: u32 = 65_534;

/// The guest ids under which the host user appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestOwner {
    /// The user id inside, 1000 for the agent.
    pub uid: u32,
    /// The group id inside.
    pub gid: u32,
}

impl Default for GuestOwner {
    fn default() -> Self {
        Self {
            uid: 1000,
            gid: 1000,
        }
    }
}

/// Maps host owners to guest owners. There is no way back: new files belong to the process's user by themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owners {
    guest: GuestOwner,
    host_uids: [u32; 2],
    host_gids: [u32; 2],
}

impl Owners {
    /// For the user of this process. Root may serve somebody else's folder: then its owner counts as the host user
    /// too, for root could act as that user anyway.
    pub(crate) fn new(guest: GuestOwner, root: &Statx) -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let gid = rustix::process::getegid().as_raw();
        let (root_uid, root_gid) = if uid == 0 {
            (root.stx_uid, root.stx_gid)
        } else {
            (uid, gid)
        };
        Self {
            guest,
            host_uids: [uid, root_uid],
            host_gids: [gid, root_gid],
        }
    }

    fn uid(&self, host: u32) -> u32 {
        if self.host_uids.contains(&host) {
            self.guest.uid
        } else {
            NOBODY
        }
    }

    fn gid(&self, host: u32) -> u32 {
        if self.host_gids.contains(&host) {
            self.guest.gid
        } else {
            NOBODY
        }
    }

    /// Whether a guest's chown to `uid` changes nothing: it names the shown owner, or guest root, under which the
    /// host user's files count as well.
    pub(crate) fn accepts_uid(&self, file: &Statx, uid: u32) -> bool {
        let shown = self.uid(file.stx_uid);
        uid == shown || (uid == 0 && shown == self.guest.uid)
    }

    /// As [`Owners::accepts_uid`], for the group.
    pub(crate) fn accepts_gid(&self, file: &Statx, gid: u32) -> bool {
        let shown = self.gid(file.stx_gid);
        gid == shown || (gid == 0 && shown == self.guest.gid)
    }

    /// Attributes of what is the host user's own and nothing else yet.
    pub(crate) fn own(&self) -> Attr {
        Attr {
            uid: self.guest.uid.into(),
            gid: self.guest.gid.into(),
            ..Attr::default()
        }
    }

    /// The attributes as the guest sees them.
    pub(crate) fn attributes(&self, stat: &Statx) -> Attr {
        Attr {
            ino: stat.stx_ino,
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            // Times before 1970 travel as two's complement (include/uapi/linux/fuse.h).
            atime: stat.stx_atime.tv_sec.cast_unsigned(),
            mtime: stat.stx_mtime.tv_sec.cast_unsigned(),
            ctime: stat.stx_ctime.tv_sec.cast_unsigned(),
            atimensec: stat.stx_atime.tv_nsec,
            mtimensec: stat.stx_mtime.tv_nsec,
            ctimensec: stat.stx_ctime.tv_nsec,
            mode: u32::from(stat.stx_mode),
            nlink: stat.stx_nlink,
            uid: self.uid(stat.stx_uid).into(),
            gid: self.gid(stat.stx_gid).into(),
            rdev: 0, // a device node of the host is not one of the guest's
            blksize: stat.stx_blksize,
            flags: 0,
        }
    }
}
