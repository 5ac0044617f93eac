//! Hidden files that git knows: what the guest finds in their place.
//!
//! Git inside would find a tracked file that reads as absent deleted, and commit that. What git has of it is no secret in
//! the workspace: it is in the repository. So that is what the guest sees.

use crate::error::io_report;
use crate::files;
use crate::git::{Most, git, git_of_index};
use crate::{places, repositories};
use sbx_wire::report::Report;
use sbx_workspace::rules::StandIn;
use sbx_workspace::{Pattern, PatternSet};
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

/// Most files, and most bytes of one. Beyond, git inside finds them deleted.
const MAX_FILES: usize = 256;
const MAX_BYTES: u64 = 1 << 20;
/// Most bytes of what the share is told of all of them: the guest may have written an index of long paths, and all of a
/// share's rules are one argument of its process.
const MAX_TEXT: usize = 64 << 10;
/// Longest name on the way to one, as the kernel has it, and most names: each that is hidden is told with its whole path.
const MAX_NAME: usize = 255;
const MAX_DEPTH: usize = 64;
/// Most files that git is asked for: it may lack what it lists, and has to be started to say so.
const MAX_ASKED: usize = 2 * MAX_FILES;
/// For all of a workspace's repositories: what git opens may be a pipe, on which it waits.
const TIME: Duration = Duration::from_secs(30);
/// Most bytes of git's list of files.
const MAX_LIST: u64 = 64 << 20;
/// A repository's index, copied, while git is asked about it.
const INDEX: &str = "index";

/// A file in git's index.
struct Tracked {
    executable: bool,
    link: bool,
    object: String,
    path: String,
}

/// Finds them, and puts what git has into files in `folder`, which is made anew. What there is none for is said in a
/// notice for the user: git inside finds it deleted.
/// `room`: bytes that there are for them beside the other rules.
pub(crate) fn find(
    root: &Path,
    hide: &[Pattern],
    folder: &Path,
    room: usize,
) -> Result<(Vec<StandIn>, Option<String>), Report> {
    find_within((root, hide, folder), room, TIME)
}

fn find_within(
    (root, hide, folder): (&Path, &[Pattern], &Path),
    room: usize,
    time: Duration,
) -> Result<(Vec<StandIn>, Option<String>), Report> {
    let _old = std::fs::remove_dir_all(folder);
    if hide.is_empty() {
        return Ok((Vec::new(), None));
    }
    let (repositories, cut) = repositories::find(root);
    let mut search = Search {
        root,
        set: PatternSet::new(hide.iter().cloned()),
        folder,
        room: room.min(MAX_TEXT),
        until: Instant::now() + time,
        asked: 0,
        found: Vec::new(),
        without: 0,
        unknown: Vec::new(),
    };
    for repository in repositories {
        if !search.repository(&repository)? {
            let shown = root.join(&repository).display().to_string();
            search.unknown.push(shown);
        }
    }
    let notice = search.notice(cut);
    Ok((search.found, notice))
}

/// A search of one workspace.
struct Search<'a> {
    root: &'a Path,
    set: PatternSet,
    /// Where files with what git has are made.
    folder: &'a Path,
    /// Bytes left for what the share is told.
    room: usize,
    until: Instant,
    /// Files that git was asked for.
    asked: usize,
    found: Vec<StandIn>,
    /// Files that there is nothing for.
    without: usize,
    /// Repositories that not everything is known of.
    unknown: Vec<String>,
}

impl Search<'_> {
    /// Adds what is hidden of a repository, given by its path from the root. Whether all of it was looked at.
    fn repository(&mut self, repository: &str) -> Result<bool, Report> {
        if self.is_late() {
            return Ok(false);
        }
        files::private_dir(self.folder)?;
        let index = self.folder.join(INDEX);
        let copied = repositories::copy_index(self.root, repository, &index);
        // Git knows of no file yet.
        if copied
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::NotFound)
        {
            return Ok(true);
        }
        let list = ["ls-files", "--stage", "-z"];
        let most = Most::bytes(MAX_LIST).until(self.until);
        let asked = || git_of_index(&self.root.join(repository), &index, &list, most);
        let list = copied.ok().and_then(|()| asked());
        let _copied = std::fs::remove_file(&index);
        list.map_or(Ok(false), |list| self.files(repository, &list))
    }

    /// Adds those of git's list that are. Whether there was time for all of them.
    fn files(&mut self, repository: &str, list: &[u8]) -> Result<bool, Report> {
        for tracked in list.split(|byte| *byte == 0).filter_map(entry) {
            if self.is_late() {
                return Ok(false);
            }
            let path = places::join(repository, &tracked.path);
            let Some(hidden_above) = hidden(&self.set, &path) else {
                continue;
            };
            let deep = path.split('/').nth(MAX_DEPTH).is_some();
            if deep || path.split('/').any(|name| name.len() > MAX_NAME) {
                self.without += 1;
                continue;
            }
            let hidden_above = hidden_above.into_iter().map(str::to_owned).collect();
            let file = self.folder.join(self.found.len().to_string());
            let stand_in = StandIn {
                path,
                hidden_above,
                content: file.clone(),
                executable: tracked.executable,
                link: tracked.link,
            };
            // With what separates it from the next one.
            let text = serde_json::to_string(&stand_in).map_or(usize::MAX, |text| text.len() + 1);
            let content = (text <= self.room).then(|| self.content(repository, &tracked.object));
            let Some(content) = content.flatten() else {
                self.without += 1;
                continue;
            };
            std::fs::write(&file, content).map_err(|error| io_report("write", &file, &error))?;
            self.room -= text;
            self.found.push(stand_in);
        }
        Ok(true)
    }

    fn content(&mut self, repository: &str, object: &str) -> Option<Vec<u8>> {
        if self.found.len() == MAX_FILES || self.asked == MAX_ASKED {
            return None;
        }
        self.asked += 1;
        let most = Most::bytes(MAX_BYTES).until(self.until);
        let content = ["cat-file", "blob", object];
        git(&self.root.join(repository), &content, most)
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.until
    }

    /// What the user is told of hidden files that git inside finds deleted. `cut`: there may be more repositories, beyond the
    /// bounds or where nobody may read.
    fn notice(&self, cut: bool) -> Option<String> {
        let (shown, without) = (self.root.display(), self.without);
        let mut said = Vec::new();
        if without > 0 {
            said.push(format!(
                "{without} hidden files of {shown} that git tracks read as deleted inside: {MAX_FILES} are possible, of at \
                 most {} KiB, with paths of at most {MAX_DEPTH} names and {} KiB together, which git has and gives in \
                 time ({MAX_ASKED} are asked for). Do not commit their deletion",
                MAX_BYTES >> 10,
                MAX_TEXT >> 10
            ));
        }
        if !self.unknown.is_empty() {
            said.push(format!(
                "not every hidden file that git tracks is known of {}, which cannot be read, or not within {} s: the others \
                 read as deleted inside",
                self.unknown.join(", "),
                TIME.as_secs()
            ));
        }
        if cut {
            said.push(format!(
                "not every repository in {shown} was found and asked for hidden files that it tracks, which read as deleted inside"
            ));
        }
        (!said.is_empty()).then(|| said.join("; "))
    }
}

/// `MODE OBJECT STAGE<tab>PATH` of a regular file or a link without a conflict.
fn entry(line: &[u8]) -> Option<Tracked> {
    let (head, path) = std::str::from_utf8(line).ok()?.split_once('\t')?;
    let mut fields = head.split(' ');
    let (mode, object, stage) = (fields.next()?, fields.next()?, fields.next()?);
    let plain = object.bytes().all(|byte| byte.is_ascii_hexdigit());
    let known = matches!(mode, "100644" | "100755" | "120000");
    (known && stage == "0" && plain).then(|| Tracked {
        executable: mode == "100755",
        link: mode == "120000",
        object: object.to_owned(),
        path: path.to_owned(),
    })
}

/// The hidden directories above a path that cannot be seen; `None`: it can.
fn hidden<'a>(set: &PatternSet, path: &'a str) -> Option<Vec<&'a str>> {
    let (mut state, mut above, mut hidden) = (set.root(), Vec::new(), false);
    let mut at = 0;
    loop {
        let end = path[at..].find('/').map(|length| at + length);
        let name = &path[at..end.unwrap_or(path.len())];
        let step = set.step(&state, name.as_bytes(), end.is_some());
        hidden |= step.matched().is_some();
        state = step.below;
        match end {
            Some(end) if hidden => above.push(&path[..end]),
            Some(_) => {}
            None => return hidden.then_some(above),
        }
        at = end? + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::{Command, Stdio};

    fn set(patterns: &[&str]) -> PatternSet {
        PatternSet::new(patterns.iter().map(|text| Pattern::parse(text).unwrap()))
    }

    #[test]
    fn a_path_is_hidden_by_its_name_or_by_a_directory_above() {
        let set = set(&[".env", "secrets/"]);
        assert_eq!(hidden(&set, "a/.env"), Some(Vec::new()));
        let above = vec!["x/secrets", "x/secrets/y"];
        assert_eq!(hidden(&set, "x/secrets/y/z"), Some(above));
        assert_eq!(hidden(&set, "a/b"), None);
    }

    #[test]
    fn a_link_is_one_and_what_is_in_conflict_or_a_submodule_is_left_out() {
        assert!(entry(b"100644 abc0 0\ta b").is_some_and(|one| one.path == "a b"));
        assert!(entry(b"100755 abc0 0\ta").is_some_and(|one| one.executable));
        assert!(entry(b"120000 abc0 0\ta").is_some_and(|one| one.link));
        assert!(entry(b"100644 abc0 0\t\xff").is_none());
        for line in [
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
        let (found, notice) = find(&root, &hide, &tracked, MAX_TEXT).unwrap();
        assert_eq!(found.len(), MAX_FILES);
        assert!(notice.is_some_and(|text| text.starts_with("2 hidden files")));
        let none = ["*.pem"].map(|text| Pattern::parse(text).unwrap());
        assert_eq!(find(&root, &none, &tracked, MAX_TEXT).unwrap().1, None);
    }

    /// The guest may have written the index: each of these costs a start of git.
    #[test]
    fn git_is_not_asked_for_every_file_that_an_index_names_and_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        repository(&root, "first");
        std::fs::write(root.join("z.env"), "last").unwrap();
        user_git(&root, &["add", "z.env"]);
        let lines: Vec<String> = (1..=MAX_ASKED)
            .map(|number| format!("100644 {number:040x} 0\tlost/{number}.env\n"))
            .collect();
        update_index(&root, &lines.concat());

        let hide = ["*.env"].map(|text| Pattern::parse(text).unwrap());
        let (found, notice) = find(&root, &hide, &folder.path().join("tracked"), MAX_TEXT).unwrap();
        let paths: Vec<&str> = found.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(paths, [".env"], "the last one is not asked for");
        let expected = format!("{} hidden files", MAX_ASKED + 1);
        assert!(notice.is_some_and(|text| text.starts_with(&expected)));
    }

    /// Puts entries into a repository's index, as a guest can.
    fn update_index(root: &Path, lines: &str) {
        let mut command = Command::new("git");
        command.arg("-C").arg(root).stdin(Stdio::piped());
        let arguments = ["update-index", "--index-info"];
        let mut child = command.args(arguments).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(lines.as_bytes()).unwrap();
        drop(input);
        assert!(child.wait().unwrap().success());
    }

    #[test]
    fn paths_that_are_long_or_deep_leave_room_for_the_rules_and_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        repository(&root, "kept");
        let deep = format!("secrets/{}k", "a/".repeat(2000));
        let long = format!("secrets/{}", "n".repeat(300));
        // Each of these is told with the paths of sixty directories above it.
        let many = (0..40).map(|number| format!("secrets/{number}/{}k", "a/".repeat(60)));
        let paths: Vec<String> = [deep, long].into_iter().chain(many).collect();
        let object = user_git(&root, &["rev-parse", ":.env"]).stdout;
        let object = String::from_utf8(object).unwrap();
        let line = |path: &String| format!("100644 {} 0\t{path}\n", object.trim());
        let lines: Vec<String> = paths.iter().map(line).collect();
        update_index(&root, &lines.concat());
        let hide = [".env", "secrets/"].map(|text| Pattern::parse(text).unwrap());
        let tracked = folder.path().join("tracked");
        let (found, notice) = find(&root, &hide, &tracked, MAX_TEXT).unwrap();
        let told = serde_json::to_string(&found).unwrap().len();
        assert!(told <= MAX_TEXT + 2, "{told}");
        assert!(found.len() > 1 && found[0].path == ".env");
        let without = paths.len() + 1 - found.len();
        assert!(without > 2);
        let expected = format!("{without} hidden files");
        assert!(notice.is_some_and(|text| text.starts_with(&expected)));
        // Where the other rules leave none, there are none.
        assert_eq!(find(&root, &hide, &tracked, 0).unwrap().0, []);
    }

    /// A pipe in this place, on which git waits for somebody who writes.
    fn pipe(path: &Path) {
        let _old = std::fs::remove_file(path);
        let (kind, mode) = (FileType::Fifo, Mode::from(0o600));
        mknodat(CWD, path, kind, mode, 0).unwrap();
    }

    /// In less time than one call of git alone may take, which is 20 s.
    fn find_in_time(root: &Path, folder: &Path) -> (Vec<StandIn>, String) {
        let hide = ["*.env"].map(|text| Pattern::parse(text).unwrap());
        let (since, time) = (Instant::now(), Duration::from_secs(5));
        let found = find_within((root, &hide, &folder.join("tracked")), MAX_TEXT, time);
        assert!(since.elapsed() < 3 * time, "{:?}", since.elapsed());
        let (found, notice) = found.unwrap();
        (found, notice.unwrap_or_default())
    }

    #[test]
    fn repositories_in_which_git_waits_have_one_time_together_and_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("root");
        for name in ["a", "b", "c"] {
            repository(&root.join(name), "x");
            pipe(&root.join(name).join(".git/HEAD"));
        }
        let (found, notice) = find_in_time(&root, folder.path());
        assert_eq!(found.len(), 0);
        for name in ["a", "b", "c"] {
            let shown = root.join(name).display().to_string();
            assert!(notice.contains(&shown), "{shown}: {notice}");
        }
    }

    #[test]
    fn files_on_which_git_waits_have_one_time_together_and_the_rest_is_said_to_have_none() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("root");
        repository(&root, "first");
        for name in ["a.env", "b.env", "c.env", "d.env"] {
            std::fs::write(root.join(name), name).unwrap();
        }
        user_git(&root, &["add", "."]);
        for name in ["a.env", "b.env", "c.env"] {
            let object = user_git(&root, &["rev-parse", &format!(":{name}")]).stdout;
            let object = String::from_utf8(object).unwrap();
            let (start, rest) = object.trim().split_at(2);
            pipe(&root.join(".git/objects").join(start).join(rest));
        }
        let (found, notice) = find_in_time(&root, folder.path());
        let paths: Vec<&str> = found.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(paths, [".env"]);
        assert!(notice.starts_with("1 hidden files"), "{notice}");
        assert!(notice.contains("not every hidden file that git tracks is known"));
    }

    /// Root may read everything, unless it gives that up: for this thread, which is this test's.
    fn give_up_reading_everything() {
        let mut own = capabilities(None).unwrap();
        let everything = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        own.effective.remove(everything);
        set_capabilities(None, own).unwrap();
    }

    #[test]
    fn repositories_that_cannot_be_read_are_said_to_have_none() {
        give_up_reading_everything();
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap().join("root");
        let (open, closed) = (root.join("open"), root.join("closed"));
        repository(&open, "open");
        repository(&closed, "closed");
        let close = |path: &Path, mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(path, mode).unwrap();
        };
        let hide = [".env"].map(|text| Pattern::parse(text).unwrap());
        let found = || {
            let (found, notice) =
                find(&root, &hide, &folder.path().join("tracked"), MAX_TEXT).unwrap();
            (found.len(), notice.unwrap_or_default())
        };
        assert_eq!(found(), (2, String::new()));
        close(&closed.join(".git/index"), 0);
        let (number, notice) = found();
        assert_eq!(number, 1);
        assert!(notice.contains(&closed.display().to_string()), "{notice}");
        // What is in it is not even found.
        close(&closed, 0);
        let (number, notice) = found();
        close(&closed, 0o700);
        assert_eq!(number, 1);
        assert!(notice.starts_with("not every repository"), "{notice}");
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
        let (found, notice) = find(&root, &hide, &folder.path().join("tracked"), MAX_TEXT).unwrap();
        let paths: Vec<&str> = found.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(paths, ["other.env"]);
        assert!(notice.is_some_and(|text| text.starts_with("1 hidden files")));
        assert!(!mark.exists());

        git(&["cat-file", "blob", lost.trim()]);
        assert!(mark.exists(), "a git that may fetch runs the program");
    }

    fn paths(root: &Path, hide: &[&str], folder: &Path) -> Vec<(String, String)> {
        let hide: Vec<_> = hide
            .iter()
            .map(|text| Pattern::parse(text).unwrap())
            .collect();
        let (found, _) = find(root, &hide, &folder.join("tracked"), MAX_TEXT).unwrap();
        let read = |one: StandIn| (one.path, std::fs::read_to_string(one.content).unwrap());
        found.into_iter().map(read).collect()
    }

    /// A repository in which `.env` is tracked with this content.
    fn repository(root: &Path, content: &str) {
        std::fs::create_dir_all(root).unwrap();
        user_git(root, &["init", "-q"]);
        std::fs::write(root.join(".env"), content).unwrap();
        let added = user_git(root, &["add", "."]);
        assert!(added.status.success(), "{added:?}");
        let committed = user_git(root, &["commit", "-q", "-m", "it"]);
        assert!(committed.status.success(), "{committed:?}");
    }

    #[test]
    fn repositories_in_a_workspace_and_submodules_are_asked_each_for_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        repository(&root, "root's");
        repository(&root.join("deep/nested"), "nested one's");
        repository(&folder.path().join("origin"), "submodule's");
        let origin = folder.path().join("origin");
        let add = [
            "-c",
            "protocol.file.allow=always",
            "submodule",
            "add",
            "-q",
            origin.to_str().unwrap(),
            "sub",
        ];
        let added = user_git(&root, &add);
        assert!(added.status.success(), "{added:?}");
        assert!(root.join("sub/.git").is_file());
        std::os::unix::fs::symlink("text", root.join("l.env")).unwrap();
        user_git(&root, &["add", "l.env"]);
        let expected = [
            (".env", "root's"),
            ("l.env", "text"),
            ("sub/.env", "submodule's"),
            ("deep/nested/.env", "nested one's"),
        ];
        let expected = expected.map(|(path, content)| (path.to_owned(), content.to_owned()));
        assert_eq!(paths(&root, &["*.env"], folder.path()), expected);
    }

    /// The guest may have written `.git`: what it leads to is another repository of the host's, with secrets in it.
    #[test]
    fn a_repository_that_leads_elsewhere_shows_nothing_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let (root, other) = (folder.path().join("root"), folder.path().join("other"));
        repository(&root, "own");
        repository(&other, "a secret");
        let (git, theirs) = (root.join(".git"), other.join(".git"));
        let alternates = format!("{}\n", theirs.join("objects").display());
        std::fs::write(git.join("objects/info/alternates"), alternates).unwrap();
        std::fs::remove_file(git.join("index")).unwrap();
        std::os::unix::fs::symlink(theirs.join("index"), git.join("index")).unwrap();
        // As git itself sees it, the file is there.
        let listed = user_git(&root, &["cat-file", "blob", ":.env"]);
        assert_eq!(listed.stdout, b"a secret");
        for nested in ["a", "b", "c"] {
            std::fs::create_dir(root.join(nested)).unwrap();
        }
        std::os::unix::fs::symlink(&theirs, root.join("a/.git")).unwrap();
        let link = format!("gitdir: {}\n", theirs.display());
        std::fs::write(root.join("b/.git"), link).unwrap();
        std::fs::write(root.join("c/.git"), "gitdir: ../../other/.git\n").unwrap();
        std::os::unix::fs::symlink(&other, root.join("d")).unwrap();
        assert_eq!(paths(&root, &[".env"], folder.path()), []);
    }

    #[test]
    fn more_files_than_are_kept_and_those_that_are_too_large_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        repository(&root, "kept");
        let large = usize::try_from(MAX_BYTES).unwrap();
        for (name, length) in [("a.env", large), ("b.env", large + 1)] {
            std::fs::write(root.join(name), vec![b'x'; length]).unwrap();
        }
        user_git(&root, &["add", "."]);
        let found = paths(&root, &["*.env"], folder.path());
        let names: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(names, [".env", "a.env"]);
        for number in 0..MAX_FILES {
            std::fs::write(root.join(format!("{number}.env")), "small").unwrap();
        }
        user_git(&root, &["add", "."]);
        assert_eq!(paths(&root, &["*.env"], folder.path()).len(), MAX_FILES);
    }
}
