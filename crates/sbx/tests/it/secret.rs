//! `sbx secret` at the command line.

use crate::world::{self, World};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const KEY: &str = "sk-ant-api03-0123456789abcdefghijklmnopqrstuvwxyz";

#[test]
fn a_secret_is_stored_encrypted_listed_masked_and_removed() {
    let world = World::with_policy();
    world
        .sbx_with_input(&["secret", "set", "ANTHROPIC_API_KEY"], &format!("{KEY}\n"))
        .ok();
    let table = world.sbx(&["secret", "ls"]).ok();
    assert!(
        table.contains("anthropic") && table.contains("(global)"),
        "{table}"
    );
    assert!(!table.contains(KEY), "{table}");
    for file in files(&world.home()) {
        let content = std::fs::read(&file).unwrap_or_default();
        let found = content
            .windows(KEY.len())
            .any(|window| window == KEY.as_bytes());
        assert!(!found, "{} holds the key in the clear", file.display());
        if file.components().any(|part| part.as_os_str() == "secrets") {
            let mode = file.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o077, 0, "{} is readable by others", file.display());
        }
    }
    world
        .sbx_with_input(&["secret", "set", "anthropic"], "other")
        .refused("anthropic");
    world
        .sbx_with_input(
            &["secret", "set", "-f", "anthropic"],
            "other-value-0123456789",
        )
        .ok();
    world.sbx(&["secret", "rm", "anthropic", "-f"]).ok();
    world
        .sbx(&["secret", "rm", "anthropic", "-f"])
        .refused("anthropic");
    let empty = world.sbx(&["secret", "ls", "-g"]).ok();
    assert_eq!(empty, "No secrets found for scope \"(global)\".\n");
}

#[test]
fn an_empty_value_and_an_unknown_service_are_refused() {
    let world = World::with_policy();
    world
        .sbx_with_input(&["secret", "set", "anthropic"], "\n")
        .refused("no value");
    world
        .sbx_with_input(&["secret", "set", "no-such-service"], "value")
        .refused("no-such-service");
}

#[test]
fn a_sign_in_needs_a_terminal() {
    let world = World::with_policy();
    world
        .sbx(&["secret", "set", "openai", "--oauth"])
        .refused("nobody is at a terminal");
}

#[test]
fn keys_are_imported_from_the_environment_when_asked_for_and_shown_by_their_end() {
    let world = World::with_policy();
    let import = |arguments: &[&str]| {
        let mut command = world.command(&[&["secret", "import"], arguments].concat());
        command
            .env("ANTHROPIC_API_KEY", KEY)
            .env("GITHUB_TOKEN", "ghp_0123456789abcdefghijklmnopqrstuv")
            .env("OPENAI_API_KEY", "");
        world::finish(command.spawn().unwrap())
    };
    import(&[]).refused("which service");
    import(&["openai"]).refused("OPENAI_API_KEY is not set");
    import(&["aws"]).refused("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY is not set");
    let dry = import(&["--all", "--dry-run"]).ok();
    assert!(
        dry.contains("****wxyz") && dry.contains("GITHUB_TOKEN") && !dry.contains(KEY),
        "{dry}"
    );
    assert!(world.sbx(&["secret", "ls"]).ok().starts_with("No secrets"));

    import(&["anthropic"]).ok();
    import(&["anthropic"]).refused("already");
    let all = import(&["--all"]).ok();
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines.len(), 3, "{all}");
    assert!(
        lines[1].contains("kept as it is") && lines[2].ends_with("stored"),
        "{all}"
    );
    assert!(
        import(&["--all", "--force"])
            .ok()
            .lines()
            .all(|line| !line.contains("kept"))
    );
    let names = world.sbx(&["secret", "ls", "-q"]).ok();
    assert_eq!(names, "anthropic\ngithub\n");
    let rows = world
        .sbx(&["secret", "ls", "--service", "github", "--json"])
        .json();
    assert_eq!(rows["secrets"].as_array().unwrap().len(), 1);
}

#[test]
fn one_key_that_is_refused_keeps_no_other_from_being_imported_and_told() {
    let world = World::with_policy();
    let mut command = world.command(&["secret", "import", "--all"]);
    command
        .env("ANTHROPIC_API_KEY", KEY)
        .env("GITHUB_TOKEN", "ghp_0123456789abcdefghijklmnopqr stuv ")
        .env("OPENAI_API_KEY", "sk-0123456789abcdefghijklmnopqrstuv");
    let done = world::finish(command.spawn().unwrap());
    assert_eq!(done.code, 1, "{done:?}");
    let result = |name: &str| {
        let line = done.stdout.lines().find(|line| line.starts_with(name));
        line.unwrap_or_else(|| panic!("no {name}: {done:?}"))
            .to_owned()
    };
    assert!(result("anthropic").ends_with("  stored"), "{done:?}");
    assert!(result("github").contains("  refused: "), "{done:?}");
    assert!(result("openai").ends_with("  stored"), "{done:?}");
    assert!(done.stderr.contains("error: "), "{done:?}");
    let names = world.sbx(&["secret", "ls", "-q"]).ok();
    assert_eq!(names, "anthropic\nopenai\n");
}

#[test]
fn a_key_in_several_variables_is_imported_whole_and_shown_by_its_ends() {
    let world = World::with_policy();
    let import = |token: &str| {
        let mut command = world.command(&["secret", "import", "aws", "--force"]);
        command
            .env("AWS_ACCESS_KEY_ID", "ASIAIOSFODNN7EXAMPLE")
            .env(
                "AWS_SECRET_ACCESS_KEY",
                "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            )
            .env("AWS_SESSION_TOKEN", token);
        world::finish(command.spawn().unwrap())
    };
    import("").refused("no session token");
    let shown = import("to/ken+==").ok();
    assert!(shown.contains("****n+=="), "{shown}");
    let listed = world.sbx(&["secret", "ls"]).ok();
    assert!(listed.contains("ASIAIO****...****n+=="), "{listed}");
    world
        .sbx_with_input(&["secret", "set", "aws", "-f"], "wJalrXUtnFEMI/K7MDENG")
        .refused("ACCESS_KEY_ID:SECRET_ACCESS_KEY");
}

#[test]
fn what_to_store_or_to_remove_has_to_be_said_without_a_terminal() {
    let world = World::with_policy();
    world.sbx(&["secret", "set"]).refused("which service");
    world.sbx(&["secret", "rm"]).refused("which secret");
    world
        .sbx(&["secret", "rm", "--all", "-f"])
        .refused("no secret");
}

#[test]
fn a_custom_secret_is_stored_listed_in_its_own_table_and_removed() {
    let world = World::with_policy();
    let set = |arguments: &[&str]| {
        let all = [&["secret", "set-custom"], arguments].concat();
        world.sbx_with_input(&all, &format!("{KEY}\n"))
    };
    let said = set(&[
        "--host",
        "api.test",
        "--host",
        "*.files.test",
        "--env",
        "TOKEN",
    ])
    .ok();
    let placeholder = said
        .lines()
        .find_map(|line| line.strip_prefix("Placeholder: "))
        .unwrap()
        .to_owned();
    assert!(placeholder.starts_with("sbx-cs-"), "{placeholder}");
    let listed = world.sbx(&["secret", "ls"]).ok();
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines[0], "CUSTOM SECRETS");
    assert!(
        lines[1].starts_with("SCOPE") && lines[1].contains("PLACEHOLDER"),
        "{listed}"
    );
    for part in [
        "(global)",
        "api.test,*.files.test",
        "TOKEN",
        &placeholder,
        "sk-ant****...****wxyz",
    ] {
        assert!(lines[2].contains(part), "{part} {listed}");
    }
    assert!(!listed.contains(KEY));
    let fetched = set(&[
        "--host",
        "b.test",
        "--command",
        "echo fetched-value",
        "--refresh",
        "1m",
    ]);
    assert!(fetched.ok().contains("(command)"));
    set(&["--host", "c.test", "--command", "exit 4"]).refused("exit status: 4");
    world
        .sbx(&["secret", "rm", "--placeholder", &placeholder, "-f"])
        .ok();
    world
        .sbx(&["secret", "rm", "--placeholder", &placeholder, "-f"])
        .refused("no secret");
}

#[test]
fn logins_of_registries_are_stored_from_standard_input_and_removed() {
    let world = World::with_policy();
    let login = [
        "secret",
        "set",
        "--registry",
        "images.test:5000",
        "--username",
        "u",
        "--password-stdin",
    ];
    world
        .sbx_with_input(&login, "the-password-of-a-login\n")
        .ok();
    world.sbx_with_input(&login, "another").refused("already");
    let listed = world.sbx(&["secret", "ls"]).ok();
    assert!(
        listed.contains("(host)")
            && listed.contains("registry")
            && listed.contains("images.test:5000"),
        "{listed}"
    );
    assert!(!listed.contains("the-password"));
    world
        .sbx(&["secret", "rm", "--registry", "images.test:5000", "-f"])
        .ok();
}

#[test]
fn ways_to_give_a_value_exclude_each_other() {
    let world = World::with_policy();
    for arguments in [
        &[
            "set",
            "openai",
            "--command",
            "echo a",
            "--ref",
            "op://a/b/c",
        ][..],
        &["set", "openai", "--command", "echo a", "--token", "t"],
        &["set", "openai", "--ref", "op://a/b/c", "--token", "t"],
        &["set", "openai", "--refresh", "5m"],
        &["set", "openai", "--no-verify"],
        &[
            "set",
            "--registry",
            "a.test",
            "--username",
            "u",
            "--command",
            "echo a",
        ],
        &["set", "--registry", "a.test"],
        &["set", "openai", "--registry", "a.test", "--username", "u"],
        &[
            "set",
            "--registry",
            "a.test",
            "--username",
            "u",
            "--all-sandboxes",
            "--sandbox",
            "x",
        ],
        &[
            "set-custom",
            "--host",
            "a.test",
            "--value",
            "v",
            "--command",
            "echo a",
        ],
        &["set-custom", "--env", "A"],
        &["set", "aws", "--endpoint", "store.test"],
        &["set", "aws", "--endpoint", "store.test=s3"],
        &[
            "set",
            "--registry",
            "a.test",
            "--username",
            "u",
            "--endpoint",
            "store.test=s3/us-east-1",
        ],
        &["rm", "openai", "--all"],
        &["rm", "--all-sandboxes"],
    ] {
        let done = world.sbx(&[&["secret"], arguments].concat());
        assert_eq!(done.code, 2, "{arguments:?} {done:?}");
    }
    assert!(world.sbx(&["secret", "ls"]).ok().starts_with("No secrets"));
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            let path = entry.path();
            if path.is_dir() {
                files(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

/// Variables and arguments of every process of ours, as far as they can be read.
fn processes(home: &Path) -> Vec<(u32, Vec<u8>)> {
    let home = home.display().to_string();
    let numbers = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let texts = pids.map(|pid: u32| {
        let read = |name| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        (pid, [read("environ"), read("cmdline")].concat())
    });
    texts
        .filter(|(_, text)| text.windows(home.len()).any(|w| w == home.as_bytes()))
        .collect()
}

#[test]
fn attack_60_a_stored_value_is_in_nothing_that_we_print_log_record_or_leave_behind() {
    let world = World::with_policy();
    world.sbx(&["daemon", "stop"]).ok();
    world.plant("one");
    let mut printed = Vec::new();
    let mut say = |done: world::Done| printed.push((done.stdout, done.stderr));
    let input = format!("{KEY}\n");
    for arguments in [
        &["secret", "set", "anthropic"][..],
        // Mistakes whose texts could repeat it.
        &["secret", "set", "anthropic"],
        &["secret", "set", "no-such-service"],
        &["secret", "set-custom", "--host", "*", "--env", "A"],
    ] {
        say(world.sbx_with_input(arguments, &input));
    }
    let shown = world.sbx(&["secret", "set", "-f", "anthropic", "-t", KEY]);
    assert!(shown.stderr.contains("warning"), "{}", shown.stderr);
    say(shown);
    for arguments in [
        &["secret", "ls"][..],
        &["secret", "ls", "--json"],
        &["secret", "set", KEY],
        &["secret", "rm", KEY, "-f"],
        &["ls", "--json"],
        &["inspect", "one", "--json"],
        &["inspect", KEY],
        &["daemon", "status", "--json"],
        &["policy", "ls", "--json"],
        &["policy", "log", "--json"],
        &["settings", "list", "--json"],
        &["diagnose", "--json"],
    ] {
        let named = arguments.contains(&KEY);
        let done = world.sbx(arguments);
        // What somebody takes a key for, a name, may be repeated to him and to nobody else.
        if !named {
            say(done);
        }
    }
    for (stdout, stderr) in printed {
        assert!(!stdout.contains(KEY), "{stdout}");
        assert!(!stderr.contains(KEY), "{stderr}");
    }
    let pid = world.sbx(&["daemon", "status", "--json"]).json()["pid"].clone();
    let pid = u32::try_from(pid.as_u64().unwrap()).unwrap();
    let found = processes(&world.home());
    assert!(found.iter().any(|(other, _)| *other == pid), "{pid}");
    let holds = |bytes: &[u8]| bytes.windows(KEY.len()).any(|w| w == KEY.as_bytes());
    assert!(!found.iter().any(|(_, text)| holds(text)));

    // It ends as badly as a process can: nothing of its memory is written anywhere.
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core"));
    let core: Vec<&str> = core.unwrap().split_ascii_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{core:?}");
    let process = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::ABORT).unwrap();
    // Whoever has to take note of its end may be slow: then it has no command line any more.
    let runs = || std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|text| !text.is_empty());
    while runs() {
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
    for file in files(world.root.path()) {
        let content = std::fs::read(&file).unwrap_or_default();
        assert!(!holds(&content), "{}", file.display());
    }
}
