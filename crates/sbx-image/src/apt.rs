//! The Debian archive that the machine itself uses, from its apt configuration: one-line lists and deb822
//! files (sources.list(5)).

use crate::request::{AptSources, clean_uri};
use crate::{ImageError, recipe, run};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Releases whose names we know, so that a machine of another distribution with a Debian entry works too.
const RELEASES: [&str; 6] = ["bullseye", "bookworm", "trixie", "forky", "duke", "sid"];
/// Suites that name a release by its state.
const STATES: [&str; 5] = ["oldoldstable", "oldstable", "stable", "testing", "unstable"];
/// Either file holds the keys of the archive.
pub(crate) const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];
/// A sources file larger than this is not one, bytes.
const MAX_BYTES: u64 = 1 << 20;

/// One combination of an address with suites and components.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    uri: String,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: String,
}

/// Reads the configuration below `etc_apt` (normally `/etc/apt`). `None`: no Debian archive among it.
pub fn detect(etc_apt: &Path) -> Option<AptSources> {
    let mut entries = Vec::new();
    read(&etc_apt.join("sources.list"), &mut entries);
    let mut parts: Vec<_> = fs::read_dir(etc_apt.join("sources.list.d"))
        .map(|dir| dir.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    parts.sort();
    for part in &parts {
        read(part, &mut entries);
    }
    let found = choose(&entries)?;
    Some(AptSources {
        keyrings: keyrings(&found.keyrings, &|path| Path::new(path).is_file()),
        ..found
    })
}

/// What the archive's releases have to be signed with: keyrings that the machine's apt `named` for it, and Debian's own.
pub(crate) fn keyrings(named: &[String], is_there: &dyn Fn(&str) -> bool) -> Vec<String> {
    let own = KEYRINGS.into_iter().find(|path| is_there(path));
    let mut all: Vec<String> = Vec::new();
    for path in named.iter().map(String::as_str).chain(own) {
        // Other characters would end the word in a sources list, or the option.
        let fits = |c: char| c.is_ascii_alphanumeric() || "/-._+~".contains(c);
        let plain = path.starts_with('/') && path.chars().all(fits);
        if plain && is_there(path) && !all.iter().any(|known| known == path) {
            all.push(path.to_owned());
        }
    }
    all
}

/// The archive as lines of a sources list, one for each suite of the sandboxes' release. Signatures of other keys count
/// nothing, whatever else the machine's apt trusts.
pub fn lines(archive: &AptSources) -> Vec<String> {
    let signed_by = match archive.keyrings.as_slice() {
        [] => String::new(),
        some => format!("[signed-by={}] ", some.join(",")),
    };
    let line = |uri: &str, suite: String| format!("deb {signed_by}{uri} {suite} main");
    suites(archive)
        .into_iter()
        .flat_map(|(uri, suites)| {
            suites
                .into_iter()
                .map(|suite| line(uri, suite))
                .collect::<Vec<_>>()
        })
        .collect()
}

pub(crate) fn suites(archive: &AptSources) -> Vec<(&str, Vec<String>)> {
    let suite = recipe::SUITE;
    let mut all = vec![(
        archive.main.as_str(),
        vec![suite.to_owned(), format!("{suite}-updates")],
    )];
    all.extend(
        archive
            .security
            .as_deref()
            .map(|uri| (uri, vec![format!("{suite}-security")])),
    );
    all
}

/// How the host's apt reaches the archive, e.g. a proxy, as text of an apt.conf(5) for mmdebstrap, which does not look
/// there. It may hold a password: nothing for a command line, which everybody can read, or for an image.
///
/// # Errors
/// When apt's configuration cannot be read.
pub fn options() -> Result<String, ImageError> {
    let mut dump = run::command("apt-config");
    let text = run::output(dump.args(["dump"]), "reading apt's configuration")?;
    let wanted = ["Acquire::http::", "Acquire::https::", "Acquire::Retries"];
    Ok(text
        .lines()
        .filter(|line| wanted.iter().any(|prefix| line.starts_with(prefix)))
        .filter(|line| line.ends_with("\";") && !line.ends_with(" \"\";"))
        .flat_map(|line| [line, "\n"])
        .collect())
}

fn read(path: &Path, entries: &mut Vec<Entry>) {
    if !path
        .metadata()
        .is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_BYTES)
    {
        return;
    }
    let Ok(text) = fs::read_to_string(path) else {
        return;
    };
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("sources") => entries.extend(parse_deb822(&text)),
        Some("list") => entries.extend(text.lines().filter_map(parse_line)),
        _ => {}
    }
}

/// `deb [option=value …] URI suite component…`.
fn parse_line(line: &str) -> Option<Entry> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let mut rest = line
        .strip_prefix("deb")?
        .strip_prefix([' ', '\t'])?
        .trim_start();
    let mut signed_by = String::new();
    if let Some(options) = rest.strip_prefix('[') {
        let (options, after) = options.split_once(']')?;
        signed_by = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .unwrap_or_default()
            .to_owned();
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Entry {
        uri: clean_uri(&words.next()?)?,
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by,
    })
}

fn parse_deb822(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut stanza = BTreeMap::new();
    let mut field = String::new();
    for line in text.lines().chain([""]) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            entries.extend(from_stanza(&stanza));
            stanza.clear();
        } else if line.starts_with([' ', '\t']) {
            let value: &mut String = stanza.entry(field.clone()).or_default();
            value.push(' ');
            value.push_str(line.trim());
        } else if let Some((name, value)) = line.split_once(':') {
            field = name.trim().to_ascii_lowercase();
            stanza.insert(field.clone(), value.trim().to_owned());
        }
    }
    entries
}

fn from_stanza(stanza: &BTreeMap<String, String>) -> Vec<Entry> {
    let words = |name: &str| -> Vec<String> {
        let value = stanza.get(name).map_or("", String::as_str);
        value.split_whitespace().map(str::to_owned).collect()
    };
    let disabled = stanza.get("enabled").is_some_and(|value| {
        matches!(
            value.to_ascii_lowercase().as_str(),
            "no" | "false" | "without" | "off" | "disable"
        )
    });
    if disabled || !words("types").iter().any(|kind| kind == "deb") {
        return Vec::new();
    }
    let entry = |uri: &String| {
        Some(Entry {
            uri: clean_uri(uri)?,
            suites: words("suites"),
            components: words("components"),
            signed_by: stanza.get("signed-by").cloned().unwrap_or_default(),
        })
    };
    words("uris").iter().filter_map(entry).collect()
}

/// Third parties also publish `bookworm main`, so each entry is weighed by what only the archive itself has.
fn choose(entries: &[Entry]) -> Option<AptSources> {
    let has_updates = |entry: &Entry| {
        let same = entries.iter().filter(|other| other.uri == entry.uri);
        same.flat_map(|other| &other.suites)
            .any(|suite| release(suite).is_some_and(|(_, rest)| rest == "-updates"))
    };
    let weigh = |entry: &Entry| -> u32 {
        let updates = has_updates(entry);
        let signed = entry.signed_by.contains("debian-archive-keyring");
        let path = entry.uri.ends_with("/debian");
        let named = entry
            .suites
            .iter()
            .any(|suite| RELEASES.contains(&suite.as_str()));
        u32::from(updates) * 4 + u32::from(signed) * 4 + u32::from(path) * 2 + u32::from(named)
    };
    let has = |entry: &&Entry, endings: &[&str]| {
        entry.components.iter().any(|component| component == "main")
            && entry
                .suites
                .iter()
                .any(|suite| release(suite).is_some_and(|(_, rest)| endings.contains(&rest)))
    };
    // `max_by_key` prefers the last of equals; the first is the one that apt prefers.
    let main = entries
        .iter()
        .rev()
        .filter(|entry| has(entry, &["", "-updates"]) && weigh(entry) >= 2)
        .max_by_key(|entry| weigh(entry))?;
    let security = entries
        .iter()
        .find(|entry| has(entry, &["-security", "/updates"]));
    // Keys that are not Debian's are believed for a whole mirror of the archive only: the suite of a third party may look
    // like the archive's, and its key would then sign for all of Debian.
    let believed = Some(main).filter(|main| has_updates(main));
    let named = believed
        .into_iter()
        .chain(security.filter(|_| believed.is_some()));
    let keyrings = named
        .flat_map(|entry| {
            entry
                .signed_by
                .split(|c: char| c == ',' || c.is_whitespace())
        })
        .map(|path| path.trim_matches('"').to_owned());
    Some(AptSources {
        main: main.uri.clone(),
        security: security.map(|entry| entry.uri.clone()),
        keyrings: keyrings.collect(),
    })
}

/// Splits a suite into a Debian release and what follows, e.g. `bookworm` and `-security`.
fn release(suite: &str) -> Option<(&str, &str)> {
    let end = suite.find(['-', '/']).unwrap_or(suite.len());
    let (name, rest) = suite.split_at(end);
    (RELEASES.contains(&name) || STATES.contains(&name)).then_some((name, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Option<AptSources> {
        choose(&text.lines().filter_map(parse_line).collect::<Vec<_>>())
    }

    #[test]
    fn one_line_list_gives_main_and_security() {
        let found = list(
            "# deb http://old.example/debian bookworm main\n\
             deb-src http://src.example/debian bookworm main\n\
             deb [arch=amd64 signed-by=/k] http://third.example/tool bookworm main\n\
             deb http://near.example/debian/ bookworm main contrib # close\n\
             deb http://near.example/debian bookworm-updates main\n\
             deb http://near.example/debian-security bookworm-security main\n",
        )
        .unwrap();
        assert_eq!(found.main, "http://near.example/debian");
        assert_eq!(
            found.security.as_deref(),
            Some("http://near.example/debian-security")
        );
    }

    #[test]
    fn deb822_stanzas_are_read_and_disabled_ones_are_not() {
        let text = "Types: deb\n# a comment\nURIs: http://off.example/debian\nSuites: bookworm\n\
                    Components: main\nEnabled: no\n\n\
                    Types: deb deb-src\nURIs: https://u:p@on.example/debian\nSuites: bookworm\n\
                    \x20bookworm-updates\nComponents: main\n\
                    Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
        let found = choose(&parse_deb822(text)).unwrap();
        assert_eq!(found.main, "https://on.example/debian");
        assert_eq!(found.security, None);
    }

    #[test]
    fn third_party_with_main_component_is_not_taken_for_the_archive() {
        assert_eq!(
            list("deb http://dl.example/chrome/deb/ stable main\n"),
            None
        );
        let found = list(
            "deb http://packages.example/runner/debian bookworm main\n\
             deb http://near.example/debian bookworm main\n\
             deb http://near.example/debian bookworm-updates main\n",
        );
        assert_eq!(found.unwrap().main, "http://near.example/debian");
    }

    #[test]
    fn machine_of_another_distribution_has_none() {
        assert_eq!(
            list("deb http://archive.example/ubuntu noble main universe\n"),
            None
        );
        assert_eq!(detect(Path::new("/nonexistent")), None);
    }

    #[test]
    fn every_suite_gets_a_line_of_its_own() {
        let archive =
            AptSources::new("http://a.example/debian", Some("http://a.example/security")).unwrap();
        assert_eq!(
            lines(&archive),
            [
                "deb http://a.example/debian trixie main",
                "deb http://a.example/debian trixie-updates main",
                "deb http://a.example/security trixie-security main",
            ]
        );
    }

    #[test]
    fn keys_are_those_that_the_machine_names_for_the_archive_and_debians_own() {
        let found = list(
            "deb [signed-by=/k/ours.gpg,/k/gone.gpg] http://near.example/debian bookworm main\n\
             deb http://near.example/debian bookworm-updates main\n\
             deb [ arch=amd64 signed-by=\"/k/sec.gpg\" ] http://near.example/security bookworm-security main\n",
        );
        let archive = found.unwrap();
        let there = |path: &str| !path.contains("gone") && path != KEYRINGS[0];
        let archive = AptSources {
            keyrings: keyrings(&archive.keyrings, &there),
            ..archive
        };
        let signed_by = format!("[signed-by=/k/ours.gpg,/k/sec.gpg,{}]", KEYRINGS[1]);
        let lines = lines(&archive);
        assert_eq!(lines.len(), 3);
        for line in lines {
            assert!(
                line.starts_with(&format!("deb {signed_by} http://near.example/")),
                "{line}"
            );
        }
        let debian = [KEYRINGS[0].to_owned()];
        assert_eq!(keyrings(&debian, &|_| true), debian);
        assert_eq!(keyrings(&[], &|_| true), debian);
        assert_eq!(keyrings(&debian, &|_| false), Vec::<String>::new());
    }

    #[test]
    fn key_of_a_third_party_and_what_is_no_plain_path_are_not_believed() {
        let found = list(
            "deb [signed-by=/k/runner.gpg] http://packages.example/runner/debian bookworm main\n",
        );
        assert_eq!(found.unwrap().keyrings, Vec::<String>::new());
        let text = "Types: deb\nURIs: http://near.example/debian\nSuites: bookworm bookworm-updates\n\
                    Components: main\nSigned-By:\n\x20-----BEGIN PGP PUBLIC KEY BLOCK-----\n\x20/x]y\n";
        let found = choose(&parse_deb822(text)).unwrap();
        assert!(!found.keyrings.is_empty());
        assert_eq!(
            keyrings(&found.keyrings, &|path| !KEYRINGS.contains(&path)),
            Vec::<String>::new()
        );
    }
}
