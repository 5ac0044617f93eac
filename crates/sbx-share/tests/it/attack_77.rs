//! Attack case 77 by a guest that speaks FUSE to the real server: what editors, shells, agents and the project's services run.

use std::fs;

use rustix::io::Errno;
use sbx_workspace::Rules;
use sbx_workspace::protect::{Level, standard};

use crate::guest::{Guest, prepared, refused};
use crate::support::read_host;
use crate::ways;

/// Files by their names.
const FILES: &[&str] = &[
    ".envrc",
    ".mcp.json",
    "AGENTS.md",
    "CLAUDE.md",
    "GEMINI.md",
    ".gitattributes",
    ".gitlab-ci.yml",
    "Jenkinsfile",
    ".pre-commit-config.yaml",
    "x.code-workspace",
    "mise.toml",
    ".devcontainer.json",
];
/// Directories with all that is in them.
const FOLDERS: &[&str] = &[
    ".vscode",
    ".idea",
    ".claude",
    ".codex",
    ".gemini",
    ".cursor",
    ".github/workflows",
    ".circleci",
    ".husky",
    ".devcontainer",
];
/// Directories that are there already, and not protected themselves.
const THERE: &[&str] = &["deep/er", ".github", "deep/er/.github"];

fn guest(level: Level) -> Guest {
    let folder = prepared();
    let root = folder.path().join("root");
    ways::prepare_own(&root);
    for name in THERE {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    let rules = Rules {
        protect: standard(level),
        ..Rules::default()
    };
    Guest::guarded(folder, &rules)
}

/// In the root and deeper.
fn everywhere(names: &[&str]) -> Vec<String> {
    let places = ["", "deep/er/"].into_iter();
    let paths = places.flat_map(|place| names.iter().map(move |name| format!("{place}{name}")));
    paths.collect()
}

#[test]
fn attack_77_what_other_programs_run_is_written_and_said() {
    let mut guest = guest(Level::Standard);
    let mut expected = Vec::new();
    for path in everywhere(FILES) {
        guest.put(&path, "agent's").unwrap();
        assert_eq!(read_host(guest.host(&path)), "agent's");
        expected.push(("create", path));
    }
    for path in everywhere(FOLDERS) {
        guest.make_dir(&path).unwrap();
        let inside = format!("{path}/tasks.json");
        guest.put(&inside, "agent's").unwrap();
        assert_eq!(read_host(guest.host(&inside)), "agent's");
        expected.extend([("create", path), ("create", inside)]);
    }
    // By a rename, a link, a change and a removal as well.
    guest.put("plain", "agent's").unwrap();
    guest.link("plain", "deep/Jenkinsfile").unwrap();
    guest.rename("plain", "deep/.envrc", 0).unwrap();
    guest.put("deep/.envrc", "more").unwrap();
    guest.fs.unlink(1, ".envrc").unwrap();
    assert_eq!(read_host(guest.host("deep/.envrc")), "more");
    for (action, path) in [
        ("link", "deep/Jenkinsfile"),
        ("rename", "deep/.envrc"),
        ("write", "deep/.envrc"),
        ("remove", ".envrc"),
    ] {
        expected.push((action, path.to_owned()));
    }
    let said = guest.said();
    assert!(said.iter().all(|(.., refused)| !refused), "{said:?}");
    for (action, path) in expected {
        let event = (action.to_owned(), path, false);
        assert!(said.contains(&event), "{event:?} is not in {said:?}");
    }
    guest.assert_unharmed("what other programs run");
}

#[test]
fn attack_77_in_block_mode_nothing_gets_such_a_name_in_any_way() {
    let mut guest = guest(Level::Block);
    let before = guest.picture();
    for path in everywhere(FILES) {
        for (what, errno) in ways::make(&mut guest, &path) {
            assert_eq!(errno, Errno::ACCESS, "{path}: {what}");
        }
        for action in ["create", "link", "rename"] {
            let event = (action.to_owned(), path.clone(), true);
            assert!(guest.said().contains(&event), "{event:?}");
        }
    }
    for path in everywhere(FOLDERS) {
        for (what, errno) in ways::make_directory(&mut guest, &path) {
            assert_eq!(errno, Errno::ACCESS, "{path}: {what}");
        }
        let event = ("create".to_owned(), path, true);
        assert!(guest.said().contains(&event), "{event:?}");
    }
    let said = guest.said();
    assert!(said.iter().all(|(.., refused)| *refused), "{said:?}");
    assert_eq!(guest.picture(), before);
    guest.assert_unharmed("such names");
}

#[test]
fn attack_77_in_block_mode_what_the_host_has_there_stays_as_it_is() {
    let mut guest = guest(Level::Block);
    for path in everywhere(FILES) {
        fs::write(guest.host(&path), "the host's").unwrap();
    }
    for path in everywhere(FOLDERS) {
        fs::create_dir(guest.host(&path)).unwrap();
        fs::write(guest.host(&path).join("f"), "the host's").unwrap();
    }
    let before = guest.picture();
    let files = everywhere(FILES).into_iter();
    let inside = everywhere(FOLDERS).into_iter();
    for path in files.chain(inside.map(|path| path + "/f")) {
        for (what, errno) in ways::change(&mut guest, &path) {
            assert_eq!(errno, Errno::ACCESS, "{path}: {what}");
        }
        for action in ["write", "change", "remove", "rename", "link"] {
            let event = (action.to_owned(), path.clone(), true);
            assert!(guest.said().contains(&event), "{event:?}");
        }
    }
    for path in everywhere(FOLDERS) {
        for (what, errno) in ways::make(&mut guest, &format!("{path}/new")) {
            assert_eq!(errno, Errno::ACCESS, "{path}: {what}");
        }
        let (parent, name) = guest.place(&path).unwrap();
        let away = guest.fs.rename2((parent, name), (1, b"away"), 0);
        assert_eq!(refused(away), Errno::ACCESS, "{path}");
        let gone = guest.fs.rmdir(parent, name);
        assert_eq!(refused(gone), Errno::ACCESS, "{path}");
    }
    assert_eq!(guest.picture(), before);
    guest.assert_unharmed("what the host has there");
}

#[test]
fn attack_77_in_block_mode_submodules_are_named_by_gits_own_rename_and_run_nothing() {
    let mut guest = guest(Level::Block);
    let good = "[submodule \"s\"]\n\tpath = s\n\turl = https://example.com/s\n";
    let evil = format!("{good}\tupdate = !./own\n");
    assert_eq!(refused(guest.put(".gitmodules", good)), Errno::ACCESS);
    guest.put(".gitmodules.lock", &evil).unwrap();
    let taken = guest.rename(".gitmodules.lock", ".gitmodules", 0);
    assert_eq!(refused(taken), Errno::ACCESS);
    assert!(!guest.host(".gitmodules").exists());
    guest.put(".gitmodules.lock", good).unwrap();
    guest.rename(".gitmodules.lock", ".gitmodules", 0).unwrap();
    assert_eq!(read_host(guest.host(".gitmodules")), good);
    let event = ("configure".to_owned(), ".gitmodules".to_owned(), true);
    assert!(guest.said().contains(&event));
    guest.assert_unharmed("the names of submodules");
}

#[test]
fn attack_77_what_agents_are_asked_to_write_is_neither_refused_nor_said() {
    let mut guest = guest(Level::Block);
    for path in [
        "Makefile",
        "package.json",
        "deep/Makefile",
        "src.vscode",
        "envrc",
    ] {
        guest.put(path, "agent's").unwrap();
        guest.put(path, "and changed").unwrap();
        assert_eq!(read_host(guest.host(path)), "and changed");
    }
    // A file is no directory of that name.
    guest.put(".vscode", "a file").unwrap();
    assert_eq!(guest.said(), []);
    guest.assert_unharmed("what agents write");
}
