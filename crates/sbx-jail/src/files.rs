//! The Landlock layer: files, TCP, signals, abstract sockets.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus,
    PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
};
use rustix::fs::{FileType, Mode, OFlags};

use crate::JailError;

/// The newest Landlock this crate was tried on. Asking for a fixed one means that a kernel update cannot change what
/// is refused; an older kernel enforces what it knows and the rest is reported as missing.
const TRIED: ABI = ABI::V7;

/// What may be done beneath a granted path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    /// Reading, and starting programs.
    Execute,
    /// Reading, writing and the requests of a device.
    Device,
    /// Removing what has a name there.
    Remove,
    /// The same, and binding Unix sockets there.
    Sockets,
}

impl Access {
    fn rights(self) -> BitFlags<AccessFs> {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        match self {
            Self::Read => read,
            Self::Execute => read | AccessFs::Execute,
            Self::Device => AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev,
            Self::Remove => AccessFs::RemoveFile | AccessFs::RemoveDir,
            Self::Sockets => AccessFs::RemoveFile | AccessFs::MakeSock,
            // Not granted to anybody: device nodes. Executing and ioctl on devices: to QEMU.
            Self::Write => {
                let refused = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
                read | (AccessFs::from_write(TRIED) & !refused)
            }
        }
    }
}

#[derive(Debug)]
enum Place {
    Path(PathBuf),
    Fd(OwnedFd),
}

/// A path that stays reachable.
#[derive(Debug)]
pub(crate) struct Grant {
    place: Place,
    access: Access,
}

impl Grant {
    pub(crate) fn path(path: &Path, access: Access) -> Self {
        Self {
            place: Place::Path(path.to_owned()),
            access,
        }
    }

    pub(crate) fn fd(fd: OwnedFd, access: Access) -> Self {
        Self {
            place: Place::Fd(fd),
            access,
        }
    }
}

impl Grant {
    /// Whether it is for programs that are not ours.
    pub(crate) fn is_for_machines(&self) -> bool {
        matches!(
            self.access,
            Access::Execute | Access::Device | Access::Sockets
        )
    }
}

/// A grant whose path was opened, with the rights that make sense for what it is.
pub(crate) struct OpenGrant {
    fd: OwnedFd,
    rights: BitFlags<AccessFs>,
}

/// Opens every granted path: one that is missing is an error now, not a surprise later.
pub(crate) fn open(grants: Vec<Grant>) -> Result<Vec<OpenGrant>, JailError> {
    grants.into_iter().map(open_one).collect()
}

fn open_one(grant: Grant) -> Result<OpenGrant, JailError> {
    let (fd, path) = match grant.place {
        Place::Fd(fd) => (fd, PathBuf::from("(open descriptor)")),
        Place::Path(path) => {
            match rustix::fs::open(&path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
                Ok(fd) => (fd, path),
                Err(errno) => {
                    return Err(JailError::Path {
                        path,
                        source: errno.into(),
                    });
                }
            }
        }
    };
    let stat = rustix::fs::fstat(&fd).map_err(|errno| JailError::Path {
        path,
        source: errno.into(),
    })?;
    let rights = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => grant.access.rights(),
        _ => grant.access.rights() & AccessFs::from_file(TRIED),
    };
    Ok(OpenGrant { fd, rights })
}

/// What Landlock enforces for this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilesEnforced {
    /// All that was asked for.
    Fully {
        /// The Landlock ABI version of the kernel, as far as the library knows it.
        abi: u32,
    },
    /// Files are guarded, something newer (truncation, TCP, signals) is not: the kernel is too old.
    Partially {
        /// The Landlock ABI version of the kernel.
        abi: u32,
    },
    /// The kernel has no Landlock or it is switched off. seccomp alone guards the process.
    Not,
}

impl fmt::Display for FilesEnforced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fully { abi } => write!(f, "landlock abi {abi} fully enforced"),
            Self::Partially { abi } => write!(
                f,
                "landlock abi {abi} partially enforced (kernel too old for the rest)"
            ),
            Self::Not => write!(f, "landlock NOT enforced (the kernel does not offer it)"),
        }
    }
}

/// The Landlock ABI version that the kernel offers, as far as the library knows it; `None`: no Landlock. Restricts
/// nobody.
pub fn landlock_abi() -> Option<u32> {
    [ABI::V6, ABI::V5, ABI::V4, ABI::V3, ABI::V2, ABI::V1]
        .into_iter()
        .find(|abi| {
            Ruleset::default()
                .set_compatibility(CompatLevel::HardRequirement)
                .handle_access(AccessFs::from_all(*abi))
                .and_then(|rules| match *abi {
                    ABI::V4 => rules.handle_access(AccessNet::from_all(*abi)),
                    ABI::V6 => rules.scope(Scope::from_all(*abi)),
                    _ => Ok(rules),
                })
                .and_then(Ruleset::create)
                .is_ok()
        })
        .map(|abi| abi as u32)
}

/// Restricts the calling thread and all it starts from now on.
pub(crate) fn restrict(grants: &[OpenGrant], tcp: bool) -> Result<FilesEnforced, JailError> {
    let net: BitFlags<AccessNet> = if tcp {
        AccessNet::BindTcp.into()
    } else {
        AccessNet::from_all(TRIED)
    };
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(TRIED))?
        .handle_access(net)?
        .scope(Scope::from_all(TRIED))?
        .create()?;
    for grant in grants {
        rules = rules.add_rule(PathBeneath::new(&grant.fd, grant.rights))?;
    }
    let status = rules.restrict_self()?;
    let abi = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as u32,
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
    };
    if !status.no_new_privs {
        let source = io::Error::from(io::ErrorKind::PermissionDenied);
        return Err(JailError::Os {
            what: "no_new_privs",
            source,
        });
    }
    Ok(match status.ruleset {
        RulesetStatus::FullyEnforced => FilesEnforced::Fully { abi },
        RulesetStatus::PartiallyEnforced => FilesEnforced::Partially { abi },
        RulesetStatus::NotEnforced => FilesEnforced::Not,
    })
}
