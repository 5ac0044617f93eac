//! The guards of the share that are about its tree as such, and the tests that miss them.

use super::Guard;

const SHARE: &str = "crates/sbx-share/src/share.rs";
const TREE: &str = "crates/sbx-share/src/tree.rs";

const PATHS: &str = "confinement::names_that_are_paths_are_refused_everywhere";
const WALK: &str = "tree::tests::a_walk_follows_no_link_and_no_way_up";
const READ_ONLY: &str = "ownership::a_read_only_share_refuses_every_change";

/// Every guard.
pub(super) const GUARDS: &[Guard] = &[
    Guard {
        what: "a read-only tree stays as it is",
        file: SHARE,
        text: "if self.read_only {",
        instead: "if self.read_only && self.root_path.as_os_str().is_empty() {",
        tests: &[
            READ_ONLY,
            "attack_75::attack_75_a_read_only_share_refuses_every_change_also_after_a_new_mount",
        ],
    },
    Guard {
        what: "a walk does not go up",
        file: TREE,
        text: "pub(crate) const BENEATH: ResolveFlags = ResolveFlags::BENEATH",
        instead: "pub(crate) const BENEATH: ResolveFlags = ResolveFlags::empty()",
        tests: &[WALK],
    },
    Guard {
        what: "a walk follows no link",
        file: TREE,
        text: r#"    .union(ResolveFlags::NO_SYMLINKS)
"#,
        instead: "",
        tests: &[WALK],
    },
    Guard {
        what: "a name is one component",
        file: SHARE,
        text: "bytes if bytes.contains(&b'/') => Err(Errno::INVAL.into()),",
        instead: "",
        tests: &[PATHS],
    },
    Guard {
        what: "a name is no way up",
        file: SHARE,
        text: r#"b"" | b"." | b".." => Err(Errno::INVAL.into()),"#,
        instead: r#"b"" => Err(Errno::INVAL.into()),"#,
        tests: &[PATHS],
    },
    Guard {
        what: "what was reached is what the guest means",
        file: SHARE,
        text: "if found == identity {",
        instead: "if found == identity || place.parent != 0 {",
        tests: &["consistency::a_file_replaced_on_the_host_is_another_file"],
    },
    Guard {
        what: "what was opened by its name is what the guest means",
        file: "crates/sbx-share/src/by_name.rs",
        text: "let same = Identity::from(&stat) == identity && is_type",
        instead: "let same = is_type",
        tests: &["consistency::a_file_replaced_on_the_host_is_another_file"],
    },
    Guard {
        what: "a file that has left the tree is gone",
        file: SHARE,
        text: "if stat.stx_nlink > 0 || is_type(&stat, FileType::Directory) {",
        instead: "if stat.stx_nlink > 9 {",
        tests: &["confinement::a_directory_moved_out_of_the_root_is_gone_even_while_open"],
    },
    Guard {
        what: "no file runs as its owner",
        file: SHARE,
        text: "Mode::from_raw_mode(mode & !umask & 0o1777)",
        instead: "Mode::from_raw_mode(mode & !umask & 0o7777)",
        tests: &[
            "ownership::set_user_id_never_reaches_the_host",
            "attack_75::attack_75_devices_are_refused_and_no_file_gets_rights_beyond_its_owners",
        ],
    },
    Guard {
        what: "a file of which nothing can be said is not changed",
        file: "crates/sbx-share/src/guard/marks.rs",
        text: "if judges == 0 && !nameless && protected.is_none() {",
        instead: "if judges > 99 && !nameless && protected.is_none() {",
        tests: &[
            "attack_76::attack_76_a_file_below_a_directory_that_the_guest_has_forgotten_is_not_changed",
        ],
    },
    Guard {
        what: "what says where something is does not move within a git directory",
        file: "crates/sbx-share/src/guard/moves.rs",
        text: "        b\".git\" | b\"commondir\" | b\"gitdir\" => Ok(true),",
        instead: "        b\".git\" | b\"commondir\" | b\"gitdir\" => Ok(name.is_empty()),",
        tests: &[
            "attack_76::attack_76_what_says_where_something_is_does_not_move_about_in_a_git_directory",
        ],
    },
];
