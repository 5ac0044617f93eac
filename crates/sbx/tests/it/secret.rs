//! `sbx secret` at the command line.

use crate::world::World;
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
