//! Links to git directories.

use sbx_workspace::git_link::{LinkError, check};
use std::path::Path;

fn link(directory: &[&str], name: &str, content: &str) -> Result<(), LinkError> {
    let names: Vec<&[u8]> = directory.iter().map(|name| name.as_bytes()).collect();
    check(
        Path::new("/w/p"),
        &names,
        name.as_bytes(),
        content.as_bytes(),
    )
}

#[test]
fn what_git_writes_for_worktrees_and_submodules_is_allowed() {
    for (directory, name, content) in [
        (&["wt"][..], ".git", "gitdir: /w/p/.git/worktrees/wt\n"),
        (&["a", "sub"], ".git", "gitdir: ../../.git/modules/a/sub\n"),
        (&[".git", "worktrees", "wt"], "commondir", "../..\n"),
        (&["x"], ".git", "gitdir: ../y/.git\n"),
        (
            &["wt", "sub"],
            ".git",
            "gitdir: ../../.git/worktrees/wt/modules/sub\n",
        ),
    ] {
        assert_eq!(link(directory, name, content), Ok(()), "{content}");
    }
}

#[test]
fn a_git_directory_of_another_name_is_refused() {
    for (directory, name, content) in [
        (&[][..], ".git", "gitdir: evil\n"),
        (&[], ".git", "gitdir: .git/objects\n"),
        (&["s"], ".git", "gitdir: ../../other/.git\n"),
        (&[], ".git", "gitdir: /tmp/.git\n"),
        (&[], ".git", "gitdir: /w/p2/.git\n"),
        (&[], ".git", "gitdir: x/.git/../y\n"),
        (&[], ".git", "gitdir: .git/worktrees\n"),
        (&[], ".git", "gitdir: .git/worktrees/wt/modules\n"),
        (&[], ".git", "gitdir: .git/worktrees/wt/logs/x\n"),
        // What is above a name is elsewhere, if the name is a link.
        (&["wt"], ".git", "gitdir: ../.git/l/../modules/x\n"),
        (&["wt"], ".git", "gitdir: /w/p/.git/l/../modules/x\n"),
        (&[".git", "worktrees", "wt"], "commondir", "../../../evil\n"),
    ] {
        let refused = link(directory, name, content);
        assert!(matches!(refused, Err(LinkError::Place(_))), "{content}");
    }
    for content in [
        "",
        "gitdir: \n",
        "gitdir: a\nb/.git",
        "gitdir:x/.git",
        "\u{0}",
    ] {
        assert_eq!(link(&[], ".git", content), Err(LinkError::Form));
    }
}
