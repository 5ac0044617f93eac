//! `-e KEY=VALUE`, `-e KEY` (copied from the host) and `--env-file`.

use sbx_wire::report::Report;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Longest file of variables, bytes; a sandbox takes less.
const MAX_FILE: usize = 1 << 20;
/// What such a file is.
const LINES: &str = "name a readable file of KEY=VALUE lines";

/// Variables for the sandbox, as flags.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct EnvironmentArgs {
    /// Set a variable: KEY=VALUE, or KEY to copy it from this environment; repeatable
    #[arg(short = 'e', long = "env", value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read variables from a file of KEY=VALUE lines (no link, no named pipe; a KEY alone is refused); repeatable, later files
    /// win, --env wins over files
    #[arg(long = "env-file", value_name = "FILE")]
    env_file: Vec<PathBuf>,
}

impl EnvironmentArgs {
    /// The variables in order: later ones win.
    pub(crate) fn resolve(&self) -> Result<Vec<(String, String)>, Report> {
        let mut variables = Vec::new();
        for file in &self.env_file {
            variables.extend(of_file(file)?);
        }
        for (index, item) in self.env.iter().enumerate() {
            variables.extend(parse(item, || format!("argument {} of -e", index + 1))?);
        }
        Ok(variables)
    }
}

/// The lines of a file. It may lie in a workspace, where a guest writes it and puts others in its place: it is no way
/// to variables and files of the host, and nothing to wait for.
fn of_file(path: &Path) -> Result<Vec<(String, String)>, Report> {
    let refuse = |problem: String, hint: &str| {
        Report::user("env-file", format!("{} {problem}", path.display()), hint)
    };
    let content = if is_own_descriptor(path) {
        read_to_end(path)
    } else {
        sbx_files::plain_without_links(path, MAX_FILE)
    };
    let content = content
        .map_err(|error| refuse(format!("cannot be read: {error}"), LINES))?
        .ok_or_else(|| {
            let kib = MAX_FILE >> 10;
            let problem = format!("is no plain file of at most {kib} KiB, or reached by a link");
            refuse(
                problem,
                "name the file itself, not a link to it or a named pipe",
            )
        })?;
    let text = String::from_utf8(content).map_err(|_| refuse("is not UTF-8".into(), LINES))?;
    let mut variables = Vec::new();
    for (index, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if !line.contains('=') {
            return Err(refuse(
                format!("has no '=' in line {}", index + 1),
                "write KEY=VALUE; -e KEY passes this environment's own value",
            ));
        }
        let place = || format!("line {} of {}", index + 1, path.display());
        variables.extend(parse(line, place)?);
    }
    Ok(variables)
}

/// Whether whoever called us has opened it: a shell's `<(command)`, standard input. No guest puts anything there.
fn is_own_descriptor(path: &Path) -> bool {
    let number = path.strip_prefix("/dev/fd").ok().and_then(Path::to_str);
    path == Path::new("/dev/stdin") || number.is_some_and(|number| number.parse::<u32>().is_ok())
}

/// All of it, if it is not too much; to its end, whatever it is.
fn read_to_end(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_FILE as u64 + 1).read_to_end(&mut content)?;
    Ok((content.len() <= MAX_FILE).then_some(content))
}

/// `given` over `defaults`: each variable once, the user's word counts.
pub(crate) fn over(
    mut defaults: Vec<(String, String)>,
    given: Vec<(String, String)>,
) -> Vec<(String, String)> {
    defaults.retain(|(name, _)| !given.iter().any(|(other, _)| other == name));
    defaults.extend(given);
    defaults
}

/// Of `KEY=VALUE` both, of `KEY` what this environment has. `place` says in an error where it stands; the text itself,
/// which may be a key, or a line of one, is not shown.
fn parse(item: &str, place: impl FnOnce() -> String) -> Result<Option<(String, String)>, Report> {
    let (key, value) = match item.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (item, std::env::var(item).ok()),
    };
    let usable = !key.is_empty()
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !key.starts_with(|c: char| c.is_ascii_digit());
    if !usable {
        return Err(Report::user(
            "env",
            format!("{} does not name an environment variable", place()),
            "write KEY=VALUE with KEY of letters, digits and '_', and nothing before it",
        ));
    }
    if value.as_ref().is_some_and(|value| value.contains('\0')) {
        return Err(Report::user(
            "env",
            format!("the value of {key} holds a NUL byte"),
            "remove it",
        ));
    }
    Ok(value.map(|value| (key.to_owned(), value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::fs::symlink;

    #[test]
    fn each_variable_is_given_once_and_the_user_s_word_counts() {
        let list = |text: &str| -> Vec<(String, String)> {
            text.split(' ')
                .filter_map(|item| parse(item, String::new).unwrap())
                .collect()
        };
        assert_eq!(over(list("A=1 B=2"), list("C=3 A=4")), list("B=2 C=3 A=4"));
    }

    #[test]
    fn a_file_gives_what_it_says_and_nothing_of_the_host() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        std::fs::write(&path, "# keys\n\n A=1=2 \r\nB=\n").unwrap();
        let of = |text: &[(&str, &str)]| -> Vec<(String, String)> {
            let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            text.iter().map(pair).collect()
        };
        assert_eq!(of_file(&path).unwrap(), of(&[("A", "1=2"), ("B", "")]));
        // Set here, and named by whoever writes the file.
        std::fs::write(&path, "A=1\nPATH\n").unwrap();
        let report = of_file(&path).unwrap_err();
        assert!(
            report.message.ends_with("has no '=' in line 2"),
            "{report:?}"
        );
        assert!(report.hint.unwrap().contains("-e KEY"));
    }

    #[test]
    fn links_pipes_and_endless_files_are_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("real")).unwrap();
        std::fs::write(at("real/file"), "A=1\n").unwrap();
        symlink("real/file", at("link")).unwrap();
        symlink("real", at("way")).unwrap();
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        std::fs::write(at("long"), "#".repeat(MAX_FILE + 1)).unwrap();
        for name in ["link", "way/file", "pipe", "long", "real"] {
            let report = of_file(&at(name)).unwrap_err();
            assert!(report.message.contains("is no plain file"), "{report:?}");
        }
        assert!(of_file(&at("real/file")).is_ok());
        let report = of_file(&at("missing")).unwrap_err();
        assert!(report.message.contains("cannot be read"), "{report:?}");
    }

    #[test]
    fn what_the_caller_has_opened_is_read_to_its_end() {
        let (read, mut write) = std::io::pipe().unwrap();
        let path = format!("/dev/fd/{}", read.as_raw_fd());
        let text = std::thread::spawn(move || {
            // More than a pipe holds.
            let text = format!("A=1\n#{}\nB=2\n", "-".repeat(200_000));
            write.write_all(text.as_bytes()).unwrap();
        });
        let found = of_file(Path::new(&path)).unwrap();
        text.join().unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        for other in ["/dev/fd/../null", "/dev/fd", "/dev/null"] {
            assert!(of_file(Path::new(other)).is_err(), "{other}");
        }
    }

    #[test]
    fn values_may_hold_equal_signs_and_names_may_not_hold_blanks() {
        let parse = |item| parse(item, String::new);
        assert_eq!(parse("A=b=c").unwrap(), Some(("A".into(), "b=c".into())));
        assert_eq!(parse("SBX_SURELY_NOT_SET_ANYWHERE").unwrap(), None);
        assert!(parse("A B=c").is_err());
        assert!(parse("=c").is_err());
        assert!(parse("1A=c").is_err());
    }

    #[test]
    fn what_is_refused_is_named_by_its_place_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".env");
        // The last line of a key has an equal sign too.
        for line in ["export KEY=s3cret", "MIIEs3cret/8==", "s3cret"] {
            std::fs::write(&path, format!("A=1\n{line}\n")).unwrap();
            let report = format!("{:?}", of_file(&path).unwrap_err());
            assert!(!report.contains("s3cret"), "{report}");
            assert!(report.contains("line 2"), "{report}");
            let given = EnvironmentArgs {
                env: vec!["A=1".into(), format!("{line}-")],
                env_file: Vec::new(),
            };
            let report = format!("{:?}", given.resolve().unwrap_err());
            assert!(!report.contains("s3cret"), "{report}");
            assert!(report.contains("argument 2"), "{report}");
        }
    }
}
