//! A tree under rules, and what must hold of it whatever a guest has asked for. What must hold is said here in words of
//! its own, without the share's patterns.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use sbx_workspace::git_config::{self, Place};
use sbx_workspace::protect::{Level, standard};
use sbx_workspace::{Pattern, Rules, git_link};

/// Names, modes (0: a directory) and contents, by path.
pub(crate) type Tree = BTreeMap<PathBuf, (u32, Vec<u8>)>;

/// In every hidden file, so in no answer.
pub(crate) const HIDDEN: &[u8] = b"\xfa\xce hidden \xfe";
/// Files that must stay as they are, with their content.
const KEPT: &[(&str, &[u8])] = &[
    (".env", HIDDEN),
    ("d/e/key", HIDDEN),
    (".git/hooks/pre-commit", b"the host's"),
    (".vscode/tasks.json", b"the host's"),
];
/// Names that no guest makes anywhere.
const NOBODYS: &[&str] = &[".envrc", ".gitattributes", "CLAUDE.md", "Jenkinsfile"];
/// The same, but for files: they are nothing to the programs that read such folders.
const FOLDERS: &[&str] = &[".vscode", ".idea", ".claude"];
/// Git runs no hook that is called so, and writes files of these names itself.
const NO_HOOKS: &[&[u8]] = &[b"config", b"config.worktree", b"commondir"];
const SETTINGS: &[u8] = b"[core]\n\tbare = false\n";
const KIND: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

pub(crate) fn rules() -> Rules {
    let hide = [".env", "/d/e/key"].map(|text| Pattern::parse(text).expect("a pattern"));
    Rules {
        protect: standard(Level::Block),
        hide: hide.into(),
        late_masks: ["m", "d/n"]
            .map(|text| text.parse().expect("a mask"))
            .into(),
        ..Rules::default()
    }
}

/// Makes what is protected and hidden, and second names of what must not be written.
pub(crate) fn prepare(root: &Path, secret: &Path) {
    for folder in [".git/hooks", ".git/modules", ".git/worktrees", ".vscode"] {
        fs::create_dir_all(root.join(folder)).expect("a folder");
    }
    for (name, content) in KEPT {
        fs::write(root.join(name), content).expect("a file");
    }
    fs::write(root.join(".git/config"), SETTINGS).expect("a file");
    let hook = root.join(".git/hooks/pre-commit");
    for (file, name) in [(hook.as_path(), "hook"), (secret, "second")] {
        fs::hard_link(file, root.join(name)).expect("a name");
    }
}

pub(crate) fn assert_kept(root: &Path, before: &Tree, after: &Tree) {
    for (name, _) in KEPT {
        let path = root.join(name);
        assert_eq!(before.get(&path), after.get(&path), "{name} has changed");
    }
    for (path, (mode, content)) in after {
        let shown = path.display();
        let below = path.strip_prefix(root).expect("below the root");
        let names: Vec<&[u8]> = below.iter().map(OsStr::as_bytes).collect();
        let Some((name, folder)) = names.split_last() else {
            continue;
        };
        let same = before.get(path) == Some(&(*mode, content.clone()));
        let kind = mode & KIND;
        let among = |list: &[&str], name: &[u8]| list.iter().any(|known| known.as_bytes() == name);
        let file = kind != 0 && kind != LINK;
        let folders = if file { folder } else { names.as_slice() };
        let nobodys = names.iter().any(|name| among(NOBODYS, name))
            || folders.iter().any(|name| among(FOLDERS, name));
        assert!(same || !nobodys, "{shown} was made");
        assert!(same || *name != b".env", "{shown} was made");
        if is_hook(folder, name) {
            assert!(same, "{shown} is not the host's");
        }
        let git = names.iter().position(|name| *name == b".git");
        if kind == LINK {
            let inner = git.map(|at| &names[at + 1..]);
            let stands_in = matches!(inner, Some([] | [b"hooks" | b"modules" | b"worktrees"]));
            assert!(!stands_in, "{shown} is a link");
            let beside = !content.contains(&b'/') && !matches!(content.as_slice(), b"." | b"..");
            assert!(inner.is_none() || beside, "{shown} leads elsewhere");
        }
        if *name == b".git" && kind != 0 {
            // How deep it is does not matter: it may have been moved since.
            let deep = [b"x".as_slice(); 64];
            let good = git_link::check(root, &deep, name, content).is_ok() || content.is_empty();
            assert!(kind == REGULAR && good, "{shown} leads somewhere");
        }
        if is_settings(folder, name) && kind != 0 {
            assert_eq!(kind, REGULAR, "{shown} is no file");
            let place = Place {
                root,
                directory: folder,
            };
            let checked = git_config::check(place, content, Some(SETTINGS));
            assert!(checked.is_ok(), "{shown}: {checked:?}");
        }
    }
}

/// Whether git takes a file of this name there for a hook.
fn is_hook(folder: &[&[u8]], name: &[u8]) -> bool {
    is_in_git_directory(folder.split_last(), b"hooks")
        && !name.ends_with(b".sample")
        && !NO_HOOKS.contains(&name)
}

fn is_settings(folder: &[&[u8]], name: &[u8]) -> bool {
    let settings = [b"config".as_slice(), b"config.worktree"];
    settings.contains(&name) && is_in_git_directory(Some((&name, folder)), name)
}

/// Whether something is called so in `.git`, in one of its `worktrees`, or anywhere in the `modules` of either.
fn is_in_git_directory(at: Option<(&&[u8], &[&[u8]])>, name: &[u8]) -> bool {
    let Some((last, folder)) = at else {
        return false;
    };
    let modules = |two: &[&[u8]]| two == [b".git".as_slice(), b"modules"];
    let of_worktree = |four: &[&[u8]]| matches!(four, [b".git", b"worktrees", _, b"modules"]);
    *last == name
        && match folder {
            [.., b".git"] | [.., b".git", b"worktrees", _] => true,
            folder => folder.windows(2).any(modules) || folder.windows(4).any(of_worktree),
        }
}
