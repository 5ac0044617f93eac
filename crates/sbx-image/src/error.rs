//! What can go wrong with an image, and what to do about it.

use sbx_wire::report::Report;
use std::io;
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Programs that the build needs are not installed.
    #[error("building an image needs {}, which this machine does not have", names(.0))]
    MissingTools(Vec<crate::tools::Tool>),
    /// An agent's layer needs npm.
    #[error("this agent is made from an npm package, and npm is not installed")]
    MissingNpm,
    /// The registry does not give an agent's package.
    #[error("npm cannot fetch the agent's package {package}: {tail}")]
    PackageUnavailable {
        /// Package with the version asked for.
        package: String,
        /// The last thing npm said.
        tail: String,
    },
    /// No subordinate ids for the user.
    #[error("user {user} has no range of at least 65536 subordinate user and group ids")]
    NoSubIds {
        /// Name of the user.
        user: String,
    },
    /// The kernel or the distribution forbids what the build needs.
    #[error(
        "this machine does not let {who} create the namespaces that an image build needs: {detail}"
    )]
    Namespaces {
        /// `an ordinary user` or `root`.
        who: &'static str,
        /// What `unshare` said.
        detail: String,
    },
    /// The machine's apt configuration names no Debian archive.
    #[error(
        "the apt configuration of this machine names no Debian archive to build the image from"
    )]
    NoArchive,
    /// The setting for the archive is unusable.
    #[error("{0:?} is not the address of a Debian archive")]
    BadArchive(String),
    /// Too little space to begin.
    #[error("building the image needs {need_mib} MiB in {}, where {have_mib} MiB are free", dir.display())]
    TooLittleSpace {
        /// Where.
        dir: PathBuf,
        /// Needed, MiB.
        need_mib: u64,
        /// Free, MiB.
        have_mib: u64,
    },
    /// Space ran out during the build.
    #[error("the disk holding {} became full while the image was built; nothing was kept", dir.display())]
    DiskFull {
        /// Where.
        dir: PathBuf,
    },
    /// A tool failed.
    #[error("{program} failed ({status}) while {doing}: {tail}")]
    Tool {
        /// Program.
        program: String,
        /// What the build was doing.
        doing: &'static str,
        /// Exit status, in words.
        status: String,
        /// The last thing it said.
        tail: String,
    },
    /// A tool's answer, or a package's content, is not what is expected.
    #[error("{what}: {detail}")]
    Unexpected {
        /// What.
        what: &'static str,
        /// How it differs.
        detail: String,
    },
    /// A file operation failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// Verb.
        action: &'static str,
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The guest binary is not static.
    #[error("{} is not a static x86-64 program: {detail}", path.display())]
    GuestBinary {
        /// The binary.
        path: PathBuf,
        /// What is wrong.
        detail: &'static str,
    },
    /// The worker ended without an answer.
    #[error("the image worker ended without an answer ({0})")]
    WorkerDied(String),
    /// Nobody listens to the worker any more.
    #[error("whoever asked for this has gone: {0}")]
    Abandoned(io::Error),
    /// A report that came from the worker.
    #[error("{0}")]
    Reported(Report),
}

fn names(tools: &[crate::tools::Tool]) -> String {
    tools
        .iter()
        .map(|tool| tool.program)
        .collect::<Vec<_>>()
        .join(", ")
}

impl ImageError {
    /// For `map_err` on a file operation.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| {
            if source.kind() == io::ErrorKind::StorageFull {
                Self::DiskFull { dir: path }
            } else {
                Self::Io {
                    action,
                    path,
                    source,
                }
            }
        }
    }

    /// For `map_err` on a report to whoever started this worker.
    pub(crate) fn abandoned(error: io::Error) -> Self {
        Self::Abandoned(error)
    }

    /// Whether work only ended because nobody waits for it any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        matches!(self, Self::Abandoned(_))
    }

    /// The error as every process states it.
    pub fn report(&self) -> Report {
        let message = self.to_string();
        let environment = |code, hint: &str| Report::environment(code, message.clone(), hint);
        match self {
            Self::MissingTools(tools) => {
                let mut packages: Vec<_> = tools.iter().map(|tool| tool.package).collect();
                packages.dedup();
                let packages = packages.join(" ");
                environment(
                    "image-tools-missing",
                    &format!("./dev setup, or as root: apt install {packages}"),
                )
            }
            Self::MissingNpm => environment(
                "npm-missing",
                "./dev setup, or as root: apt install npm; or use the shell agent, which needs none",
            ),
            Self::PackageUnavailable { package, .. } => environment(
                "package-unavailable",
                &format!(
                    "npm view {package}, as the user that runs sbx; npm config set registry names another registry"
                ),
            ),
            Self::NoSubIds { user } => environment(
                "no-subordinate-ids",
                &format!(
                    "as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}"
                ),
            ),
            Self::Namespaces { .. } => environment(
                "namespaces-refused",
                "allow unprivileged user namespaces, as root: sysctl -w user.max_user_namespaces=10000 \
                 and, where the kernel has it, kernel.apparmor_restrict_unprivileged_userns=0",
            ),
            Self::NoArchive => environment(
                "no-debian-archive",
                "sbx settings set image.archive URL, with the address of a Debian archive",
            ),
            Self::BadArchive(_) => Report::user(
                "bad-archive",
                message,
                "sbx settings set image.archive URL, an http or https address without spaces",
            ),
            Self::TooLittleSpace { dir, .. } | Self::DiskFull { dir } => environment(
                "disk-full",
                &format!(
                    "free space below {}, or set SBX_HOME to a larger disk",
                    dir.display()
                ),
            ),
            Self::Tool { .. } => environment(
                "image-build-failed",
                "read the build log in the cache folder, then repeat the command",
            ),
            Self::Io { .. } | Self::Abandoned(_) => environment(
                "image-io",
                "check that the folder exists and that you may write to it",
            ),
            Self::GuestBinary { .. } => environment(
                "guest-binary",
                "./dev setup, which builds sbx-guest as a static program",
            ),
            Self::Unexpected { .. } | Self::WorkerDied(_) => Report::bug("image-bug", message),
            Self::Reported(report) => report.clone(),
        }
    }
}
