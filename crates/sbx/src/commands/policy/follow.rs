//! `sbx policy log --follow`: one line a record, as they are written.

use super::log::{Args, proxy};
use crate::answer::Lines;
use crate::commands::Context;
use crate::exit::Exit;
use crate::printer::Printer;
use crate::since::Since;
use crate::table;
use sbx_wire::api::LogEvent;
use sbx_wire::gateway::EgressRecord;
use sbx_wire::report::Report;
use sbx_wire::time::rfc3339;
use serde_json::json;
use std::collections::VecDeque;
use std::time::Duration;

/// Between two looks for the next daemon.
const LOOK: Duration = Duration::from_millis(200);
/// Records of several gateways come this much out of order, milliseconds.
const DISORDER: u64 = 2000;
/// Newest records that are remembered, so that none is shown twice after the daemon was restarted.
const REMEMBERED: usize = 4096;

pub(crate) async fn run(context: &mut Context, args: &Args) -> Result<Exit, Report> {
    let begin = args.since.unwrap_or_else(Since::now).0;
    let mut seen = Seen::new(begin);
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let path = path(args, args.since.map_or(0, |since| since.0));
    let mut lines = tokio::select! {
        lines = first_daemon(context, &path) => lines?,
        _ = &mut interrupt => return Ok(Exit::Success),
    };
    context.printer.debug("following");
    loop {
        let ended = tokio::select! {
            ended = show(&mut context.printer, args, &mut lines, &mut seen) => ended,
            _ = &mut interrupt => return Ok(Exit::Success),
        };
        // A connection that breaks and one that ends in order are the same: the daemon has gone.
        if let Ok(Ended::Done) = ended {
            return Ok(Exit::Success);
        }
        context.printer.notice(
            "note: the daemon ended; waiting for the next one, which any sbx command starts",
        );
        let from = seen.newest_ms.saturating_sub(DISORDER).max(begin);
        let path = self::path(args, from);
        lines = tokio::select! {
            lines = next_daemon(context, &path) => lines?,
            _ = &mut interrupt => return Ok(Exit::Success),
        };
        seen.reconnected();
        context.printer.notice("note: connected again");
    }
}

fn path(args: &Args, since: u64) -> String {
    format!("/v1/policy/log/follow?since_ms={since}{}", args.query())
}

async fn first_daemon(context: &Context, path: &str) -> Result<Lines, Report> {
    // One that is about to end does not begin to follow: the next attempt starts another.
    loop {
        let lines = context.client.lines(path, true).await?;
        if let Some(lines) = following(lines).await? {
            return Ok(lines);
        }
    }
}

async fn next_daemon(context: &Context, path: &str) -> Result<Lines, Report> {
    loop {
        let lines = match context.client.lines(path, false).await {
            Ok(lines) => following(lines).await,
            Err(report) => Err(report),
        };
        match lines {
            Ok(Some(lines)) => return Ok(lines),
            Ok(None) => {}
            Err(report) if report.code == "daemon-lost" => {}
            Err(report) => return Err(report),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The rest of the lines, once the daemon follows.
async fn following(lines: Option<Lines>) -> Result<Option<Lines>, Report> {
    let Some(mut lines) = lines else {
        return Ok(None);
    };
    match lines.next::<LogEvent>().await? {
        Some(LogEvent::Following) => Ok(Some(lines)),
        _ => Ok(None),
    }
}

enum Ended {
    /// There is nothing to follow, or nobody reads any more.
    Done,
    /// The daemon has gone.
    Lost,
}

async fn show(
    printer: &mut Printer,
    args: &Args,
    lines: &mut Lines,
    seen: &mut Seen,
) -> Result<Ended, Report> {
    while let Some(event) = lines.next::<LogEvent>().await? {
        match event {
            LogEvent::Record(record) => {
                if seen.is_repeated(&record) || !args.wants(&record.kind) {
                    continue;
                }
                if !printer.line_to_reader(&line(args, &record)) {
                    return Ok(Ended::Done);
                }
            }
            LogEvent::Following => {}
            LogEvent::Notice(text) => printer.notice(&format!("note: {}", table::safe(&text))),
            LogEvent::End(text) => {
                printer.notice(&format!("note: {}", table::safe(&text)));
                return Ok(Ended::Done);
            }
        }
    }
    Ok(Ended::Lost)
}

fn line(args: &Args, record: &EgressRecord) -> String {
    let time = rfc3339(record.time_ms / 1000);
    if args.json {
        let mut value = json!(record);
        if let Some(object) = value.as_object_mut() {
            object.insert("time".to_owned(), json!(time));
        }
        // One line: the encoder escapes what would end it.
        return table::safe_json(&value.to_string());
    }
    let host = table::safe(&record.host);
    let host = match record.port {
        0 => host,
        port if host.contains(':') => format!("[{host}]:{port}"),
        port => format!("{host}:{port}"),
    };
    if args.quiet {
        return host;
    }
    let word = if record.allowed { "allowed" } else { "blocked" };
    let rule = record.rule_text.as_deref().or(record.rule.as_deref());
    let mut cells = vec![
        time,
        record.sandbox.clone(),
        word.to_owned(),
        host,
        proxy(record.proxy).to_owned(),
        table::safe(rule.unwrap_or("-")),
        table::safe(&record.reason),
    ];
    if let (Some(method), Some(path)) = (&record.method, &record.path) {
        cells.push(table::safe(&format!("{method} {path}")));
    }
    if let Some(credential) = &record.credential {
        cells.push(format!("credential {}", table::safe(credential)));
    }
    if let Some(alert) = &record.alert {
        cells.push(format!("alert {}", table::safe(alert)));
    }
    cells.join("  ")
}

/// The newest records that were shown.
struct Seen {
    newest_ms: u64,
    /// Over the connection to this daemon.
    now: VecDeque<EgressRecord>,
    /// Over the one before, as far as this daemon may repeat them.
    before: Vec<EgressRecord>,
}

impl Seen {
    fn new(from_ms: u64) -> Self {
        Self {
            newest_ms: from_ms,
            now: VecDeque::new(),
            before: Vec::new(),
        }
    }

    /// Another daemon takes over.
    fn reconnected(&mut self) {
        self.before = self.now.drain(..).collect();
    }

    /// Whether the record was shown before the daemon ended. Two records may be equal: each stands for one.
    fn is_repeated(&mut self, record: &EgressRecord) -> bool {
        self.newest_ms = self.newest_ms.max(record.time_ms);
        while self.now.len() >= REMEMBERED {
            self.now.pop_front();
        }
        self.now.push_back(record.clone());
        let found = self.before.iter().position(|old| old == record);
        found.map(|at| self.before.swap_remove(at)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sbx_wire::gateway::ProxyKind;

    fn record(time_ms: u64, host: &str) -> EgressRecord {
        EgressRecord {
            time_ms,
            sandbox: "box".to_owned(),
            kind: "network".to_owned(),
            host: host.to_owned(),
            port: 443,
            proxy: ProxyKind::Dns,
            allowed: false,
            rule: None,
            rule_text: None,
            reason: "default_deny".to_owned(),
            method: None,
            path: None,
            credential: None,
            alert: None,
            generation: 1,
        }
    }

    #[test]
    fn what_the_next_daemon_repeats_is_shown_once_and_equal_records_each() {
        let mut seen = Seen::new(0);
        let (a, b) = (record(10, "a"), record(12, "b"));
        assert!([&a, &a, &b].iter().all(|record| !seen.is_repeated(record)));
        assert_eq!(seen.newest_ms, 12);
        seen.reconnected();
        let repeated: Vec<bool> = [&a, &b, &a, &a, &record(13, "a")]
            .iter()
            .map(|record| seen.is_repeated(record))
            .collect();
        assert_eq!(repeated, [true, true, true, false, false]);
        // And again by the one after it.
        seen.reconnected();
        assert!(seen.is_repeated(&b));
    }
}
