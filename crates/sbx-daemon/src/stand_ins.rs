//! Hidden files that git knows: what the guest finds in their place.
//!
//! Git inside would find a tracked file that reads as absent deleted, and commit that. What git has of it is no secret in
//! the workspace: it is in the repository. So that is what the guest sees.

use crate::error::io_report;
use crate::files;
use crate::git::git;
use sbx_wire::report::Report;
use sbx_workspace::rules::StandIn;
use sbx_workspace::{Pattern, PatternSet};
use std::path::Path;

/// Most files, and most bytes of one. Beyond, git inside finds them deleted.
const MAX_FILES: usize = 256;
const MAX_BYTES: u64 = 1 << 20;
/// Most bytes of git's list of files.
const MAX_LIST: u64 = 64 << 20;

/// A file in git's index.
struct Tracked {
    executable: bool,
    object: String,
    path: String,
}

/// Finds them, and puts what git has into files in `folder`, which is made anew. What there is none for is said in a
/// notice for the user: git inside finds it deleted.
pub(crate) fn find(
    root: &Path,
    hide: &[Pattern],
    folder: &Path,
) -> Result<(Vec<StandIn>, Option<String>), Report> {
    let _old = std::fs::remove_dir_all(folder);
    if hide.is_empty() || !root.join(".git").exists() {
        return Ok((Vec::new(), None));
    }
    let shown = root.display();
    let Some(list) = git(root, &["ls-files", "--stage", "-z"], MAX_LIST) else {
        let notice = format!(
            "git cannot be asked which hidden files of {shown} it tracks: they read as deleted inside"
        );
        return Ok((Vec::new(), Some(notice)));
    };
    let set = PatternSet::new(hide.iter().cloned());
    let (mut found, mut without) = (Vec::new(), 0_usize);
    for tracked in list.split(|byte| *byte == 0).filter_map(entry) {
        let Some(hidden_above) = hidden(&set, &tracked.path) else {
            continue;
        };
        let content = ["cat-file", "blob", &tracked.object];
        let content = (found.len() < MAX_FILES).then(|| git(root, &content, MAX_BYTES));
        let Some(content) = content.flatten() else {
            without += 1;
            continue;
        };
        files::private_dir(folder)?;
        let file = folder.join(found.len().to_string());
        std::fs::write(&file, content).map_err(|error| io_report("write", &file, &error))?;
        found.push(StandIn {
            path: tracked.path,
            hidden_above,
            content: file,
            executable: tracked.executable,
            link: false,
        });
    }
    let notice = (without > 0).then(|| {
        format!(
            "{without} hidden files of {shown} that git tracks read as deleted inside: {MAX_FILES} are possible, of at most \
             {} KiB. Do not commit their deletion",
            MAX_BYTES >> 10
        )
    });
    Ok((found, notice))
}

/// `MODE OBJECT STAGE<tab>PATH` of a regular file without a conflict.
fn entry(line: &[u8]) -> Option<Tracked> {
    let (head, path) = std::str::from_utf8(line).ok()?.split_once('\t')?;
    let mut fields = head.split(' ');
    let (mode, object, stage) = (fields.next()?, fields.next()?, fields.next()?);
    let plain = object.bytes().all(|byte| byte.is_ascii_hexdigit());
    (matches!(mode, "100644" | "100755") && stage == "0" && plain).then(|| Tracked {
        executable: mode == "100755",
        object: object.to_owned(),
        path: path.to_owned(),
    })
}

/// The hidden directories above a path that cannot be seen; `None`: it can.
fn hidden(set: &PatternSet, path: &str) -> Option<Vec<String>> {
    let (mut state, mut above, mut hidden) = (set.root(), Vec::new(), false);
    let mut at = 0;
    loop {
        let end = path[at..].find('/').map(|length| at + length);
        let name = &path[at..end.unwrap_or(path.len())];
        let step = set.step(&state, name.as_bytes(), end.is_some());
        hidden |= step.matched().is_some();
        state = step.below;
        match end {
            Some(end) if hidden => above.push(path[..end].to_owned()),
            Some(_) => {}
            None => return hidden.then_some(above),
        }
        at = end? + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn set(patterns: &[&str]) -> PatternSet {
        PatternSet::new(patterns.iter().map(|text| Pattern::parse(text).unwrap()))
    }

    #[test]
    fn a_path_is_hidden_by_its_name_or_by_a_directory_above() {
        let set = set(&[".env", "secrets/"]);
        assert_eq!(hidden(&set, "a/.env"), Some(Vec::new()));
        let above = ["x/secrets", "x/secrets/y"].map(str::to_owned).to_vec();
        assert_eq!(hidden(&set, "x/secrets/y/z"), Some(above));
        assert_eq!(hidden(&set, "a/b"), None);
    }

    #[test]
    fn links_and_conflicts_are_no_files() {
        assert!(entry(b"100644 abc0 0\ta b").is_some_and(|one| one.path == "a b"));
        assert!(entry(b"100755 abc0 0\ta").is_some_and(|one| one.executable));
        for line in [
            "120000 abc0 0\ta",
            "100644 abc0 2\ta",
            "160000 abc0 0\ta",
            "100644 --x 0\ta",
            "",
        ] {
            assert!(entry(line.as_bytes()).is_none(), "{line}");
        }
    }

    /// Runs git in a repository, as a user would.
    fn user_git(root: &Path, arguments: &[&str]) -> std::process::Output {
        let who = ["-c", "user.name=t", "-c", "user.email=t@t.example"];
        let mut command = Command::new("git");
        command.arg("-C").arg(root).args(who).args(arguments);
        command.output().unwrap()
    }

    #[test]
    fn hidden_files_beyond_what_is_possible_are_counted_and_said() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        user_git(&root, &["init", "-q"]);
        for number in 0..MAX_FILES + 2 {
            std::fs::write(root.join(format!("{number}.key")), "k").unwrap();
        }
        let large = usize::try_from(MAX_BYTES).unwrap() + 1;
        std::fs::write(root.join("0.key"), vec![b'k'; large]).unwrap();
        user_git(&root, &["add", "."]);
        let hide = ["*.key"].map(|text| Pattern::parse(text).unwrap());
        let tracked = folder.path().join("tracked");
        let (found, notice) = find(&root, &hide, &tracked).unwrap();
        assert_eq!(found.len(), MAX_FILES);
        assert!(notice.is_some_and(|text| text.starts_with("2 hidden files")));
        let none = ["*.pem"].map(|text| Pattern::parse(text).unwrap());
        assert_eq!(find(&root, &none, &tracked).unwrap().1, None);
    }

    /// A repository that the guest may have written: it lacks a file's content, and says that a program brings it.
    #[test]
    fn nothing_is_fetched_for_a_repository_that_lacks_what_it_names() {
        let folder = tempfile::tempdir().unwrap();
        let (root, mark) = (folder.path().join("root"), folder.path().join("mark"));
        let git = |arguments: &[&str]| user_git(&root, arguments);
        std::fs::create_dir(&root).unwrap();
        git(&["init", "-q"]);
        for (name, content) in [(".env", "lost"), ("other.env", "kept")] {
            std::fs::write(root.join(name), content).unwrap();
        }
        git(&["add", "."]);
        git(&["commit", "-q", "-m", "both"]);
        let lost = String::from_utf8(git(&["rev-parse", ":.env"]).stdout).unwrap();
        let (start, rest) = lost.trim().split_at(2);
        std::fs::remove_file(root.join(".git/objects").join(start).join(rest)).unwrap();
        let program = format!("ext::touch {}", mark.display());
        for (key, value) in [
            ("core.repositoryformatversion", "1"),
            ("extensions.partialClone", "origin"),
            ("remote.origin.promisor", "true"),
            ("remote.origin.url", program.as_str()),
            ("protocol.ext.allow", "always"),
        ] {
            assert!(git(&["config", key, value]).status.success(), "{key}");
        }

        let hide = ["*.env"].map(|text| Pattern::parse(text).unwrap());
        let (found, notice) = find(&root, &hide, &folder.path().join("tracked")).unwrap();
        let paths: Vec<&str> = found.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(paths, ["other.env"]);
        assert!(notice.is_some_and(|text| text.starts_with("1 hidden files")));
        assert!(!mark.exists());

        git(&["cat-file", "blob", lost.trim()]);
        assert!(mark.exists(), "a git that may fetch runs the program");
    }
}
