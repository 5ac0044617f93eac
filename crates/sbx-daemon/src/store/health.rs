//! Looking at a database without being its daemon: nothing is made, changed or mended.

use super::database::{self, VERSION};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::path::Path;
use std::time::Duration;

/// Time for a change that the daemon is making.
const BUSY: Duration = Duration::from_secs(5);

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    /// There is none: the next daemon makes it.
    Missing,
    /// Whole.
    Good {
        /// Sandboxes that it knows.
        sandboxes: i64,
    },
    /// The daemon was killed in the middle of a change; the next one takes that back.
    Interrupted,
    /// Of a later version of sbx.
    Newer(i64),
    /// Not usable; the text says why.
    Broken(String),
}

/// Checks every page of the file and every index (`PRAGMA integrity_check`).
pub(crate) fn check(path: &Path) -> Health {
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() > 0 => {}
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Health::Broken(error.to_string());
        }
        // An empty file is what a crash leaves at the very first start.
        _ => return Health::Missing,
    }
    look(path).unwrap_or_else(|error| match error.sqlite_error_code() {
        Some(ErrorCode::ReadOnly) => Health::Interrupted,
        _ => Health::Broken(error.to_string()),
    })
}

fn look(path: &Path) -> Result<Health, rusqlite::Error> {
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(BUSY)?;
    let version = database::version(&connection)?;
    if version > VERSION {
        return Ok(Health::Newer(version));
    }
    let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if found != "ok" {
        return Ok(Health::Broken(found));
    }
    let sandboxes = connection.query_row("SELECT count(*) FROM sandboxes", [], |row| row.get(0))?;
    Ok(Health::Good { sandboxes })
}
