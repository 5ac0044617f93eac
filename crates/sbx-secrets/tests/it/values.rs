//! Values in memory, by a clock that the test moves.

use sbx_secrets::{
    Held, Key, Keychain, Kind, Origin, Person, Recipe, Refresh, Scope, Secret, SecretStore, Source,
    Trouble, Values,
};
use sbx_wire::secret::SecretText;
use std::fs;
use std::path::Path;
use std::time::Duration;

fn values() -> Values {
    Values::new(Keychain::new(|| {
        Err(Trouble::Absent("none here".to_owned()))
    }))
}

fn secret(line: &str, refresh: Refresh) -> Secret {
    Secret {
        key: Key {
            name: "custom:A".to_owned(),
            scope: Scope::Global,
        },
        kind: Kind::Service,
        source: Source::Recipe(Recipe {
            origin: Origin::of_command(line).unwrap(),
            refresh,
        }),
    }
}

fn value(text: &str) -> Held {
    Held::Value(SecretText::new(text.to_owned()))
}

/// A command that counts how often it ran, and fails while a file is there.
fn counting(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "echo >> {folder}/runs; sleep 0.2; test ! -e {folder}/fail && echo v-$(wc -l < {folder}/runs)"
    )
}

fn runs(folder: &Path) -> usize {
    let text = fs::read_to_string(folder.join("runs")).unwrap_or_default();
    text.lines().count()
}

#[tokio::test]
async fn a_value_is_used_for_its_time_and_attack_65_not_longer_whatever_the_next_fetch_gives() {
    let folder = tempfile::tempdir().unwrap();
    let secret = secret(&counting(folder.path()), Refresh::Every(60));
    let values = values();
    let Held::Unavailable(why) = values.held(&secret) else {
        panic!("a value that nobody fetched")
    };
    assert!(why.contains("not been read"), "{why}");
    assert!(values.due(&secret).unwrap() <= tokio::time::Instant::now());
    values.fetch(&secret, Person::Absent).await.unwrap();
    assert_eq!(values.held(&secret), value("v-1"));

    tokio::time::pause();
    let left = values.due(&secret).unwrap() - tokio::time::Instant::now();
    assert!(
        left > Duration::from_secs(50) && left < Duration::from_secs(55),
        "{left:?}"
    );
    tokio::time::advance(Duration::from_secs(57)).await;
    assert_eq!(values.held(&secret), value("v-1"));
    tokio::time::resume();
    fs::write(folder.path().join("fail"), "").unwrap();
    values.fetch(&secret, Person::Absent).await.unwrap_err();
    // What is there is used on for its time, and the next attempt waits a little.
    assert_eq!(values.held(&secret), value("v-1"));
    assert!(values.due(&secret).unwrap() > tokio::time::Instant::now());
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(5)).await;
    let Held::Unavailable(why) = values.held(&secret) else {
        panic!("a value whose time is over")
    };
    assert_eq!(why, "command: failed (exit status: 1)");
    tokio::time::resume();
    fs::remove_file(folder.path().join("fail")).unwrap();
    values.fetch(&secret, Person::Absent).await.unwrap();
    assert_eq!(values.held(&secret), value("v-3"));
}

#[tokio::test]
async fn one_fetch_at_a_time_serves_everybody_who_waits() {
    let folder = tempfile::tempdir().unwrap();
    let secret = secret(&counting(folder.path()), Refresh::OnDemand);
    let values = values();
    assert_eq!(values.held(&secret), Held::OnDemand);
    let (a, b, c) = tokio::join!(
        values.fetch(&secret, Person::Absent),
        values.fetch(&secret, Person::Absent),
        values.fetch(&secret, Person::Absent)
    );
    assert_eq!(a, b);
    assert_eq!(b, c);
    assert_eq!(runs(folder.path()), 1);
    // And the next one who needs it gets a new one.
    values.fetch(&secret, Person::Absent).await.unwrap();
    assert_eq!(runs(folder.path()), 2);
    assert_eq!(values.held(&secret), Held::OnDemand);
}

#[tokio::test]
async fn what_was_stored_anew_is_not_overwritten_by_an_older_fetch() {
    let folder = tempfile::tempdir().unwrap();
    let old = secret(&counting(folder.path()), Refresh::Every(60));
    let new = secret("echo new", Refresh::Every(60));
    let values = values();
    let (fetched, ()) = tokio::join!(values.fetch(&old, Person::Absent), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        values.forget(&old.key);
        values.note(&new, SecretText::new("new".to_owned()));
    });
    fetched.unwrap();
    assert_eq!(values.held(&new), value("new"));
}

struct Hangs;

impl SecretStore for Hangs {
    fn is_locked(&self) -> Result<bool, Trouble> {
        std::thread::park_timeout(Duration::from_hours(1));
        Ok(false)
    }
    fn get(&self, _: &str) -> Result<SecretText, Trouble> {
        Err(Trouble::NoEntry)
    }
    fn set(&self, _: &str, _: &str, _: &SecretText) -> Result<(), Trouble> {
        Err(Trouble::NoEntry)
    }
    fn remove(&self, _: &str) -> Result<(), Trouble> {
        Err(Trouble::NoEntry)
    }
}

#[tokio::test]
async fn a_keychain_that_hangs_costs_two_seconds_and_a_few_threads() {
    let keychain = Keychain::new(|| Ok(Box::new(Hangs)));
    let begun = std::time::Instant::now();
    let calls = (0..4).map(|_| {
        let keychain = keychain.clone();
        tokio::spawn(async move { keychain.get("x", Person::Absent).await })
    });
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap(), Err(Trouble::Silent));
    }
    let waited = begun.elapsed();
    assert!(
        waited > Duration::from_millis(1900) && waited < Duration::from_secs(4),
        "{waited:?}"
    );
    // No thread more for a keychain that does not answer.
    let begun = std::time::Instant::now();
    assert_eq!(keychain.probe().await, Err(Trouble::Silent));
    assert!(begun.elapsed() < Duration::from_secs(1));
}
