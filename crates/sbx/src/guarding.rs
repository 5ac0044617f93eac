//! What is protected and hidden in workspaces: the flags, and what is said when something was tried.

use crate::commands::Context;
use crate::table::safe;
use hyper::Method;
use sbx_wire::api::{GuardTold, Guarded, GuardedEvent, Sandbox};
use sbx_wire::report::Report;
use sbx_workspace::mask::Mask;
use sbx_workspace::protect::Level;
use sbx_workspace::rules::Guarding;
use sbx_workspace::{Mode, Pattern, hide};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Most lines about what was tried.
const LINES: usize = 20;
/// Most events that `inspect` shows without `--json`; the newest.
const SHOWN: usize = 100;

/// For a new sandbox.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct GuardingArgs {
    /// How files are protected that run on the host [default: the setting workspace.protect]
    #[arg(long, value_name = "off|report|standard|block")]
    pub(crate) protect: Option<Level>,
    /// Names that cannot be written from inside, as in gitignore; repeatable
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::parse)]
    pub(crate) protect_path: Vec<Pattern>,
    /// Names that read as absent inside, as in gitignore, or @secrets; repeatable. Also: a file .sbxignore
    #[arg(long, value_name = "PATTERN", value_parser = Pattern::parse)]
    pub(crate) hide: Vec<Pattern>,
    /// Directories on the sandbox's own disk instead of the host's: names such as node_modules, or paths; repeatable
    #[arg(long, value_name = "NAME|PATH")]
    pub(crate) mask: Vec<Mask>,
}

impl GuardingArgs {
    /// What the daemon is asked for.
    pub(crate) fn resolve(&self) -> Guarding {
        let several = |pattern: &Pattern| {
            hide::one(pattern.as_str()).unwrap_or_else(|_| vec![pattern.clone()])
        };
        Guarding {
            protect: self.protect,
            protect_paths: self.protect_path.clone(),
            hide: self.hide.iter().flat_map(several).collect(),
            mask: self.mask.clone(),
        }
    }
}

/// What was tried in a sandbox since it was made.
pub(crate) async fn of(context: &Context, name: &str) -> Result<Guarded, Report> {
    context
        .client
        .get(&format!("/v1/sandboxes/{name}/guard"))
        .await
}

/// Says what was tried and nobody was told of yet, whenever it was, also of a sandbox that is gone with its session
/// (`run --rm`).
pub(crate) async fn tell(context: &mut Context, sandbox: &Sandbox) {
    let name = &sandbox.name;
    let path = format!("/v1/sandboxes/{name}/guard");
    let asked = context.client.promptly(Method::GET, &path, &()).await;
    let guarded: Guarded = match asked {
        Ok(guarded) => guarded,
        Err(report) => {
            let note = format!("note: changes to guarded files are not listed: {report}");
            context.printer.notice(&note);
            return;
        }
    };
    let news: Vec<&GuardedEvent> = guarded
        .events
        .iter()
        .filter(|entry| is_news(entry))
        .collect();
    // Where the terminal is gone nobody has read them.
    let mut told = !news.is_empty();
    for line in lines(&news, name) {
        told &= context.printer.notice_to_reader(&line);
    }
    if told {
        let path = format!("{path}/told");
        let body = GuardTold {
            id: sandbox.id.clone(),
            counted: guarded.counted,
        };
        // One that is gone has nothing to be told of any more; else it is told once more.
        let _again: Result<Value, Report> =
            context.client.promptly(Method::POST, &path, &body).await;
    }
}

/// What nobody was told of; and each time that changes which were made cannot be told of any more.
fn is_news(entry: &GuardedEvent) -> bool {
    !entry.told || entry.event.is_full() && entry.event.mode == Mode::Report
}

fn lines(events: &[&GuardedEvent], name: &str) -> Vec<String> {
    if events.is_empty() {
        return Vec::new();
    }
    let count = |mode| {
        let of_mode = |entry: &&&GuardedEvent| entry.event.mode == mode && !entry.event.is_full();
        events.iter().filter(of_mode).count()
    };
    let (refused, made) = (count(Mode::Block), count(Mode::Report));
    let mut lines = vec![format!(
        "changes to guarded files in sandbox '{name}': {refused} refused, {made} made"
    )];
    // What was made needs looking at, so it comes first; before it, that there is more.
    let mut sorted = events.to_vec();
    sorted.sort_by_key(|entry| (!entry.event.is_full(), entry.event.mode == Mode::Block));
    let mut full = BTreeSet::new();
    sorted.retain(|entry| {
        let of = (&entry.workspace, entry.event.mode == Mode::Block);
        // Each start may have said it.
        !entry.event.is_full() || full.insert(of)
    });
    for entry in sorted.iter().take(LINES) {
        let event = &entry.event;
        let word = match event.mode {
            Mode::Report => "made",
            Mode::Block => "refused",
        };
        if event.is_full() {
            let workspace = safe(&entry.workspace.display().to_string());
            lines.push(format!("  {word:<8} {workspace}: {}", safe(&event.why)));
            continue;
        }
        let path = entry.workspace.join(&event.path);
        lines.push(format!(
            "  {word:<8} {:<10} {} ({})",
            event.action.to_string(),
            safe(&path.display().to_string()),
            safe(&event.why)
        ));
    }
    if sorted.len() > LINES {
        let more = sorted.len() - LINES;
        lines.push(format!(
            "  … and {more} more; sbx inspect {name} --json shows them while the sandbox is there"
        ));
    }
    lines
}

/// For `inspect`: all of it as JSON, the newest of it for people.
pub(crate) fn shape(guarded: &Guarded, all: bool) -> Value {
    let shown = if all { usize::MAX } else { SHOWN };
    let skipped = guarded.events.len().saturating_sub(shown);
    json!({
        "protect": guarded.protect,
        "events": guarded.events[skipped..],
        "events_not_shown": skipped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sbx_workspace::event::{Action, Event};

    fn event(path: &str, mode: Mode) -> GuardedEvent {
        GuardedEvent {
            workspace: "/w".into(),
            told: false,
            event: Event {
                unix_ms: 1,
                path: path.to_owned(),
                action: Action::Create,
                mode,
                why: "protected: x".to_owned(),
            },
        }
    }

    #[test]
    fn what_was_made_comes_first_and_nothing_is_said_of_nothing() {
        assert_eq!(lines(&[], "box"), Vec::<String>::new());
        let (refused, made) = (
            event(".git/hooks/x", Mode::Block),
            event("a\u{1b}[2Jb", Mode::Report),
        );
        let lines = lines(&[&refused, &made], "box");
        assert_eq!(
            lines[0],
            "changes to guarded files in sandbox 'box': 1 refused, 1 made"
        );
        assert!(
            lines[1].starts_with("  made     create     /w/a"),
            "{}",
            lines[1]
        );
        assert!(!lines[1].contains('\u{1b}'));
        assert!(lines[2].contains("refused") && lines[2].contains("/w/.git/hooks/x"));
    }

    #[test]
    fn a_list_that_is_full_is_said_first_and_each_time_where_changes_were_made() {
        let of = |mode, told| GuardedEvent {
            told,
            event: Event::full(1, mode),
            ..event("", mode)
        };
        let (made, refused) = (of(Mode::Report, true), of(Mode::Block, true));
        assert!(is_news(&made) && !is_news(&refused) && is_news(&of(Mode::Block, false)));
        let other = event("x", Mode::Report);
        assert!(
            is_news(&other)
                && !is_news(&GuardedEvent {
                    told: true,
                    ..other.clone()
                })
        );
        let lines = lines(&[&other, &made, &made], "box");
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].ends_with("0 refused, 1 made"), "{lines:?}");
        assert!(
            lines[1].starts_with("  made     /w: the list is full"),
            "{lines:?}"
        );
        assert!(lines[2].contains("/w/x"), "{lines:?}");
    }

    #[test]
    fn inspect_shows_everything_as_json() {
        let events: Vec<_> = (0..SHOWN + 5)
            .map(|n| event(&n.to_string(), Mode::Block))
            .collect();
        let guarded = Guarded {
            events,
            ..Guarded::default()
        };
        let count = |all| {
            let shown = shape(&guarded, all);
            (
                shown["events"].as_array().unwrap().len(),
                shown["events_not_shown"].as_u64(),
            )
        };
        assert_eq!(count(true), (SHOWN + 5, Some(0)));
        assert_eq!(count(false), (SHOWN, Some(5)));
    }

    #[test]
    fn many_are_counted() {
        let many: Vec<_> = (0..50)
            .map(|n| event(&n.to_string(), Mode::Block))
            .collect();
        let lines = lines(&many.iter().collect::<Vec<_>>(), "box");
        assert_eq!(lines.len(), LINES + 2);
        assert!(lines[LINES + 1].contains("30 more"));
    }
}
