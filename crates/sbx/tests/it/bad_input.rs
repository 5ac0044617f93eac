//! Bad input gets one clear error with the next step, and leaves nothing half-made.

use crate::world::{Done, World, done};
use std::process::Command;

#[test]
fn a_sandbox_that_cannot_be_made_is_refused_with_the_reason_and_leaves_nothing() {
    let world = World::with_policy();
    let good = world.folder("good").display().to_string();
    let file = world.root.path().join("a-file");
    std::fs::write(&file, "x").unwrap();
    let file = file.display().to_string();
    let cases: &[(&[&str], &str)] = &[
        (&["create", "shell", "/no/such/folder"], "/no/such/folder"),
        (&["create", "shell", &file], "not a directory"),
        (&["create", "shell", "/"], "/ cannot be a workspace"),
        (&["create", "shell", "/usr"], "/usr"),
        (&["create", "shell", "/etc"], "/etc"),
        (&["create", "shell", "/var"], "/var"),
        (&["create", "shell", "/proc"], "/proc"),
        (&["create", "no-such-agent", &good], "no-such-agent"),
        (&["create", "shell", &good, "--name", "a"], "2 to 63"),
        (&["create", "shell", &good, "--name", "-x"], "starts with"),
        (
            &["create", "shell", &good, "--name", "a b"],
            "letters, digits",
        ),
        (&["create", "shell", &good, "--name", "default"], "reserved"),
        (&["exec", "nobody", "true"], "sandbox 'nobody' not found"),
        (&["stop", "nobody"], "sandbox 'nobody' not found"),
        (&["rm", "--force", "nobody"], "sandbox 'nobody' not found"),
        (&["inspect", "nobody"], "sandbox 'nobody' not found"),
        (&["run", "--name", "nobody"], "sandbox 'nobody' not found"),
    ];
    for (arguments, text) in cases {
        let mut arguments = arguments.to_vec();
        if arguments.contains(&"-x") {
            arguments = vec!["create", "shell", &good, "--name=-x"];
        }
        world.sbx(&arguments).refused(text);
        assert!(
            world.sandbox_dirs().is_empty(),
            "{arguments:?} left {:?}",
            world.sandbox_dirs()
        );
    }
    assert_eq!(world.sbx(&["ls", "-q"]).ok(), "");
}

#[test]
fn without_a_policy_sandboxes_are_refused_and_the_three_choices_named() {
    let world = World::new();
    let done = world.sbx(&["create", "shell", "/tmp"]);
    for word in ["balanced", "allow-all", "deny-all"] {
        assert!(done.stderr.contains(word), "{done:?}");
    }
    done.refused("global network policy has not been initialized");
    world.sbx(&["login"]).refused("has not been initialized");
}

#[test]
fn without_qemu_the_error_names_the_package() {
    let mut world = World::with_policy();
    world.sbx(&["daemon", "stop"]).ok();
    world.path = world.path_without("qemu");
    let good = world.folder("good").display().to_string();
    let done = world.sbx(&["create", "shell", &good]);
    assert!(done.stderr.contains("qemu-system-x86"), "{done:?}");
    done.refused("qemu-system-x86_64 was not found");
    assert!(world.sandbox_dirs().is_empty());
}

#[test]
fn without_npm_the_claude_template_is_refused_with_the_way_on() {
    let world = World::new();
    // The folders of the system are searched whatever PATH says.
    let hide = "for p in /usr/local/bin /usr/bin /bin; do \
                [ ! -e $p/npm ] || [ ! -s $p/npm ] || mount --bind /dev/null $(readlink -f $p/npm) || exit 91; done";
    let outcome = create_in_namespace(&world, hide, "claude");
    assert!(outcome.stderr.contains("shell agent"), "{outcome:?}");
    outcome.refused("npm is not installed");
}

#[test]
fn a_disk_without_room_is_named_before_anything_is_made() {
    let world = World::new();
    let small = "mount -t tmpfs -o size=8m none \"$SBX_HOME\"";
    create_in_namespace(&world, small, "shell").refused("MiB");
}

/// `sbx create AGENT` in a mount namespace of its own, after `prepare`. Sandboxes' directories that are left show on
/// standard output.
fn create_in_namespace(world: &World, prepare: &str, agent: &str) -> Done {
    let good = world.folder("good").display().to_string();
    world.folder("home");
    let line = format!(
        "{prepare} || exit 92; \"$0\" policy init deny-all >&2 || exit 90; \"$0\" create {agent} \"$1\"; code=$?; \
         ls \"$SBX_HOME/state/sandboxes\"; \"$0\" daemon stop >&2; exit $code"
    );
    let sbx = world.command(&[]);
    let mut namespace = Command::new("unshare");
    namespace.args(["--user", "--map-root-user", "--mount", "sh", "-c", &line]);
    namespace.arg(sbx.get_program()).arg(&good).env_clear();
    namespace.envs(
        sbx.get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    done(namespace.output().unwrap())
}

#[test]
fn older_spelling_of_run_finds_sandboxes_and_says_so_when_there_is_none() {
    let world = World::new();
    world.plant("planted");
    world.sbx(&["policy", "init", "deny-all"]).ok();
    world
        .sbx(&["run", "nobody"])
        .refused("neither an agent nor a sandbox 'nobody'");
    // Found: what stops it is that its image is not there.
    let found = world.sbx(&["run", "planted"]);
    assert!(found.stderr.contains("--name planted"), "{found:?}");
    found.refused("image base-0 of sandbox 'planted'");
}

#[test]
fn unusable_command_lines_are_usage_errors() {
    let world = World::new();
    for arguments in [
        &["frobnicate"][..],
        &["create"],
        &["exec", "x"],
        &["create", "shell", "-m", "3"],
        &["policy", "init", "maybe"],
    ] {
        let done = world.sbx(arguments);
        assert_eq!(done.code, 2, "{arguments:?}: {done:?}");
        assert!(done.stdout.is_empty() && !done.stderr.is_empty());
    }
}
