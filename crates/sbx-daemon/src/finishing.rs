//! Package code that an image still has to run, which it does inside a machine and nowhere else.

use crate::events::Events;
use crate::sandbox::Sandbox;
use crate::supervisor_link::Connection;
use sbx_image::{FinishStep, Image};
use sbx_wire::guest::{ExecRequest, ExitStatus};
use sbx_wire::report::Report;
use sbx_wire::session::{Request, ToClient};
use std::time::Duration;

/// Output of a step that is kept, bytes.
const MAX_OUTPUT: usize = 16 << 10;

/// Runs the steps that are left, in the machine of `sandbox`.
pub(crate) async fn finish(
    sandbox: &Sandbox,
    image: &Image,
    events: &Events,
) -> Result<(), Report> {
    let steps = image.unfinished();
    if steps.is_empty() {
        return Ok(());
    }
    let mut said = String::new();
    for step in steps {
        events.step(&format!("finishing the image: {}", step.argv.join(" ")));
        let limit = Duration::from_secs(step.limit_s.into());
        let outcome = tokio::time::timeout(limit, run(sandbox, step)).await;
        let (output, failure) = match outcome {
            Ok((output, Ok(()))) => (output, None),
            Ok((output, Err(why))) => (output, Some(why)),
            Err(_) => (
                String::new(),
                Some(format!("it took more than {} s", step.limit_s)),
            ),
        };
        if let Some(why) = failure {
            let program = step.argv.first().map(String::as_str).unwrap_or_default();
            let last = output
                .lines()
                .rfind(|line| !line.trim().is_empty())
                .unwrap_or_default();
            let last: String = last.chars().filter(|c| !c.is_control()).take(200).collect();
            return Err(Report::environment(
                "image-unfinished",
                format!("the image's {program} does not work in the machine: {why} {last}"),
                format!(
                    "remove {} and create the sandbox again",
                    image.dir.display()
                ),
            ));
        }
        said.push_str(&output);
    }
    image.mark_finished(&said).map_err(|error| error.report())
}

/// Runs one step and returns what it said.
async fn run(sandbox: &Sandbox, step: &FinishStep) -> (String, Result<(), String>) {
    let request = Request::Exec(ExecRequest {
        argv: step
            .argv
            .iter()
            .map(|word| word.clone().into_bytes())
            .collect(),
        env: Vec::new(),
        workdir: Some("/".to_owned()),
        user: Some(step.user.clone()),
        terminal: None,
        stdin: false,
    });
    let mut output = Vec::new();
    let ended = async {
        let mut connection = Connection::open(sandbox, &request)
            .await
            .map_err(|error| error.to_string())?;
        loop {
            match connection
                .next::<ToClient>()
                .await
                .map_err(|error| error.to_string())?
            {
                Some(ToClient::Output(_, data)) => {
                    let room = MAX_OUTPUT.saturating_sub(output.len());
                    output.extend_from_slice(&data[..data.len().min(room)]);
                }
                Some(ToClient::Started) => {}
                Some(ToClient::Exited(ExitStatus::Code(0))) => return Ok(()),
                Some(ToClient::Exited(status)) => {
                    return Err(format!("exit code {}", status.code()));
                }
                Some(ToClient::ExecFailed(error)) => return Err(format!("{error:?}")),
                Some(ToClient::Lost(why)) => return Err(why),
                Some(other) => return Err(format!("{other:?} is no answer to a program")),
                None => return Err("the supervisor went away".to_owned()),
            }
        }
    };
    let ended = ended.await;
    (String::from_utf8_lossy(&output).into_owned(), ended)
}
