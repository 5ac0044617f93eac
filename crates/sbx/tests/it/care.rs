//! `sbx diagnose`, `prune` and `reset`: with a daemon, without one, and with one that cannot start.

use crate::terminal::at_terminal;
use crate::world::World;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

const ID: &str = "00000000000a";

/// A home with a daemon that has been stopped again, and a stopped sandbox.
fn settled() -> World {
    let world = World::with_policy();
    world.plant("planted");
    world.sbx(&["daemon", "stop"]).ok();
    world
}

fn state(world: &World) -> PathBuf {
    world.home().join("state")
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let found = report["checks"].as_array().unwrap();
    found
        .iter()
        .find(|check| check["name"] == name)
        .unwrap_or_else(|| panic!("no check {name} in {report:#}"))
}

fn diagnose(world: &World, arguments: &[&str]) -> (i32, Value) {
    let mut all = vec!["diagnose", "--json"];
    all.extend(arguments);
    let done = world.sbx(&all);
    let report: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{done:?}"));
    let counted: u64 = ["pass", "warn", "fail", "skip"]
        .iter()
        .map(|word| report["summary"][word].as_u64().unwrap())
        .sum();
    assert_eq!(counted, report["checks"].as_array().unwrap().len() as u64);
    assert_eq!(report["version"], "1.0");
    assert_eq!(done.code == 0, report["summary"]["fail"] == 0, "{report:#}");
    (done.code, report)
}

#[test]
fn diagnose_looks_at_every_group_without_starting_a_daemon() {
    let world = settled();
    let (_, report) = diagnose(&world, &[]);
    for group in ["Installation", "Platform", "Storage", "Connection"] {
        let of_group = |check: &&Value| check["group"] == group;
        let count = report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(of_group)
            .count();
        assert!(count > 0, "{group}: {report:#}");
    }
    for name in [
        "seccomp",
        "memory",
        "clock",
        "folders",
        "runtime-folder",
        "database",
        "processes",
    ] {
        assert_eq!(check(&report, name)["status"], "pass", "{report:#}");
    }
    assert_eq!(check(&report, "daemon")["status"], "skip");
    assert_eq!(world.sbx(&["daemon", "status"]).code, 1);
    // A planted sandbox has no disks.
    let found = check(&report, "sandbox:planted");
    assert_eq!(found["status"], "fail");
    assert!(found["message"].as_str().unwrap().contains("upper.qcow2"));
    assert!(found["hint"].is_string());
    // Beside a daemon, and as texts.
    world.sbx(&["ls"]).ok();
    let (_, report) = diagnose(&world, &[]);
    assert_eq!(check(&report, "daemon")["status"], "pass");
    let people = world.sbx(&["diagnose"]);
    assert!(people.stdout.contains("Storage\n"), "{people:?}");
    assert!(
        people.stdout.contains("  fail  sandbox:planted"),
        "{people:?}"
    );
    let issue = world.sbx(&["diagnose", "-o", "github-issue"]).stdout;
    assert!(issue.starts_with("### sbx diagnose\n"), "{issue}");
    assert!(
        !issue.contains(world.root.path().to_str().unwrap()),
        "{issue}"
    );
    assert_eq!(world.sbx(&["diagnose", "--upload"]).code, 2);
}

#[test]
fn what_is_broken_is_named_and_mended_only_when_asked() {
    let world = settled();
    let database = state(&world).join("sbx.db");
    fs::write(&database, vec![0x55; 9000]).unwrap();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(state(&world), open).unwrap();
    let half = state(&world).join("sandboxes/.removing-00000000000b");
    fs::create_dir(&half).unwrap();
    let (code, report) = diagnose(&world, &[]);
    assert_eq!(code, 1);
    assert_eq!(check(&report, "database")["status"], "fail");
    assert_eq!(check(&report, "folders")["status"], "warn");
    assert_eq!(check(&report, "leftovers")["status"], "warn");
    let repairs = report["repairs"].as_array().unwrap();
    assert!(repairs.len() >= 3 && repairs.iter().all(|repair| repair["done"] == false));
    assert_eq!(fs::read(&database).unwrap(), vec![0x55; 9000]);
    assert!(half.exists());

    let (_, report) = diagnose(&world, &["--repair"]);
    assert_eq!(check(&report, "database")["status"], "pass");
    assert_eq!(check(&report, "folders")["status"], "pass");
    assert_eq!(check(&report, "leftovers")["status"], "pass");
    let repairs = report["repairs"].as_array().unwrap();
    assert!(
        repairs.iter().all(|repair| repair["done"] == true),
        "{report:#}"
    );
    assert_eq!(world.sbx(&["ls", "-q"]).ok(), "planted\n");
    let (_, again) = diagnose(&world, &[]);
    assert_eq!(again["repairs"], json!([]));
}

#[test]
fn a_state_of_a_newer_version_is_made_usable_by_repair_and_kept_aside() {
    let world = settled();
    let database = state(&world).join("sbx.db");
    let mut bytes = fs::read(&database).unwrap();
    bytes[60..64].copy_from_slice(&99_u32.to_be_bytes()); // user_version (SQLite file format, 1.3)
    fs::write(&database, &bytes).unwrap();
    let policy = state(&world).join("policy.json");
    let text = fs::read_to_string(&policy).unwrap();
    fs::write(&policy, text.replacen('{', "{\"newer\": 1,", 1)).unwrap();
    world.sbx(&["ls"]).refused("newer sbx");
    let (_, report) = diagnose(&world, &["--repair"]);
    assert_eq!(check(&report, "database")["status"], "pass", "{report:#}");
    assert_eq!(world.sbx(&["ls", "-q"]).ok(), "planted\n");
    // Fail closed: nothing is allowed until a policy is chosen again.
    let listed = world.sbx(&["policy", "ls"]);
    assert!(!listed.stdout.contains("allow"), "{listed:?}");
    let kept: Vec<_> = fs::read_dir(state(&world))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(".newer-"))
        .collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
}

/// Plants a sandbox like the planted one, which stopped at a time.
fn plant_another(world: &World, id: &str, name: &str, stopped_s: Option<u64>) {
    let from = state(world).join("sandboxes").join(ID);
    let to = state(world).join("sandboxes").join(id);
    fs::create_dir(&to).unwrap();
    let text = fs::read_to_string(from.join("sandbox.json")).unwrap();
    let text = text.replace(ID, id).replace("planted", name);
    fs::write(to.join("sandbox.json"), text).unwrap();
    if let Some(seconds) = stopped_s {
        fs::write(to.join("last-exit"), "stopped\n").unwrap();
        let file = fs::File::options().write(true).open(to.join("last-exit"));
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        file.unwrap().set_modified(at).unwrap();
    }
}

#[test]
fn prune_removes_what_stopped_before_a_time_and_never_what_it_does_not_know() {
    let world = World::with_policy();
    world.plant("planted");
    let plant = |id, name, stopped_s| plant_another(&world, id, name, stopped_s);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap().as_secs();
    plant("00000000000b", "old", Some(now - 20 * 86_400));
    plant("00000000000c", "new", Some(now - 60));
    plant("00000000000d", "ahead", Some(now + 900 * 86_400));
    plant("00000000000e", "broken", Some(now - 20 * 86_400));
    let document = state(&world).join("sandboxes/00000000000e/sandbox.json");
    fs::write(document, "{\"name\": \"broken\"").unwrap();
    world.sbx(&["daemon", "restart"]).ok();

    let until = &["prune", "--dry-run", "--filter", "until=168h", "--json"];
    let report = world.sbx(until).json();
    let rows = report["would_remove"].as_array().unwrap();
    assert_eq!(rows.len(), 1, "{report:#}");
    assert_eq!(
        (&rows[0]["name"], &rows[0]["agent"], &rows[0]["workspaces"]),
        (&json!("old"), &json!("shell"), &json!([]))
    );
    assert!(rows[0]["stopped_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(report["skipped_unknown_stop"], json!(["planted"]));
    assert_eq!(report["skipped_damaged"].as_array().unwrap().len(), 1);
    assert_eq!(world.sandbox_dirs().len(), 5);

    world
        .sbx(&["prune", "--filter", "until=168h"])
        .refused("needs a confirmation");
    assert_eq!(world.sandbox_dirs().len(), 5);
    let done = world.sbx(&["prune", "-f", "--filter", "since=168h"]);
    assert_eq!(done.stdout, "Removed old\n", "{done:?}");
    assert!(done.stderr.contains("planted"), "{done:?}");
    let done = world.sbx(&["prune", "-f", "--json"]).json();
    assert_eq!(done["removed"].as_array().unwrap().len(), 3, "{done:#}");
    // The damaged one is what is left.
    assert_eq!(world.sandbox_dirs().len(), 1);
    assert_eq!(world.sbx(&["prune", "--filter", "until=soon"]).code, 2);
}

#[test]
fn prune_of_images_keeps_what_sandboxes_lie_on_and_removes_the_rest() {
    let world = World::with_policy();
    let images = world.home().join("cache/images");
    for key in ["shell-unused", "base-unused"] {
        fs::create_dir_all(images.join(key)).unwrap();
    }
    let snapshot = world.home().join("cache/snapshots/some-key");
    fs::create_dir_all(&snapshot).unwrap();
    let would = world
        .sbx(&["prune", "--images", "--dry-run", "--json"])
        .json();
    assert_eq!(would["images"], json!(["base-unused", "shell-unused"]));
    assert_eq!(would["snapshots"], json!(["some-key"]));
    assert!(snapshot.exists());
    // Also where no sandbox is to be removed, nothing goes unasked.
    for arguments in [&["prune", "--images"][..], &["prune", "--images", "--json"]] {
        world.sbx(arguments).refused("needs a confirmation");
    }
    let (code, text) = at_terminal(&world, &["prune", "--images"]);
    let question = "Remove the images and snapshots that no sandbox needs? [y/N]";
    assert!(text.contains(question), "{text}");
    assert_eq!(code, Some(1), "silence was taken for a yes");
    assert!(images.join("base-unused").exists() && snapshot.exists());
    let done = world.sbx(&["prune", "--images", "-f"]).ok();
    assert!(done.contains("Removed image base-unused"), "{done}");
    assert!(!images.join("base-unused").exists() && !snapshot.exists());
    // With nothing to remove there is nothing to ask.
    world.sbx(&["prune", "--images"]).ok();
    // A sandbox whose image is not whole: nobody knows what that lies on.
    world.plant("planted");
    world.sbx(&["daemon", "restart"]).ok();
    fs::create_dir_all(images.join("base-1")).unwrap();
    world
        .sbx(&["prune", "--images", "--dry-run"])
        .refused("base-0");
    assert!(images.join("base-1").exists());
}

#[test]
fn what_prune_removed_is_told_although_images_could_not_be_removed() {
    let world = settled();
    plant_another(&world, "00000000000b", "old", Some(86_400));
    // The old one goes. Nobody knows what the other one lies on.
    fs::create_dir_all(world.home().join("cache/images/base-1")).unwrap();
    let done = world.sbx(&[
        "prune",
        "--filter",
        "until=168h",
        "--images",
        "--force",
        "--json",
    ]);
    assert_eq!(done.code, 1, "{done:?}");
    let report: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{done:?}"));
    assert_eq!(report["removed"][0]["name"], "old", "{report:#}");
    assert!(report["images_error"]["message"].is_string(), "{report:#}");
    assert!(done.stderr.contains("error: "), "{done:?}");
}

#[test]
fn reset_removes_everything_but_what_it_is_told_to_keep() {
    let world = settled();
    let secret = world.sbx_with_input(
        &["secret", "set", "anthropic"],
        "sk-ant-kept-value-of-the-test",
    );
    secret.ok();
    let workspace = world.folder("work");
    fs::write(workspace.join("mine"), "x").unwrap();
    fs::write(world.home().join("config/mine"), "x").unwrap();
    world.sbx(&["reset"]).refused("needs a confirmation");
    assert_eq!(world.sbx(&["ls", "-q"]).ok(), "planted\n");

    let done = world.sbx(&["reset", "-f", "--preserve-secrets"]).ok();
    assert!(
        done.contains("Removed planted\n") && done.ends_with("Reset done\n"),
        "{done}"
    );
    assert_eq!(world.sbx(&["daemon", "status"]).code, 1);
    let mut left: Vec<_> = fs::read_dir(state(&world))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["daemon.lock", "secrets"]);
    assert_eq!(fs::read_dir(world.home().join("cache")).unwrap().count(), 0);
    assert!(workspace.join("mine").exists() && world.home().join("config/mine").exists());
    assert_eq!(world.sbx(&["ls", "-q"]).ok(), "");
    assert!(world.sbx(&["secret", "ls"]).ok().contains("anthropic"));
    world
        .sbx(&["create", "shell", "/tmp"])
        .refused("policy has not been initialized");

    // With a state that no daemon can start on.
    let database = state(&world).join("sbx.db");
    world.sbx(&["daemon", "stop"]).ok();
    fs::remove_file(&database).unwrap();
    fs::create_dir(&database).unwrap();
    assert_eq!(world.sbx(&["ls"]).code, 1);
    world.sbx(&["reset", "--force"]).ok();
    assert!(!world.sbx(&["secret", "ls"]).ok().contains("anthropic"));
    // Nothing there: nothing to do.
    world.sbx(&["reset", "--force"]).ok();
}
