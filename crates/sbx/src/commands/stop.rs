//! `sbx stop`: ends sandboxes, keeps what they hold.

use super::Context;
use crate::client::encode;
use crate::exit::Exit;
use sbx_wire::api::Stopped;
use sbx_wire::report::Report;

/// Stop sandboxes; their files stay
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Args {
    /// Sandboxes
    #[arg(required = true)]
    sandboxes: Vec<String>,
}

pub(crate) async fn run(context: &mut Context, args: Args) -> Result<Exit, Report> {
    let mut exit = Exit::Success;
    for name in &args.sandboxes {
        let path = format!("/v1/sandboxes/{}/stop", encode(name));
        match context.client.post::<_, Stopped>(&path, &()).await {
            Ok(stopped) => {
                context.printer.line(&format!("Stopped {name}"));
                if let Some(text) = ended(&stopped) {
                    context.printer.notice(&format!("  {text}"));
                }
            }
            Err(report) => exit = context.printer.report(&report),
        }
    }
    Ok(exit)
}

/// What ended with the sandbox.
fn ended(stopped: &Stopped) -> Option<String> {
    let mut parts = Vec::new();
    let many = |count: u32, one: &str, more: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {more}"),
    };
    if stopped.agent_running {
        parts.push(match stopped.attached {
            0 => "its agent, which ran without a terminal".to_owned(),
            count => format!(
                "its agent, with {} attached",
                many(count, "terminal", "terminals")
            ),
        });
    }
    let others = stopped
        .sessions
        .saturating_sub(stopped.agent_running.into());
    if others > 0 {
        parts.push(many(others, "program", "programs"));
    }
    if stopped.removed {
        parts.push("the sandbox, which was run with --rm".to_owned());
    }
    (!parts.is_empty()).then(|| format!("ended: {}", parts.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_is_named_and_nothing_is_not() {
        let stopped = |sessions, agent_running, attached, removed| Stopped {
            sessions,
            agent_running,
            attached,
            removed,
        };
        assert_eq!(ended(&stopped(0, false, 0, false)), None);
        assert_eq!(
            ended(&stopped(3, true, 1, false)).unwrap(),
            "ended: its agent, with 1 terminal attached; 2 programs"
        );
        assert_eq!(
            ended(&stopped(1, true, 0, true)).unwrap(),
            "ended: its agent, which ran without a terminal; the sandbox, which was run with --rm"
        );
    }
}
