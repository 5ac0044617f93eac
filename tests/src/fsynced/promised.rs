//! What has to be in the workspace, as it lies on the host, after what the writers said.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// As in `writer.py`.
const SLOTS: u64 = 8;
const SLOT: usize = 8192;
const KEPT: u64 = 20;
/// Names of ours begin so.
const OURS: &str = ".sbx-";

/// What one side said.
#[derive(Debug, Default)]
pub(super) struct Promised {
    side: &'static str,
    /// The highest number of `log`, `doc`, `both`, `slot`, `config`.
    latest: BTreeMap<String, u64>,
    new: BTreeSet<u64>,
    gone: BTreeSet<u64>,
    slots: BTreeMap<u64, u64>,
    commits: Vec<String>,
    /// What its writer could not do.
    failed: Option<String>,
    /// Lines.
    pub(super) said: u64,
}

fn record(name: &str, number: u64) -> Vec<u8> {
    let fill = "x".repeat(usize::try_from(number * 613 % 5000).unwrap_or_default());
    format!("{name} {number} {fill} {number}\n").into_bytes()
}

/// `name` and `number` of a whole record.
fn parse(content: &[u8]) -> Option<(&str, u64)> {
    let mut words = std::str::from_utf8(content).ok()?.split(' ');
    let (name, number) = (words.next()?, words.next()?.parse().ok()?);
    (record(name, number) == content).then_some((name, number))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The beginning of a content that is not as it should be.
fn shown(content: &[u8]) -> String {
    let (from, length) = (&content[..content.len().min(60)], content.len());
    format!("{length} bytes, {:?}…", String::from_utf8_lossy(from))
}

impl Promised {
    pub(super) fn of(side: &'static str) -> Self {
        Self {
            side,
            ..Self::default()
        }
    }

    /// Commits that succeeded.
    pub(super) fn commits(&self) -> &[String] {
        &self.commits
    }

    /// The number of the latest record that was said to be safe.
    pub(super) fn records(&self) -> u64 {
        self.latest("log")
    }

    /// Notes what was said.
    pub(super) fn hear(&mut self, lines: &[String]) {
        for line in lines {
            self.said += 1;
            let Some((what, rest)) = line.split_once(' ') else {
                continue;
            };
            if what == "commit" {
                self.commits.push(rest.to_owned());
                continue;
            }
            if what == "failed" {
                self.failed = Some(rest.to_owned());
            }
            let Ok(number) = rest.parse() else {
                continue;
            };
            self.latest.insert(what.to_owned(), number);
            match what {
                "new" => {
                    self.new.insert(number);
                }
                "gone" => {
                    self.new.remove(&number);
                    self.gone.insert(number);
                }
                "slot" => {
                    self.slots.insert(number % SLOTS, number);
                }
                _ => {}
            }
        }
    }

    fn latest(&self, what: &str) -> u64 {
        self.latest.get(what).copied().unwrap_or_default()
    }

    /// Looks at everything that this side said.
    pub(super) fn check(&self, workspace: &Path) -> Result<(), String> {
        if let Some(why) = &self.failed {
            return Err(format!("the writer of {} failed: {why}", self.side));
        }
        let done = self.log(workspace)?;
        self.replaced(workspace, &format!("doc-{}", self.side))?;
        self.files(workspace, done)?;
        self.in_place(workspace, done)
    }

    /// Every record in order, and perhaps the beginning of one more. Returns the number of the last whole one.
    fn log(&self, workspace: &Path) -> Result<u64, String> {
        let name = format!("log-{}", self.side);
        let path = workspace.join(&name);
        if self.latest("log") == 0 && !path.exists() {
            return Ok(0);
        }
        let (content, mut at, mut number) = (read(&path)?, 0, 0);
        loop {
            let next = record(&name, number + 1);
            let rest = &content[at..];
            if !rest.starts_with(&next) {
                let said = self.latest("log");
                if number < said || !next.starts_with(rest) {
                    return Err(format!(
                        "{name}: {said} records were safe; at byte {at} {} in the place of record {}",
                        shown(rest),
                        number + 1
                    ));
                }
                return Ok(number);
            }
            at += next.len();
            number += 1;
        }
    }

    /// The old content or the new one.
    fn replaced(&self, workspace: &Path, name: &str) -> Result<(), String> {
        let (said, path) = (self.latest("doc"), workspace.join(name));
        if said == 0 && !path.exists() {
            return Ok(());
        }
        let content = read(&path)?;
        let writer = format!("{name}-{}", self.side);
        match parse(&content) {
            Some((who, number)) if who == writer && number >= said => Ok(()),
            _ => Err(format!(
                "{name}: {said} was safe, it has {}",
                shown(&content)
            )),
        }
    }

    fn files(&self, workspace: &Path, done: u64) -> Result<(), String> {
        for number in &self.new {
            let name = format!("new/{}-{number}", self.side);
            let path = workspace.join(&name);
            // Its removal may have begun.
            if number + KEPT <= done && !path.exists() {
                continue;
            }
            let content = read(&path)?;
            if content != record("new", *number) {
                return Err(format!("{name} was safe, it has {}", shown(&content)));
            }
        }
        let back = self.gone.iter().find(|number| {
            let name = format!("new/{}-{number}", self.side);
            workspace.join(name).exists()
        });
        back.map_or(Ok(()), |number| {
            Err(format!("new/{}-{number} was gone and is back", self.side))
        })
    }

    /// Of the slot that is being written nothing is known.
    fn in_place(&self, workspace: &Path, done: u64) -> Result<(), String> {
        let name = format!("slots-{}", self.side);
        for (slot, said) in &self.slots {
            if done % SLOTS == *slot && done > *said {
                continue;
            }
            let content = read(&workspace.join(&name))?;
            let at = usize::try_from(*slot).unwrap_or_default() * SLOT;
            let piece = content.get(at..at + SLOT).unwrap_or_default();
            let mut later = (*said..=done).step_by(usize::try_from(SLOTS).unwrap_or(1));
            if !later.any(|number| piece == slot_of(self.side, number)) {
                return Err(format!(
                    "{name}: {said} was safe in slot {slot}, it has {}",
                    shown(piece)
                ));
            }
        }
        Ok(())
    }
}

fn slot_of(side: &str, number: u64) -> Vec<u8> {
    let mut data = record(&format!("slot-{side}"), number);
    data.resize(SLOT, b'.');
    data
}

/// `both` is replaced by both sides: it is whole, and not older than what its writer said.
pub(super) fn check_both(workspace: &Path, sides: &[Promised; 2]) -> Result<(), String> {
    let path = workspace.join("both");
    if sides.iter().all(|side| side.latest("both") == 0) && !path.exists() {
        return Ok(());
    }
    let content = read(&path)?;
    let holds = |(who, number): (&str, u64)| {
        let of = |side: &&Promised| who == format!("both-{}", side.side);
        sides
            .iter()
            .find(of)
            .is_some_and(|side| number >= side.latest("both"))
    };
    if parse(&content).is_some_and(holds) {
        return Ok(());
    }
    let said = sides.each_ref().map(|side| side.latest("both"));
    Err(format!(
        "both: {said:?} were safe, it has {}",
        shown(&content)
    ))
}

/// The settings that git wrote are there. (A description of a branch, which is only ever set to a higher number.)
pub(super) fn check_config(workspace: &Path, guest: &Promised) -> Result<(), String> {
    let text = read(&workspace.join("repo/.git/config"))?;
    let text = String::from_utf8_lossy(&text);
    let found = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("description = ")?.parse().ok());
    let said = guest.latest("config");
    if found.unwrap_or(0) >= said {
        return Ok(());
    }
    Err(format!("git's settings: {said} was said, found {found:?}"))
}

/// Nothing of ours lies about.
pub(super) fn nothing_of_ours(folder: &Path) -> Result<(), String> {
    let entries = fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(OURS) {
            return Err(format!("{} is left", path.display()));
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            nothing_of_ours(&path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace after three items of the guest, of which everything was said but the last slot.
    fn made() -> (tempfile::TempDir, [Promised; 2]) {
        let root = tempfile::tempdir().unwrap();
        let put = |name: &str, content: &[u8]| fs::write(root.path().join(name), content).unwrap();
        fs::create_dir(root.path().join("new")).unwrap();
        let mut log: Vec<u8> = (1..=3).flat_map(|n| record("log-guest", n)).collect();
        log.extend(&record("log-guest", 4)[..500]);
        put("log-guest", &log);
        put("doc-guest", &record("doc-guest-guest", 3));
        put("both", &record("both-guest", 3));
        let mut slots = vec![0; SLOT];
        for number in 1..=3 {
            put(&format!("new/guest-{number}"), &record("new", number));
            slots.extend(slot_of("guest", number));
        }
        put("slots-guest", &slots);
        let mut guest = Promised::of("guest");
        let lines = (1..=3)
            .flat_map(|n| ["log", "doc", "both", "new", "slot"].map(|what| format!("{what} {n}")));
        guest.hear(&lines.collect::<Vec<_>>());
        (root, [guest, Promised::of("host")])
    }

    #[test]
    fn what_was_said_and_is_there_passes() {
        let (root, sides) = made();
        sides[0].check(root.path()).unwrap();
        check_both(root.path(), &sides).unwrap();
        nothing_of_ours(root.path()).unwrap();
    }

    #[test]
    fn whatever_is_lost_mixed_or_left_is_found() {
        for (name, content) in [
            ("log-guest", record("log-guest", 1)),
            ("doc-guest", record("doc-guest-guest", 2)),
            ("doc-guest", Vec::new()),
            (
                "doc-guest",
                [record("doc-guest-guest", 3), vec![0]].concat(),
            ),
            ("new/guest-2", Vec::new()),
            ("slots-guest", vec![0; 4 * SLOT]),
        ] {
            let (root, sides) = made();
            fs::write(root.path().join(name), &content).unwrap();
            let found = sides[0].check(root.path()).unwrap_err();
            assert!(found.contains(name), "{name}: {found}");
        }
        for content in [record("both-guest", 2), record("other", 9), Vec::new()] {
            let (root, sides) = made();
            fs::write(root.path().join("both"), content).unwrap();
            check_both(root.path(), &sides).unwrap_err();
        }
        let (root, _) = made();
        fs::write(root.path().join("new/.sbx-copy"), "").unwrap();
        nothing_of_ours(root.path()).unwrap_err();
    }
}
