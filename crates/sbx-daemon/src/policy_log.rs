//! `policy log`: the gateways' records, aggregated.
//!
//! Records are the words of a gateway, a process that a hostile guest may have taken over, in a folder that
//! it may write to: only a regular file is read, bounded, parsed, and the sandbox's name is taken from whose
//! file it is, not from the record.

use rustix::fs::{Mode, OFlags};
use sbx_policy::{Decision, Host, Port, ResourcePattern};
use sbx_wire::api::{LogRow, PolicyLog};
use sbx_wire::gateway::{EgressRecord, ProxyKind};
use sbx_wire::launch::files;
use sbx_wire::time::rfc3339;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Newest part of each file that is read, bytes.
pub(crate) const MAX_READ: u64 = 32 << 20;
/// Longest line that counts, bytes.
pub(crate) const MAX_LINE: usize = 64 << 10;
/// Most rows of one sandbox and decision; those not seen for longest are left out, and counted.
const MAX_ROWS: usize = 10_000;
/// Longest text that is handed on, characters.
const MAX_TEXT: usize = 512;

/// Which records are wanted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Of this decision; `None`: of both.
    pub(crate) decision: Option<Decision>,
    /// To hosts that one of these covers; empty: to all.
    pub(crate) hosts: Vec<ResourcePattern>,
    /// At this time or later, milliseconds since the Unix epoch.
    pub(crate) since_ms: u64,
}

impl Filter {
    /// Whether the record is wanted.
    pub(crate) fn accepts(&self, record: &EgressRecord) -> bool {
        let decision = if record.allowed {
            Decision::Allow
        } else {
            Decision::Deny
        };
        record.time_ms >= self.since_ms
            && self.decision.is_none_or(|wanted| wanted == decision)
            && (self.hosts.is_empty() || self.covers(record))
    }

    fn covers(&self, record: &EgressRecord) -> bool {
        // What the guest wrote need not be a host.
        let Ok(host) = Host::parse(&record.host) else {
            return false;
        };
        let port = Port::try_from(record.port).ok();
        self.hosts.iter().any(|pattern| {
            pattern.host.matches(&host) && (pattern.port.is_none() || pattern.port == port)
        })
    }
}

/// A sandbox's file of records, and the older one beside it.
pub(crate) fn paths(dir: &Path) -> (PathBuf, PathBuf) {
    let newest = dir.join(files::EGRESS);
    let mut older = newest.clone().into_os_string();
    older.push(".1");
    (newest, older.into())
}

/// One line of a file of records, bounded, with the name of the sandbox whose file it is. `None`: not a record.
pub(crate) fn parse(sandbox: &str, line: &[u8]) -> Option<EgressRecord> {
    let mut record: EgressRecord = serde_json::from_slice(line).ok()?;
    shorten(&mut record.kind);
    shorten(&mut record.host);
    shorten(&mut record.reason);
    let optional = [
        &mut record.rule,
        &mut record.rule_text,
        &mut record.path,
        &mut record.method,
        &mut record.credential,
        &mut record.alert,
    ];
    optional.into_iter().flatten().for_each(shorten);
    sandbox.clone_into(&mut record.sandbox);
    Some(record)
}

/// Reads and aggregates the wanted records of `sandboxes` (name and folder); newest rows first, at most `limit` per
/// section (0: all). Blocks.
pub(crate) fn read(sandboxes: &[(String, PathBuf)], filter: &Filter, limit: usize) -> PolicyLog {
    let (mut allowed, mut blocked) = (Vec::new(), Vec::new());
    let mut left_out = 0;
    for (name, dir) in sandboxes {
        let mut groups = Groups::default();
        let (newest, older) = paths(dir);
        for path in [&older, &newest] {
            // A log that is not there yet, or is just being rotated, has nothing to say.
            let _ = groups.read(name, path, filter);
        }
        for (of, rows) in [
            (groups.allowed, &mut allowed),
            (groups.blocked, &mut blocked),
        ] {
            left_out += of.finish(rows);
        }
    }
    let limited = |mut rows: Vec<LogRow>| {
        rows.sort_by(|a, b| {
            let newest_first = b.last.time_ms.cmp(&a.last.time_ms);
            newest_first.then_with(|| a.host.cmp(&b.host))
        });
        if limit > 0 {
            rows.truncate(limit);
        }
        rows
    };
    PolicyLog {
        blocked_hosts: limited(blocked),
        allowed_hosts: limited(allowed),
        left_out,
    }
}

type GroupKey = (String, u16, ProxyKind, String, Option<String>);

/// Apart, so that what was blocked, of which a guest can make any number, pushes nothing out that passed.
#[derive(Default)]
struct Groups {
    allowed: Rows,
    blocked: Rows,
}

impl Groups {
    fn read(&mut self, sandbox: &str, path: &Path, filter: &Filter) -> std::io::Result<()> {
        let (mut file, size) = open(path)?;
        let skipped = size.saturating_sub(MAX_READ);
        file.seek(SeekFrom::Start(skipped))?;
        let mut reader = BufReader::new(file.take(MAX_READ));
        let mut line = Vec::new();
        if skipped > 0 {
            // The rest of a line whose beginning was left out.
            next_line(&mut reader, &mut line)?;
        }
        while next_line(&mut reader, &mut line)? {
            if let Some(record) = parse(sandbox, &line).filter(|record| filter.accepts(record)) {
                self.add(sandbox, record);
            }
        }
        Ok(())
    }

    fn add(&mut self, sandbox: &str, record: EgressRecord) {
        let rows = if record.allowed {
            &mut self.allowed
        } else {
            &mut self.blocked
        };
        rows.add(sandbox, record);
    }
}

#[derive(Default)]
struct Rows {
    /// With the number of the record that was the last of the row: the order in the file, which no record can lie about.
    by_key: BTreeMap<GroupKey, (u64, LogRow)>,
    records: u64,
    left_out: u64,
}

impl Rows {
    fn add(&mut self, sandbox: &str, record: EgressRecord) {
        self.records += 1;
        let key = (
            record.host.clone(),
            record.port,
            record.proxy,
            record.reason.clone(),
            record.rule.clone(),
        );
        let seen = rfc3339(record.time_ms / 1000);
        if let Some((number, row)) = self.by_key.get_mut(&key) {
            *number = self.records;
            row.count_since += 1;
            row.last_seen = seen;
            row.last = record;
            return;
        }
        let rule = record.rule_text.clone().or_else(|| record.rule.clone());
        let row = LogRow {
            vm_name: sandbox.to_owned(),
            kind: record.kind.clone(),
            host: destination(&record.host, record.port),
            proxy_type: record.proxy,
            rule: rule.unwrap_or_else(|| "-".to_owned()),
            reason: record.reason.clone(),
            last_seen: seen.clone(),
            since: seen,
            count_since: 1,
            last: record,
        };
        self.by_key.insert(key, (self.records, row));
        // Many at once: to look for the oldest at every record would take too long.
        if self.by_key.len() >= 2 * MAX_ROWS {
            self.leave_out();
        }
    }

    /// Keeps the [`MAX_ROWS`] rows that were seen last.
    fn leave_out(&mut self) {
        let excess = self.by_key.len().saturating_sub(MAX_ROWS);
        if excess == 0 {
            return;
        }
        let mut numbers: Vec<u64> = self.by_key.values().map(|(number, _)| *number).collect();
        let (_, oldest_kept, _) = numbers.select_nth_unstable(excess);
        self.by_key.retain(|_, (number, _)| *number >= *oldest_kept);
        self.left_out += excess as u64;
    }

    /// Hands the rows on, and says how many were left out.
    fn finish(mut self, rows: &mut Vec<LogRow>) -> u64 {
        self.leave_out();
        rows.extend(self.by_key.into_values().map(|(_, row)| row));
        self.left_out
    }
}

/// Opens a file of records, and says how large it is. What is not a regular file is refused without waiting
/// for a writer or following a link.
pub(crate) fn open(path: &Path) -> std::io::Result<(File, u64)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    Ok((file, meta.len()))
}

fn destination(host: &str, port: u16) -> String {
    match (port, host.parse::<std::net::Ipv6Addr>()) {
        (0, _) => host.to_owned(),
        (port, Ok(_)) => format!("[{host}]:{port}"),
        (port, Err(_)) => format!("{host}:{port}"),
    }
}

fn shorten(text: &mut String) {
    if let Some((at, _)) = text.char_indices().nth(MAX_TEXT) {
        text.truncate(at);
    }
}

/// Reads one line without its end; one over [`MAX_LINE`] comes out empty. False at the end of the file.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<bool> {
    line.clear();
    let mut any = false;
    let mut overlong = false;
    loop {
        let buffer = reader.fill_buf()?;
        if buffer.is_empty() {
            break;
        }
        any = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let piece = &buffer[..end.unwrap_or(buffer.len())];
        overlong |= line.len() + piece.len() > MAX_LINE;
        if !overlong {
            line.extend_from_slice(piece);
        }
        let used = end.map_or(buffer.len(), |at| at + 1);
        reader.consume(used);
        if end.is_some() {
            break;
        }
    }
    if overlong {
        line.clear();
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"time_ms":1000,"sandbox":"liar","type":"network","host":"a.example","port":443,"proxy":"forward","allowed":true,"rule":"r","rule_text":"a.example","reason":"allow_rule","generation":1}"#;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(files::GATEWAY_DIR)).unwrap();
        let newest = dir.path().join(files::EGRESS);
        (dir, newest)
    }

    #[test]
    fn pipe_and_link_in_place_of_the_records_are_not_read() {
        let (dir, newest) = folder();
        let read = || {
            read(
                &[("box".to_owned(), dir.path().to_owned())],
                &Filter::default(),
                0,
            )
        };
        // Opening it would wait for a writer.
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &newest,
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        assert!(read().allowed_hosts.is_empty());
        std::fs::remove_file(&newest).unwrap();
        let elsewhere = dir.path().join("elsewhere");
        std::fs::write(&elsewhere, GOOD).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &newest).unwrap();
        assert!(read().allowed_hosts.is_empty());
        std::fs::rename(&elsewhere, &newest).unwrap();
        assert_eq!(read().allowed_hosts.len(), 1);
    }

    #[test]
    fn every_text_of_a_record_is_shortened() {
        let (dir, newest) = folder();
        let mut record: serde_json::Value = serde_json::from_str(GOOD).unwrap();
        for key in [
            "type",
            "host",
            "rule",
            "rule_text",
            "reason",
            "method",
            "path",
            "credential",
            "alert",
        ] {
            record[key] = "x".repeat(MAX_TEXT * 4).into();
        }
        std::fs::write(&newest, record.to_string()).unwrap();
        let log = read(
            &[("box".to_owned(), dir.path().to_owned())],
            &Filter::default(),
            0,
        );
        let row = serde_json::to_string(&log.allowed_hosts[0]).unwrap();
        assert!(!row.contains(&"x".repeat(MAX_TEXT + 1)), "{row}");
    }

    #[test]
    fn overlong_and_broken_lines_are_left_out_and_the_others_count() {
        let (dir, newest) = folder();
        let text = format!("{GOOD}\n{}\nnot json\n{GOOD}\n", "x".repeat(MAX_LINE * 3));
        std::fs::write(newest, text).unwrap();
        let log = read(
            &[("box".to_owned(), dir.path().to_owned())],
            &Filter::default(),
            0,
        );
        assert_eq!(log.allowed_hosts.len(), 1);
        let row = &log.allowed_hosts[0];
        assert_eq!((row.count_since, row.vm_name.as_str()), (2, "box"));
        assert_eq!(
            (row.host.as_str(), row.rule.as_str()),
            ("a.example:443", "a.example")
        );
        assert_eq!(row.last_seen, "1970-01-01T00:00:01Z");
    }

    #[test]
    fn many_blocked_places_hide_neither_what_passed_nor_the_newest_and_are_counted() {
        let (dir, newest) = folder();
        let blocked = |n: usize| {
            let host = format!("r{n}.invalid");
            GOOD.replace("a.example", &host).replace("true", "false") + "\n"
        };
        // More than twice as many as there may be: the first one is seen again at the end.
        let numbers = (0..=2 * MAX_ROWS).chain([0]);
        let text: String = numbers.map(blocked).chain([GOOD.to_owned()]).collect();
        std::fs::write(newest, text).unwrap();
        let sandboxes = [("box".to_owned(), dir.path().to_owned())];
        let log = read(&sandboxes, &Filter::default(), 0);
        assert_eq!(log.allowed_hosts.len(), 1);
        assert_eq!(log.blocked_hosts.len(), MAX_ROWS);
        for n in [0, MAX_ROWS + 2, 2 * MAX_ROWS] {
            let host = format!("r{n}.invalid");
            assert!(
                log.blocked_hosts.iter().any(|row| row.last.host == host),
                "{host}"
            );
        }
        assert_eq!(log.left_out, MAX_ROWS as u64 + 2);
        let limited = read(&sandboxes, &Filter::default(), 10);
        assert_eq!(
            (limited.allowed_hosts.len(), limited.blocked_hosts.len()),
            (1, 10)
        );
    }

    #[test]
    fn a_filter_takes_the_decision_the_host_and_the_time_that_it_names() {
        let accepts = |filter: &Filter, host: &str, port: u16, allowed: bool, time_ms: u64| {
            let mut record = parse("box", GOOD.as_bytes()).unwrap();
            (record.host, record.port, record.allowed, record.time_ms) =
                (host.to_owned(), port, allowed, time_ms);
            filter.accepts(&record)
        };
        let hosts = |text: &str| Filter {
            hosts: ResourcePattern::parse_list(text).unwrap(),
            ..Filter::default()
        };
        assert!(accepts(
            &Filter::default(),
            "(5 dropped packets)",
            0,
            false,
            0
        ));
        let names = hosts("**.a.example,b.example:443,10.0.0.0/8");
        assert!(
            accepts(&names, "x.a.example", 1, true, 0)
                && accepts(&names, "b.example", 443, true, 0)
        );
        assert!(accepts(&names, "10.1.2.3", 22, false, 0));
        assert!(
            !accepts(&names, "a.example", 443, true, 0)
                && !accepts(&names, "b.example", 80, true, 0)
        );
        assert!(!accepts(&names, "(5 dropped packets)", 0, false, 0));
        let denied = Filter {
            decision: Some(Decision::Deny),
            since_ms: 10,
            ..Filter::default()
        };
        assert!(accepts(&denied, "a", 1, false, 10));
        assert!(!accepts(&denied, "a", 1, true, 10) && !accepts(&denied, "a", 1, false, 9));
    }
}
