//! What the files have to be: names and contents in memory, and operations that change them.

use crate::chance::Chance;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Names of directories, of which two exist, and of files in each.
const DIRECTORIES: [&str; 3] = ["one", "two", "three"];
const NAMES: u64 = 6;
/// Files that a side may hold open at a time.
const SLOTS: u64 = 4;
/// Largest file and longest piece, in bytes: a few pages more than the guest reads ahead.
const MAX_SIZE: u64 = 200_000;
const MAX_PIECE: u64 = 40_000;
const PAGE: u64 = 4096;

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The guest.
    Inside,
    /// The host.
    Outside,
}

impl Side {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Inside => Self::Outside,
            Self::Outside => Self::Inside,
        }
    }

    fn index(self) -> usize {
        usize::from(self == Self::Outside)
    }
}

/// One operation as `peer.py` takes it, and what it has to answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Name and arguments.
    pub wire: Value,
    /// Expected answer.
    pub answer: Value,
}

/// The files.
#[derive(Debug)]
pub struct Model {
    chance: Chance,
    /// Content by number; several names may have the same.
    files: Vec<Vec<u8>>,
    names: BTreeMap<String, usize>,
    directories: Vec<&'static str>,
    /// Open files of each side, by slot.
    slots: [BTreeMap<u64, usize>; 2],
    seed: u64,
}

impl Model {
    /// Two empty directories, which have to be made first: [`Model::directories`].
    pub fn new(seed: u64) -> Self {
        Self {
            chance: Chance(seed),
            files: Vec::new(),
            names: BTreeMap::new(),
            directories: DIRECTORIES[..2].to_vec(),
            slots: [BTreeMap::new(), BTreeMap::new()],
            seed: 0,
        }
    }

    /// The directories that there are.
    pub fn directories(&self) -> &[&'static str] {
        &self.directories
    }

    /// What `everything()` of a side has to be: files with length, digest and number of names, then what it has open.
    pub fn expected(&self, side: Side) -> Value {
        let files: serde_json::Map<String, Value> = self
            .names
            .iter()
            .map(|(name, file)| {
                let names = self.names.values().filter(|other| *other == file).count();
                let [length, digest] = digest(&self.files[*file]);
                (name.clone(), json!([length, digest, names]))
            })
            .collect();
        let open: serde_json::Map<String, Value> = self.slots[side.index()]
            .iter()
            .map(|(slot, file)| (slot.to_string(), json!(digest(&self.files[*file]))))
            .collect();
        json!([files, open])
    }

    /// A number of operations for the next turn, from 1 to `limit`.
    pub fn turn(&mut self, limit: u64) -> u64 {
        for file in 0..self.files.len() {
            let named = self.names.values().any(|other| *other == file);
            let mut open = self.slots.iter().flat_map(BTreeMap::values);
            if !named && open.all(|other| *other != file) {
                self.files[file] = Vec::new(); // nobody can reach it any more
            }
        }
        1 + self.chance.below(limit)
    }

    /// Chooses an operation of a side, does it here, and says what it has to answer.
    pub fn step(&mut self, side: Side) -> Step {
        loop {
            let step = match self.chance.below(100) {
                0..=7 => Some(self.put()),
                8..=25 => self.write(),
                26..=31 => self.append(),
                32..=37 => self.truncate(),
                38..=43 => self.punch(),
                44..=51 => self.map(),
                52..=57 => self.copy(),
                58..=63 => self.rename(),
                64..=65 => self.exchange(),
                66 => self.rename_directory(),
                67..=70 => self.link(),
                71..=73 => self.unlink(),
                74..=83 => self.read(),
                84..=86 => self.open(side),
                87 => self.close(side),
                _ => self.on_slot(side),
            };
            if let Some((wire, answer)) = step {
                return Step { wire, answer };
            }
        }
    }

    fn put(&mut self) -> (Value, Value) {
        let (path, length) = (self.any_path(), self.piece());
        let fill = self.fill(length);
        let file = match self.names.get(&path) {
            Some(file) => *file,
            None => {
                self.files.push(Vec::new());
                self.names.insert(path.clone(), self.files.len() - 1);
                self.files.len() - 1
            }
        };
        self.files[file] = fill;
        (json!(["put", path, length, self.seed]), Value::Null)
    }

    fn write(&mut self) -> Option<(Value, Value)> {
        let (path, file) = self.known()?;
        let (offset, length) = self.range();
        self.store(file, offset, length);
        Some((
            json!(["write", path, offset, length, self.seed]),
            Value::Null,
        ))
    }

    fn append(&mut self) -> Option<(Value, Value)> {
        let (path, file) = self.known()?;
        let (end, length) = (self.size(file), self.piece());
        if end + length > 2 * MAX_SIZE {
            return None;
        }
        self.store(file, end, length);
        Some((json!(["append", path, length, self.seed]), Value::Null))
    }

    fn truncate(&mut self) -> Option<(Value, Value)> {
        let (path, file) = self.known()?;
        let length = self.offset();
        self.files[file].resize(index(length), 0);
        Some((json!(["truncate", path, length]), Value::Null))
    }

    fn punch(&mut self) -> Option<(Value, Value)> {
        let (path, file) = self.known()?;
        let (offset, length) = self.range();
        let content = &mut self.files[file];
        let end = content.len().min(index(offset + length));
        let start = end.min(index(offset));
        content[start..end].fill(0);
        Some((json!(["punch", path, offset, length]), Value::Null))
    }

    /// Only what is in the file can be written through a mapping.
    fn map(&mut self) -> Option<(Value, Value)> {
        let (path, file) = self.known()?;
        let (offset, length) = self.within(file)?;
        self.store(file, offset, length);
        Some((json!(["map", path, offset, length, self.seed]), Value::Null))
    }

    fn copy(&mut self) -> Option<(Value, Value)> {
        let (source, one) = self.known()?;
        let (target, other) = self.known()?;
        let (from, length) = self.range();
        let to = self.offset();
        if one == other {
            return None; // overlapping ranges are refused
        }
        let piece = slice(&self.files[one], from, length).to_vec();
        let done = piece.len();
        if done > 0 {
            self.store_bytes(other, to, &piece);
        }
        Some((
            json!(["copy", source, target, from, to, length]),
            json!(done),
        ))
    }

    fn rename(&mut self) -> Option<(Value, Value)> {
        let (from, file) = self.known()?;
        let to = self.any_path();
        // Two names of one file stay (rename(2)).
        if self.names.get(&to) != Some(&file) {
            self.names.remove(&from);
            self.names.insert(to.clone(), file);
        }
        Some((json!(["rename", from, to]), Value::Null))
    }

    fn exchange(&mut self) -> Option<(Value, Value)> {
        let (one, first) = self.known()?;
        let (other, second) = self.known()?;
        self.names.insert(one.clone(), second);
        self.names.insert(other.clone(), first);
        Some((json!(["exchange", one, other]), Value::Null))
    }

    fn rename_directory(&mut self) -> Option<(Value, Value)> {
        let free = *DIRECTORIES
            .iter()
            .find(|name| !self.directories.contains(name))?;
        let which = index(self.chance.below(self.directories.len() as u64));
        let old = std::mem::replace(&mut self.directories[which], free);
        let names = std::mem::take(&mut self.names);
        let moved = |name: String| match name.strip_prefix(&format!("{old}/")) {
            Some(rest) => format!("{free}/{rest}"),
            None => name,
        };
        self.names = names
            .into_iter()
            .map(|(name, file)| (moved(name), file))
            .collect();
        Some((json!(["rename", old, free]), Value::Null))
    }

    fn link(&mut self) -> Option<(Value, Value)> {
        let (from, file) = self.known()?;
        let to = self.any_path();
        if self.names.contains_key(&to) {
            return None;
        }
        self.names.insert(to.clone(), file);
        Some((json!(["link", from, to]), Value::Null))
    }

    fn unlink(&mut self) -> Option<(Value, Value)> {
        let (path, _) = self.known()?;
        self.names.remove(&path);
        Some((json!(["unlink", path]), Value::Null))
    }

    fn read(&mut self) -> Option<(Value, Value)> {
        let (path, file) = self.known()?;
        if self.chance.below(3) == 0 {
            let (offset, length) = self.within(file)?;
            let answer = digest(slice(&self.files[file], offset, length));
            return Some((json!(["map_read", path, offset, length]), json!(answer)));
        }
        let (offset, length) = self.range();
        let answer = digest(slice(&self.files[file], offset, length));
        Some((json!(["read", path, offset, length]), json!(answer)))
    }

    fn open(&mut self, side: Side) -> Option<(Value, Value)> {
        let (path, file) = self.known()?;
        let slot = self.chance.below(SLOTS);
        if self.slots[side.index()].contains_key(&slot) {
            return None;
        }
        self.slots[side.index()].insert(slot, file);
        Some((json!(["open", slot, path]), Value::Null))
    }

    fn close(&mut self, side: Side) -> Option<(Value, Value)> {
        let slot = self.chance.below(SLOTS);
        self.slots[side.index()].remove(&slot)?;
        Some((json!(["close", slot]), Value::Null))
    }

    /// On a file that was opened earlier, whatever names it has now.
    fn on_slot(&mut self, side: Side) -> Option<(Value, Value)> {
        let slot = self.chance.below(SLOTS);
        let file = *self.slots[side.index()].get(&slot)?;
        Some(match self.chance.below(8) {
            0 => {
                let length = self.offset();
                self.files[file].resize(index(length), 0);
                (json!(["slot_truncate", slot, length]), Value::Null)
            }
            1..=3 => {
                let (offset, length) = self.range();
                self.store(file, offset, length);
                let wire = json!(["slot_write", slot, offset, length, self.seed]);
                (wire, Value::Null)
            }
            _ => {
                let (offset, length) = self.range();
                let answer = digest(slice(&self.files[file], offset, length));
                (json!(["slot_read", slot, offset, length]), json!(answer))
            }
        })
    }

    fn any_path(&mut self) -> String {
        let directory = self.directories[index(self.chance.below(self.directories.len() as u64))];
        format!("{directory}/file{}", self.chance.below(NAMES))
    }

    /// A name that there is, and its file.
    fn known(&mut self) -> Option<(String, usize)> {
        let which = index(self.chance.below(self.names.len() as u64));
        let (name, file) = self.names.iter().nth(which)?;
        Some((name.clone(), *file))
    }

    fn size(&self, file: usize) -> u64 {
        self.files[file].len() as u64
    }

    /// Ends of pages more often than other places.
    fn offset(&mut self) -> u64 {
        let any = self.chance.below(MAX_SIZE);
        match self.chance.below(4) {
            0 => any / PAGE * PAGE,
            1 => any / PAGE * PAGE + 1,
            _ => any,
        }
    }

    fn piece(&mut self) -> u64 {
        let limit = [100, PAGE, MAX_PIECE][index(self.chance.below(3))];
        match 1 + self.chance.below(limit) {
            length if length > PAGE && length % 2 == 0 => length / PAGE * PAGE,
            length => length,
        }
    }

    fn range(&mut self) -> (u64, u64) {
        (self.offset(), self.piece())
    }

    /// A range of at least a byte in the file.
    fn within(&mut self, file: usize) -> Option<(u64, u64)> {
        let size = self.size(file);
        let offset = self.chance.below(size);
        let length = self.piece().min(size - offset);
        (length > 0).then_some((offset, length))
    }

    /// The bytes that the next seed stands for.
    fn fill(&mut self, length: u64) -> Vec<u8> {
        self.seed = (self.seed + 1) % (1 << 32);
        let unit = format!("{:08x}.", self.seed).into_bytes();
        unit.into_iter().cycle().take(index(length)).collect()
    }

    fn store(&mut self, file: usize, offset: u64, length: u64) {
        let bytes = self.fill(length);
        self.store_bytes(file, offset, &bytes);
    }

    fn store_bytes(&mut self, file: usize, offset: u64, bytes: &[u8]) {
        let content = &mut self.files[file];
        let end = index(offset) + bytes.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[index(offset)..end].copy_from_slice(bytes);
    }
}

/// Length and digest, as `peer.py` gives them.
fn digest(bytes: &[u8]) -> [Value; 2] {
    let text: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    [json!(bytes.len()), json!(text)]
}

/// What of a range is in the content.
fn slice(content: &[u8], offset: u64, length: u64) -> &[u8] {
    let end = content.len().min(index(offset + length));
    &content[end.min(index(offset))..end]
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("everything here is smaller than a mebibyte")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_operations() {
        let steps = |seed| {
            let mut model = Model::new(seed);
            (0..500)
                .map(|_| model.step(Side::Inside))
                .collect::<Vec<_>>()
        };
        assert_eq!(steps(7), steps(7));
        assert_ne!(steps(7), steps(8));
    }
}
