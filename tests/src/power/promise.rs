//! What has to be there after a cut: everything that was confirmed, and nothing by halves.

use super::disk::After;
use crate::Installation;
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Begin of the text that an item's file holds; six digits and a semicolon follow.
const MARK: &[u8] = b"sbx-item-";
const DIGITS: usize = 6;

/// The highest item whose mark is in these bytes.
pub fn latest_mark(data: &[u8]) -> Option<u64> {
    memchr::memmem::find_iter(data, MARK)
        .filter_map(|at| {
            let digits = data.get(at + MARK.len()..)?.get(..=DIGITS)?;
            let number = digits.strip_suffix(b";")?;
            std::str::from_utf8(number).ok()?.parse().ok()
        })
        .max()
}

/// The files: each confirmed one is there, and every one that is there is whole.
///
/// # Errors
/// What is missing or broken.
pub fn files(after: &After) -> Result<(), String> {
    let Some(confirmed) = after.confirmed else {
        return Ok(());
    };
    let files = after.files.join("files");
    for item in 0..=confirmed {
        let there = files.join(format!("item-{item}")).exists();
        // A later one deletes it: done, under way, or still to come.
        let deleted = (item % 5 == 0).then_some(item + 4);
        let wrong = match deleted {
            Some(by) if by <= confirmed => there,
            Some(by) if by == confirmed + 1 => false,
            _ => !there,
        };
        if wrong {
            let what = if there { "is back" } else { "is lost" };
            return Err(format!("item {item} of {confirmed} {what}"));
        }
    }
    for entry in fs::read_dir(&files).map_err(|e| e.to_string())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(item) = name.strip_prefix("item-") {
            whole(&entry.path(), item)?;
        }
    }
    let appended = fs::read_to_string(files.join("appended")).map_err(|e| e.to_string())?;
    for (item, line) in appended.lines().enumerate() {
        let expected = format!("sbx-item-{item:06};");
        // What was being added may be there in part.
        if line != expected && item as u64 <= confirmed {
            return Err(format!("line {item} is {line:?}"));
        }
    }
    if (appended.lines().count() as u64) <= confirmed {
        return Err(format!("{} lines of {confirmed}", appended.lines().count()));
    }
    for name in ["rollback.db", "wal.db"] {
        rows(&files.join(name), confirmed).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}

/// A file of its item and of nothing else, up to its last line.
fn whole(path: &Path, item: &str) -> Result<(), String> {
    let item: u64 = item.parse().map_err(|_| format!("{}", path.display()))?;
    let count = 1 + item * 613 % 4000;
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    let mark = format!("sbx-item-{item:06};");
    let body = mark.repeat(usize::try_from(count).map_err(|e| e.to_string())?);
    let rest = text.strip_prefix(&body).map(str::trim_end).map(str::len);
    // A line break and a SHA-256 digest in hex.
    if rest == Some(1 + 64) {
        Ok(())
    } else {
        Err(format!(
            "item {item} is there, but not whole ({} bytes)",
            text.len()
        ))
    }
}

/// A database with a row for each confirmed item.
fn rows(path: &Path, confirmed: u64) -> Result<(), String> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
        .map_err(|e| e.to_string())?;
    let one = |query: &str| -> Result<String, String> {
        let row = database.query_row(query, [], |row| row.get::<_, rusqlite::types::Value>(0));
        row.map(|value| format!("{value:?}"))
            .map_err(|e| e.to_string())
    };
    let integrity = one("PRAGMA integrity_check")?;
    if integrity != "Text(\"ok\")" {
        return Err(integrity);
    }
    let query = format!("SELECT count(*) FROM items WHERE item <= {confirmed}");
    let count = one(&query)?;
    if count != format!("Integer({})", confirmed + 1) {
        return Err(format!("{count} rows of {}", confirmed + 1));
    }
    Ok(())
}

/// The daemon's state: a daemon starts on it without mending anything, and knows every confirmed change. `planted`:
/// sandboxes that there were.
///
/// # Errors
/// What is missing, or had to be mended.
pub fn store(after: &After, installation: &Installation, planted: u64) -> Result<(), String> {
    let Some(confirmed) = after.confirmed else {
        return Ok(());
    };
    installation.own_all(&after.files)?;
    let listed = installation.sbx(["policy", "ls", "--json"]).json()?;
    let text = listed.to_string();
    let lost = (0..=confirmed).find(|item| !text.contains(&format!("item-{item}.example")));
    if let Some(item) = lost {
        return Err(format!("rule {item} of {confirmed} is lost: {text}"));
    }
    let limit = installation
        .sbx(["settings", "get", "sandbox.autoStop"])
        .success()?;
    let known = [confirmed + 1, confirmed + 2].map(|minutes| format!("{minutes}m"));
    if !known.iter().any(|value| limit.contains(value)) {
        return Err(format!("the setting is {limit:?}, not one of {known:?}"));
    }
    let names = installation.sbx(["ls", "-q"]).success()?;
    let names: BTreeSet<&str> = names.lines().collect();
    let there = |item: u64| names.contains(format!("planted-{item}").as_str());
    if let Some(item) = (0..=confirmed).find(|item| there(*item)) {
        return Err(format!(
            "sandbox {item} of {confirmed} was removed and is back"
        ));
    }
    if !(confirmed + 2..planted).all(there) {
        return Err(format!("sandboxes after {confirmed} are lost: {names:?}"));
    }
    let log = fs::read_to_string(installation.state().join("daemon.log")).unwrap_or_default();
    let mended = log
        .lines()
        .find(|line| line.contains("broken") || line.contains("rebuilt"));
    let aside = fs::read_dir(installation.state()).map_err(|e| e.to_string())?;
    let aside = aside
        .flatten()
        .find(|entry| entry.file_name().to_string_lossy().contains("corrupt"));
    let end = installation.sbx(["daemon", "stop"]).success();
    match (mended, aside) {
        (None, None) => end.map(drop),
        (line, file) => Err(format!("something was mended: {line:?} {file:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_mark_is_found_among_others_and_what_is_cut_off_is_none() {
        assert_eq!(latest_mark(b"xxsbx-item-000007;sbx-item-000003;"), Some(7));
        assert_eq!(latest_mark(b"sbx-item-00000"), None);
        assert_eq!(latest_mark(b"sbx-item-0000x1;sbx-item-1234567;"), None);
    }
}
