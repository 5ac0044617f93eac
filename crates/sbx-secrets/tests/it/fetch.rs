//! Commands that give values, for real; stand-ins of the password managers' clients where those are not at hand.

use sbx_secrets::{Failure, Origin, Recipe, Refresh, fetch};
use sbx_wire::secret::SecretText;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(20);

async fn run(line: &str, limit: Duration) -> Result<SecretText, Failure> {
    let recipe = Recipe {
        origin: Origin::of_command(line).unwrap(),
        refresh: Refresh::OnDemand,
    };
    fetch(&recipe, limit).await
}

async fn value(line: &str) -> String {
    run(line, LIMIT).await.unwrap().expose().to_owned()
}

#[tokio::test]
async fn a_command_gives_its_trimmed_output_and_runs_in_a_fresh_folder() {
    assert_eq!(
        value("echo; echo '  key of a command '; echo").await,
        "key of a command"
    );
    // As tools write it.
    assert_eq!(
        value("printf '{\n\t\"key\": \"of a command\"\n}\n'").await,
        "{  \"key\": \"of a command\" }"
    );
    let folders = [
        value("pwd; touch left-behind").await,
        value("pwd; ls").await,
    ];
    assert_ne!(folders[0], folders[1]);
    for folder in folders {
        assert!(!std::path::Path::new(&folder).exists(), "{folder} was left");
    }
}

#[tokio::test]
async fn attack_65_a_command_that_fails_hangs_or_says_too_much_gives_nothing_but_a_reason() {
    let failed = run("echo the-secret >&2; echo half; exit 3", LIMIT)
        .await
        .unwrap_err();
    assert_eq!(failed.sentence, "command: failed (exit status: 3)");
    assert_eq!(failed.error_output, "the-secret");
    for (line, why) in [
        ("true", "empty"),
        ("printf 'a\\nb'", "header"),
        ("printf '\\377\\376'", "empty"),
        ("yes", "64 KiB"),
        ("kill -9 $$", "signal"),
    ] {
        let failure = run(line, LIMIT).await.unwrap_err();
        assert!(failure.sentence.contains(why), "{line}: {failure:?}");
    }
    // Escapes of the terminal and floods are not passed on, not even to the user.
    let failure = run(
        "printf '\\033[31mred' >&2; yes | head -c 1000000 >&2; exit 1",
        LIMIT,
    );
    let shown = failure.await.unwrap_err().error_output;
    assert!(
        shown.len() <= 4096 && !shown.contains('\u{1b}'),
        "{}",
        shown.len()
    );

    let begun = Instant::now();
    let marker = tempfile::tempdir().unwrap();
    let file = marker.path().join("alive");
    let line = format!("(sleep 3; touch {}) & sleep 60", file.display());
    let failure = run(&line, Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(failure.sentence, "command: no value within 1 s");
    assert!(begun.elapsed() < Duration::from_secs(10));
    // What it started has ended with it.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(!file.exists());
}
