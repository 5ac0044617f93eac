//! The guards of the share that are about rules, and the tests that miss them.

use super::Guard;

const MOD: &str = "crates/sbx-share/src/guard/mod.rs";
const NAMES: &str = "crates/sbx-share/src/guard/names.rs";
const RENAMES: &str = "crates/sbx-share/src/guard/renames.rs";
const CONTENT: &str = "crates/sbx-share/src/guard/content.rs";
const INSTALL: &str = "crates/sbx-share/src/guard/install.rs";
const COPY: &str = "crates/sbx-share/src/guard/copy.rs";
const MARKS: &str = "crates/sbx-share/src/guard/marks.rs";
const REQUESTS: &str = "crates/sbx-share/src/names.rs";
const SHARE: &str = "crates/sbx-share/src/share.rs";

const HOOKS: &str = "protect::attack_76_hooks_are_neither_made_nor_changed_nor_removed";
const MOVES: &str = "protect::attack_76_moving_things_about_does_not_get_around_a_rule";
const STAYS: &str = "protect::attack_76_a_directory_that_git_looks_from_stays_where_it_is";
const LINKS: &str = "protect::attack_76_links_do_not_get_around_a_rule";
const ELSEWHERE: &str = "protect::attack_76_links_do_not_lead_git_elsewhere";
const SECOND_NAMES: &str =
    "protect::attack_74_a_file_with_names_that_nobody_has_shown_is_not_written";
const SETTINGS: &str = "protect::attack_76_git_settings_are_written_by_git_only_and_run_nothing";
const LEFT_OVER: &str = "protect::a_copy_that_a_killed_share_left_goes_at_the_next_start_or_change_and_no_other_file_does";
const GIT_LINKS: &str = "protect::worktrees_and_submodules_name_protected_places_only";
const SUBMODULES: &str =
    "protect::submodules_of_a_worktree_are_made_by_git_and_protected_as_others_are";
const OTHERS: &str = "protect::attack_77_what_other_programs_run_is_said_and_in_block_mode_refused";
const ABSENT: &str = "hide::hidden_names_are_absent_from_look_ups_and_listings";
const NOT_OVERWRITTEN: &str = "hide::nothing_is_put_under_a_hidden_name_and_nothing_overwritten";

const NO_DIRECTORY: &str = "protect::attack_76_a_file_that_is_used_as_a_directory_stays_protected";

const ALL_NAMES: &str =
    "attack_76::attack_76_nothing_gets_a_name_that_git_runs_in_any_way_also_where_nothing_is_yet";
const ALL_CHANGES: &str =
    "attack_76::attack_76_what_git_runs_is_not_changed_removed_or_renamed_in_any_way";
const ALL_SETTINGS: &str =
    "attack_76::attack_76_settings_that_run_something_take_no_place_by_any_rename";
const CHANGING_LOCK: &str = "attack_76::attack_76_a_lock_file_that_changes_under_its_rename_brings_nothing_into_gits_settings";
const PIECES: &str = "attack_76_links::attack_76_a_link_to_a_git_directory_never_has_another_content_not_even_in_part";
const NO_LINKS: &str =
    "attack_76_links::attack_76_no_symbolic_link_leads_what_git_writes_out_of_its_own_directory";
const HOST_LOCKS: &str =
    "attack_76_locks::attack_76_a_lock_of_the_hosts_is_not_changed_removed_or_renamed_in_any_way";
const LOCK_NAMES: &str =
    "attack_76_locks::attack_76_nothing_but_a_new_file_gets_the_name_of_a_lock";
const LOCK_RACE: &str =
    "attack_76_locks::attack_76_nothing_of_the_guests_gets_into_settings_by_the_hosts_lock";
const OWN_LOCKS: &str =
    "attack_76_locks::a_lock_of_the_guests_is_its_own_and_stays_where_it_was_made";
const SHORT: &str = "attack_76_links::attack_76_a_write_that_says_more_than_it_carries_leaves_no_end_of_an_older_link";
const NUMBERS: &str =
    "attack_76::attack_76_numbers_that_mean_something_else_lead_to_no_protected_name";
const BECOMES: &str =
    "attack_76::attack_76_a_repository_that_another_folder_becomes_brings_no_hook_along";
const FROM_BEFORE: &str = "attack_74::attack_74_a_file_that_the_host_makes_a_hook_of_is_not_written_through_a_handle_from_before";
const MOVED_ON: &str = "attack_74::a_file_that_the_host_moves_elsewhere_is_written_on_and_one_moved_out_of_the_tree_is_not";
const OUTSIDE_TOO: &str =
    "attack_74::attack_74_a_file_that_lies_outside_too_is_read_and_not_changed_in_any_way";
const OTHER_NAME: &str =
    "attack_74::attack_74_a_hook_is_not_written_by_another_name_that_the_host_gave_it";
const BLOCKED_NAMES: &str =
    "attack_77::attack_77_in_block_mode_nothing_gets_such_a_name_in_any_way";
const BLOCKED_CHANGES: &str =
    "attack_77::attack_77_in_block_mode_what_the_host_has_there_stays_as_it_is";

/// Every guard.
pub(super) const GUARDS: &[Guard] = &[
    Guard {
        what: "a file is judged as a file",
        file: MARKS,
        text: "is_some_and(|kind| kind != Kind::Directory)",
        instead: "is_some_and(|_| false)",
        tests: &[NO_DIRECTORY, NUMBERS],
    },
    Guard {
        what: "nothing is made under a protected name",
        file: NAMES,
        text: "self.guard.violation(number, Action::Create, &path)?;",
        instead: "let _said = self.guard.violation(number, Action::Create, &path);",
        tests: &[HOOKS, OTHERS, ALL_NAMES, BLOCKED_NAMES],
    },
    Guard {
        what: "nothing is made under a hidden name",
        file: NAMES,
        text: "return Err(self.guard.refuse_hidden(number, Action::Create, &path));",
        instead: "let _said = self.guard.refuse_hidden(number, Action::Create, &path);",
        tests: &[NOT_OVERWRITTEN],
    },
    Guard {
        what: "a link beside a directory is judged by both names",
        file: NAMES,
        text: r#"            && link.below == beside.below
"#,
        instead: "",
        tests: &[LINKS],
    },
    Guard {
        what: "no link stands in for a directory with protected files",
        file: NAMES,
        text: "let Some(why) = judged.below.against_links() else {",
        instead: "let Some(why) = judged.below.against_links().filter(|why| why.is_empty()) else {",
        tests: &[LINKS, BLOCKED_NAMES, NO_LINKS],
    },
    Guard {
        what: "no link lies in a git directory",
        file: MOD,
        text: "        } else if self.in_git {",
        instead: "        } else if self.in_git && self.hide.is_live() {",
        tests: &[NO_LINKS],
    },
    Guard {
        what: "a link beside is none to a protected file",
        file: NAMES,
        text: "            && file.protected.is_none()\n",
        instead: "",
        tests: &[NO_LINKS],
    },
    Guard {
        what: "links in what becomes a git directory are looked at, however deep",
        file: RENAMES,
        text: "let becomes_git = new.below.in_git && !old.below.in_git;",
        instead: "let becomes_git = new.below.in_git && old.below.in_git;",
        tests: &[NO_LINKS],
    },
    Guard {
        what: "no link is given such a name",
        file: NAMES,
        text: "self.check_stand_in(parent, name, Action::Link)?;",
        instead: "let _said = self.check_stand_in(parent, name, Action::Link);",
        tests: &[LINKS, BLOCKED_NAMES],
    },
    Guard {
        what: "a hidden file is not removed",
        file: NAMES,
        text: "if judged.hidden.is_some() {",
        instead: "if judged.hidden.is_some() && directory {",
        tests: &[NOT_OVERWRITTEN],
    },
    Guard {
        what: "a protected file is not removed",
        file: NAMES,
        text: "self.guard.violation(number, Action::Remove, &path)",
        instead: "self.guard.violation(number, Action::Remove, &path).or(Ok(()))",
        tests: &[HOOKS, ALL_CHANGES, BLOCKED_CHANGES],
    },
    Guard {
        what: "a protected file gets no second name",
        file: NAMES,
        text: "self.guard.violation(number, Action::Link, &path)?;",
        instead: "let _said = self.guard.violation(number, Action::Link, &path);",
        tests: &[LINKS, ALL_CHANGES, BLOCKED_CHANGES],
    },
    Guard {
        what: "a protected name is no second one",
        file: NAMES,
        text: "self.guard.violation(number, Action::Link, &path())?;",
        instead: "let _said = self.guard.violation(number, Action::Link, &path());",
        tests: &[LINKS, ALL_NAMES, BLOCKED_NAMES],
    },
    Guard {
        what: "a hidden name is no second one",
        file: NAMES,
        text: "return Err(self.guard.refuse_hidden(number, Action::Link, &path()));",
        instead: "let _said = self.guard.refuse_hidden(number, Action::Link, &path());",
        tests: &[NOT_OVERWRITTEN],
    },
    Guard {
        what: "a hidden file is not renamed",
        file: RENAMES,
        text: "if old.hidden.is_some() {",
        instead: "if old.hidden.is_some() && directory {",
        tests: &[NOT_OVERWRITTEN],
    },
    Guard {
        what: "a directory that git looks from is not moved",
        file: RENAMES,
        text: "self.check_stays(from)?;",
        instead: "",
        tests: &[STAYS],
    },
    Guard {
        what: "a directory that git looks from is not replaced",
        file: RENAMES,
        text: "self.check_stays(to)?;",
        instead: "",
        tests: &[STAYS],
    },
    Guard {
        what: "nothing is renamed to a hidden name",
        file: RENAMES,
        text: "return Err(self.guard.refuse_hidden(number, Action::Rename, &path(to)));",
        instead: "let _said = self.guard.refuse_hidden(number, Action::Rename, &path(to));",
        tests: &[NOT_OVERWRITTEN],
    },
    Guard {
        what: "a protected file is not renamed",
        file: RENAMES,
        text: "self.guard.violation(number, Action::Rename, &path(from))?;",
        instead: "let _said = self.guard.violation(number, Action::Rename, &path(from));",
        tests: &[MOVES, ALL_CHANGES, BLOCKED_CHANGES],
    },
    Guard {
        what: "nothing is renamed to a protected name",
        file: RENAMES,
        text: "_ => self.guard.violation(number, Action::Rename, &path(to))?,",
        instead: "_ => {}",
        tests: &[MOVES, OTHERS, ALL_NAMES, BLOCKED_NAMES],
    },
    Guard {
        what: "no link is renamed to the name of a directory with protected files",
        file: RENAMES,
        text: "self.check_stand_in(to.parent, to.name, Action::Rename)?;",
        instead: "",
        tests: &[LINKS, BLOCKED_NAMES],
    },
    Guard {
        what: "what is in a directory that is moved is looked at",
        file: RENAMES,
        text: "self.check_tree(from, to, (&old, &new), in_git)?;",
        instead: "",
        tests: &[
            MOVES,
            "hide::moving_a_directory_shows_nothing_that_was_hidden_in_it",
            BECOMES,
        ],
    },
    Guard {
        what: "links in a directory that is moved are looked at",
        file: RENAMES,
        text: "self.stand_in(&below_path, &new)?;",
        instead: "",
        tests: &[LINKS],
    },
    Guard {
        what: "what is exchanged is looked at in both directions",
        file: REQUESTS,
        text: "let back = self.check_rename(target, source)?;",
        instead: "let back = self.check_rename(target, source).unwrap_or_default();",
        tests: &[MOVES, ALL_CHANGES],
    },
    Guard {
        what: "what was known of names is forgotten after a move",
        file: REQUESTS,
        text: "if plan.rejudge {",
        instead: "if plan.rejudge && exchange {",
        tests: &[MOVES, BECOMES],
    },
    Guard {
        what: "a protected file is not written",
        file: CONTENT,
        text: "self.guard.violation(number, Action::Write, &path)?;",
        instead: "let _said = self.guard.violation(number, Action::Write, &path);",
        tests: &[HOOKS, SETTINGS, OTHERS, ALL_CHANGES, BLOCKED_CHANGES],
    },
    Guard {
        what: "a file is judged when it is opened to be written",
        file: SHARE,
        text: "            if writes {",
        instead: "            if writes && id == 0 {",
        tests: &[HOOKS, SECOND_NAMES, ALL_CHANGES, OUTSIDE_TOO, OTHER_NAME],
    },
    Guard {
        what: "the attributes of a protected file stay",
        file: CONTENT,
        text: "self.guard.violation(number, Action::Change, &path)?;",
        instead: "let _said = self.guard.violation(number, Action::Change, &path);",
        tests: &[HOOKS, ALL_CHANGES, BLOCKED_CHANGES],
    },
    Guard {
        what: "a file with unknown names is not written",
        file: CONTENT,
        text: "if known >= stat.stx_nlink {",
        instead: "if known <= stat.stx_nlink {",
        tests: &[SECOND_NAMES, OUTSIDE_TOO, OTHER_NAME],
    },
    Guard {
        what: "the names of a file that is open are looked at again",
        file: "crates/sbx-share/src/content.rs",
        text: "self.check_open((id, handle), &file)?;",
        instead: "",
        tests: &[FROM_BEFORE, MOVED_ON],
    },
    Guard {
        what: "a directory is as old as the one from which it was found",
        file: SHARE,
        text: "Rc::clone(&directory), since);",
        instead: "Rc::clone(&directory), since.filter(|since| since.is_zero()));",
        tests: &[
            "consistency::a_directory_is_found_again_in_time_also_below_one_that_was_found_before",
        ],
    },
    Guard {
        what: "the attributes of a file with unknown names stay",
        file: CONTENT,
        text: "return self.check_names(id, stat);",
        instead: "return Ok(());",
        tests: &[SECOND_NAMES, OUTSIDE_TOO],
    },
    Guard {
        what: "a link to a git directory names a protected one",
        file: CONTENT,
        text: "self.check_git_link(place.parent, place.name.to_bytes(), &content, Action::Write)?;",
        instead: "",
        tests: &[GIT_LINKS, ELSEWHERE, PIECES],
    },
    Guard {
        what: "a link to a git directory is written as a whole",
        file: CONTENT,
        text: "let whole = offset == 0 && size <= git_link::MAX_BYTES && before <= size as u64;",
        instead: "let whole = offset == 0 && size <= git_link::MAX_BYTES && before < u64::MAX;",
        tests: &[GIT_LINKS, PIECES],
    },
    Guard {
        what: "a link to a git directory is as long as it is said to be",
        file: CONTENT,
        text: "if count != size {",
        instead: "if count > size {",
        tests: &[PIECES, SHORT],
    },
    Guard {
        what: "a link to a git directory is not cut",
        file: CONTENT,
        text: "What::GitLink => size.is_some_and(|size| size != 0),",
        instead: "What::GitLink => size.is_some_and(|size| size > 4096),",
        tests: &[GIT_LINKS, PIECES],
    },
    Guard {
        what: "a link to a git directory is not changed unseen",
        file: CONTENT,
        text: "Writing::Link => Err(Errno::ACCESS.into()),",
        instead: "Writing::Link => Ok(()),",
        tests: &[GIT_LINKS, PIECES],
    },
    Guard {
        what: "what is above a name is not guessed",
        file: "crates/sbx-workspace/src/git_link.rs",
        text: r#"if rest.any(|name| name == "..") {"#,
        instead: r#"if rest.any(|name| name == "...") {"#,
        tests: &[ELSEWHERE, PIECES],
    },
    Guard {
        what: "settings lead git's work tree to a submodule only",
        file: "crates/sbx-workspace/src/git_config/mod.rs",
        text: r#"let Some(git) = starts.find(|at| modules(&place.directory[*at..])) else {
        return false;
    };"#,
        instead: "let git = starts.find(|at| modules(&place.directory[*at..])).unwrap_or(0);",
        tests: &[ELSEWHERE],
    },
    Guard {
        what: "a worktree's directory is no repository",
        file: "crates/sbx-workspace/src/protect.rs",
        text: r#"    ("**/.git/worktrees/*/**/config", What::GitConfig),
"#,
        instead: "",
        tests: &[
            "protect::attack_76_a_worktrees_directory_is_no_repository_of_its_own",
            ALL_SETTINGS,
        ],
    },
    Guard {
        what: "a submodule in a worktree has its settings protected",
        file: "crates/sbx-workspace/src/protect.rs",
        text: r#"("**/.git/worktrees/*/**/config", What::GitConfig)"#,
        instead: r#"("**/.git/worktrees/*/config", What::GitConfig)"#,
        tests: &[SUBMODULES, ALL_SETTINGS],
    },
    Guard {
        what: "git's settings run nothing",
        file: INSTALL,
        text: "if let Err(error) = self.check_settings(number, to, &new, old.as_deref()) {",
        instead: r#"if let Err(error) = self.check_settings(number, to, &new, old.as_deref())
            && number == u16::MAX
        {"#,
        tests: &[SETTINGS, ALL_SETTINGS, CHANGING_LOCK],
    },
    Guard {
        what: "a lock of the host's is not written",
        file: CONTENT,
        text: "self.check_lock(id, Action::Write)?;",
        instead: "",
        tests: &[HOST_LOCKS, LOCK_RACE],
    },
    Guard {
        what: "the attributes of a lock of the host's stay",
        file: CONTENT,
        text: "self.check_lock(id, Action::Change)?;",
        instead: "",
        tests: &[HOST_LOCKS],
    },
    Guard {
        what: "a lock of the host's is not removed",
        file: NAMES,
        text: "self.check_own_lock(judged.lock, at, Action::Remove)?;",
        instead: "let _said = self.check_own_lock(judged.lock, at, Action::Remove);",
        tests: &[HOST_LOCKS],
    },
    Guard {
        what: "a lock gets no second name",
        file: NAMES,
        text: "self.refuse_lock(number, Action::Link, &self.shown_node(id))?;",
        instead: "let _said = self.refuse_lock(number, Action::Link, &self.shown_node(id));",
        tests: &[HOST_LOCKS],
    },
    Guard {
        what: "the name of a lock is no second one",
        file: NAMES,
        text: "self.refuse_lock(number, Action::Link, &path())?;",
        instead: "let _said = self.refuse_lock(number, Action::Link, &path());",
        tests: &[LOCK_NAMES],
    },
    Guard {
        what: "a lock of the host's is not renamed",
        file: RENAMES,
        text: "self.check_own_lock(old.lock, from, Action::Rename)?;",
        instead: "let _said = self.check_own_lock(old.lock, from, Action::Rename);",
        tests: &[HOST_LOCKS],
    },
    Guard {
        what: "nothing is renamed to the name of a lock",
        file: RENAMES,
        text: "self.refuse_lock(number, Action::Rename, &path(to))?;",
        instead: "let _said = self.refuse_lock(number, Action::Rename, &path(to));",
        tests: &[LOCK_NAMES, LOCK_RACE],
    },
    Guard {
        what: "no directory becomes one of git's with a lock in it",
        file: RENAMES,
        text: "share.refuse_lock(number, Action::Rename, &full(&self.to))?;",
        instead: "let _said = share.refuse_lock(number, Action::Rename, &full(&self.to));",
        tests: &[LOCK_NAMES],
    },
    Guard {
        what: "no directory is renamed with a lock of the guest's in it",
        file: RENAMES,
        text: "self.check_holds_no_lock(from, &stat)?;",
        instead: "",
        tests: &[OWN_LOCKS],
    },
    Guard {
        what: "a copy of git's settings is installed",
        file: INSTALL,
        text: "copy::install(&self.tree, (to.directory, to.name), &new, mode)?;",
        instead: r#"if new.len() < usize::MAX {
            return Ok(false);
        }"#,
        tests: &[SETTINGS, CHANGING_LOCK],
    },
    Guard {
        what: "only what a share has made is removed as left over",
        file: COPY,
        text: "if !known || !is_type",
        instead: "if !is_type",
        tests: &[LEFT_OVER],
    },
    Guard {
        what: "what another share is installing is not removed",
        file: COPY,
        text: "Ok(rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok())",
        instead: "Ok(true)",
        tests: &[
            "guard::copy::tests::a_copy_goes_when_nobody_holds_it_any_more_and_nothing_else_does",
        ],
    },
    Guard {
        what: "too much to be looked at is not moved",
        file: RENAMES,
        text: "if self.left == 0 {",
        instead: "if self.left == 0 && path.len() > 1 << 20 {",
        tests: &[
            "bounds::a_directory_with_more_in_it_than_is_looked_at_gets_no_name_that_rules_look_into",
        ],
    },
    Guard {
        what: "nothing but stand-ins is found in a hidden directory",
        file: REQUESTS,
        text: "if self.holds_stand_ins_only(parent) {",
        instead: "if parent == 0 {",
        tests: &["mask::a_hidden_file_that_git_knows_reads_as_what_git_has_and_cannot_be_changed"],
    },
    Guard {
        what: "a hidden name is not found",
        file: REQUESTS,
        text: "Ok(stat) if self.is_hidden(parent, name, is_type(&stat, FileType::Directory))? => {",
        instead: "Ok(_) if parent == 0 => {",
        tests: &[ABSENT],
    },
    Guard {
        what: "a hidden name is not listed",
        file: "crates/sbx-share/src/directory.rs",
        text: "if !self.virtuals.iter().any(stands) && !self.hides(guard, name, entry.file_type()) {",
        instead: "if !self.virtuals.iter().any(stands) {",
        tests: &[ABSENT],
    },
    Guard {
        what: "hidden names do not end a list",
        file: "crates/sbx-share/src/directory.rs",
        text: "if raw.is_buffer_empty() && !chunk.bytes.is_empty() {",
        instead: "if raw.is_buffer_empty() {",
        tests: &["hide::a_directory_of_hidden_files_lists_to_its_end"],
    },
];
