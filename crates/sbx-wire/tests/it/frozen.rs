//! Comparing a table of messages with the lines of a fixture.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

/// A message of a table, with the name of its line.
pub(crate) type Row<T> = (&'static str, T);

/// The lines of a fixture, by name.
fn lines(file: &str) -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<(String, String)> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once(' ').unwrap())
        .map(|(name, rest)| (name.to_owned(), rest.to_owned()))
        .collect();
    let count = lines.len();
    let lines: BTreeMap<_, _> = lines.into_iter().collect();
    assert_eq!(lines.len(), count, "a name stands twice in {file}");
    lines
}

/// Asserts that each message is encoded as it was frozen, that the frozen text is read as that message, and that no
/// line was left out. `prefix`: the part of the fixture that this table is about.
#[track_caller]
fn compare<T: Debug>(
    file: &str,
    prefix: &str,
    table: &[Row<T>],
    encode: impl Fn(&T) -> String,
    decode: impl Fn(&str) -> T,
) {
    let frozen = lines(file);
    let of_prefix = |name: &&String| name.starts_with(prefix);
    let mut missing = String::new();
    for (name, message) in table {
        let name = format!("{prefix}{name}");
        let now = encode(message);
        let Some(before) = frozen.get(&name) else {
            missing.push_str(&format!("{name} {now}\n"));
            continue;
        };
        assert_eq!(&now, before, "{file}: {name} is encoded in another way");
        let read = decode(before);
        assert_eq!(
            format!("{read:?}"),
            format!("{message:?}"),
            "{file}: {name} is read as something else"
        );
        assert_eq!(&encode(&read), before, "{file}: {name} does not survive");
    }
    assert!(
        missing.is_empty(),
        "{file} lacks lines for new messages:\n{missing}"
    );
    let named: Vec<String> = table.iter().map(|(n, _)| format!("{prefix}{n}")).collect();
    for name in frozen.keys().filter(of_prefix) {
        assert!(named.contains(name), "{file}: no message {name} any more");
    }
}

/// For postcard messages: the fixture holds hexadecimal digits.
#[track_caller]
pub(crate) fn bytes<T: Serialize + DeserializeOwned + Debug>(
    file: &str,
    prefix: &str,
    table: &[Row<T>],
) {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    compare(
        file,
        prefix,
        table,
        |message| hex(&postcard::to_stdvec(message).unwrap()),
        |text| {
            let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
            let bytes: Vec<u8> = (0..text.len()).step_by(2).map(digits).collect();
            postcard::from_bytes(&bytes).unwrap()
        },
    );
}

/// For JSON documents.
#[track_caller]
pub(crate) fn json<T: Serialize + DeserializeOwned + Debug>(
    file: &str,
    prefix: &str,
    table: &[Row<T>],
) {
    compare(
        file,
        prefix,
        table,
        |message| serde_json::to_string(message).unwrap(),
        |text| serde_json::from_str(text).unwrap(),
    );
}
