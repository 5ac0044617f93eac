//! What a `runc` command line is about, as far as it matters here.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// Options in front of the verb that have a value.
const WITH_VALUE: [&str; 5] = ["criu", "log", "log-format", "root", "rootless"];
/// Those that have none.
const PLAIN: [&str; 2] = ["debug", "systemd-cgroup"];
const DEFAULT_ROOT: &str = "/run/runc";

/// A command line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// Where the state of containers is.
    pub(super) root: PathBuf,
    /// What it is about.
    pub(super) verb: Verb,
}

/// See [`Call`].
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verb {
    /// A container is made.
    Create {
        /// Its folder.
        bundle: PathBuf,
    },
    /// A program is started in a container.
    Exec {
        /// The document about it.
        process: PathBuf,
        /// The container.
        id: PathBuf,
    },
    /// Nothing that we have a part in, or not understood.
    Other,
}

impl Call {
    /// Reads the arguments behind the program's name.
    pub(super) fn parse(args: &[OsString]) -> Self {
        let mut root = PathBuf::from(DEFAULT_ROOT);
        let mut args = args.iter();
        let verb = loop {
            let Some(arg) = args.next() else {
                break Verb::Other;
            };
            let Some((name, value)) = option(arg) else {
                break verb(arg, args.as_slice());
            };
            if PLAIN.contains(&name) {
                continue;
            }
            if !WITH_VALUE.contains(&name) {
                break Verb::Other;
            }
            let Some(value) = value.or_else(|| args.next().map(OsString::as_os_str)) else {
                break Verb::Other;
            };
            if name == "root" {
                root = value.into();
            }
        };
        Self { root, verb }
    }
}

/// `--name`, `--name=value` and the same with one hyphen.
fn option(arg: &OsStr) -> Option<(&str, Option<&OsStr>)> {
    let bytes = arg.as_bytes().strip_prefix(b"-")?;
    let bytes = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let end = bytes.iter().position(|byte| *byte == b'=');
    let (name, value) = match end {
        Some(end) => (&bytes[..end], Some(OsStr::from_bytes(&bytes[end + 1..]))),
        None => (bytes, None),
    };
    Some((std::str::from_utf8(name).unwrap_or_default(), value))
}

fn verb(word: &OsStr, args: &[OsString]) -> Verb {
    match word.to_str() {
        Some("create" | "run") => Verb::Create {
            bundle: value(args, "bundle", "b").unwrap_or_else(|| ".".into()),
        },
        Some("exec") => {
            let process = value(args, "process", "p");
            let id = args.last().filter(|id| is_name(id)).map(PathBuf::from);
            match (process, id) {
                (Some(process), Some(id)) => Verb::Exec { process, id },
                _ => Verb::Other,
            }
        }
        _ => Verb::Other,
    }
}

fn value(args: &[OsString], long: &str, short: &str) -> Option<PathBuf> {
    let at = args
        .iter()
        .position(|arg| option(arg).is_some_and(|(name, _)| name == long || name == short))?;
    let inside = option(&args[at]).and_then(|(_, value)| value);
    inside
        .or_else(|| args.get(at + 1).map(OsString::as_os_str))
        .map(PathBuf::from)
}

/// One component of a path.
fn is_name(id: &OsStr) -> bool {
    let mut parts = Path::new(id).components();
    matches!(parts.next(), Some(Component::Normal(name)) if name == id) && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Call {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Call::parse(&args)
    }

    #[test]
    fn command_lines_of_the_engine_and_of_buildkit_are_understood() {
        let run = "--log /l/runc-log.json --log-format json run --bundle /b/x --keep x";
        let bundle = "/b/x".into();
        assert_eq!(parse(run).verb, Verb::Create { bundle });
        let create =
            parse("--root /r --log=/l --systemd-cgroup create --bundle=/b --pid-file /p c1");
        let bundle = "/b".into();
        let verb = Verb::Create { bundle };
        assert_eq!(
            create,
            Call {
                root: "/r".into(),
                verb
            }
        );
        let exec = parse("--root /r exec --process /tmp/p --console-socket /s --detach c1");
        let (process, id) = ("/tmp/p".into(), "c1".into());
        assert_eq!(exec.verb, Verb::Exec { process, id });
        let bundle = ".".into();
        assert_eq!(parse("run c1").verb, Verb::Create { bundle });
    }

    #[test]
    fn everything_else_is_left_alone() {
        for line in [
            "--version",
            "features",
            "--root",
            "--unknown x create --bundle /b c1",
            "delete --force c1",
            "exec c1 ls",
            "exec --process /tmp/p ..",
            "exec --process /tmp/p a/b",
            "",
        ] {
            assert_eq!(parse(line).verb, Verb::Other, "{line}");
        }
    }
}
