//! Keys of AWS that end soon, for programs that must hold one: STS is asked on the host, with the stored key, which stays here.
//! A sandbox is handed one when a program in it asks, and another one some minutes before that ends.

use crate::clock;
use crate::credentials::{self, handing_in};
use crate::daemon::Daemon;
use crate::on_demand;
use crate::random;
use crate::record::HandedKey;
use crate::sandbox::Sandbox;
use crate::token_endpoint::{self, Head, Question};
use sbx_credentials::sigv4::{Ask, Keys, Session, Timestamp};
use sbx_secrets::{Held, Secret, ShortLived};
use sbx_wire::api::HandIn;
use sbx_wire::report::Report;
use sbx_wire::secret::SecretText;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// A key that ends sooner than this is not handed in any more, seconds. Programs ask for another one about then.
const LEFT_S: u64 = 300;
/// After a failure nobody is asked again for so long.
const PAUSE: Duration = Duration::from_secs(5);
/// Keys of a sandbox that are remembered: one is asked for every 10 minutes and ends 5 minutes later.
const MAX_HANDED: usize = 64;
/// Longest ARN of a role, bytes (STS API Reference, `AssumeRole`).
const MAX_ROLE: usize = 2048;
/// Region unless another one is named.
const REGION: &str = "us-east-1";

/// What is said of a key that is stored so.
pub(crate) const NOTICE: &str = "Keys that are good for 15 minutes will be inside of sandboxes: programs there can read them, \
     and use them at every host that the network rules allow";

/// What was got, by sandbox and by what was stored.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    slots: Mutex<HashMap<(String, String), Shared>>,
}

type Shared = Arc<tokio::sync::Mutex<Slot>>;

/// One of them. Locked while STS is asked, so that it is asked once for all who wait.
#[derive(Debug, Default)]
struct Slot {
    session: Option<Session>,
    failed: Option<(Instant, String)>,
}

impl Sessions {
    fn slot(&self, sandbox: &str, of: &str) -> Shared {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of sandboxes that are gone, and of what was stored before, end by themselves.
        slots.retain(|_, slot| slot.try_lock().map_or(true, |slot| slot.is_of_use()));
        let slot = slots.entry((sandbox.to_owned(), of.to_owned()));
        slot.or_default().clone()
    }
}

impl Slot {
    fn is_of_use(&self) -> bool {
        self.fresh().is_some() || self.failure().is_some()
    }

    fn fresh(&self) -> Option<&Session> {
        let enough = |session: &&Session| session.end_s() > clock::unix_s() + LEFT_S;
        self.session.as_ref().filter(enough)
    }

    fn failure(&self) -> Option<&str> {
        let (when, why) = self.failed.as_ref()?;
        (when.elapsed() < PAUSE).then_some(why)
    }
}

/// How keys are to be handed in, from a request.
pub(crate) fn of_request(service: &str, wanted: &HandIn) -> Result<ShortLived, Report> {
    let refused = |message: String, hint: &str| Report::user("short-lived", message, hint);
    if !crate::services::signs(service) {
        let message = format!("{service} has no keys that end soon");
        return Err(refused(message, "sbx secret set aws --short-lived"));
    }
    let region = wanted.region.as_deref().unwrap_or(REGION);
    let ask = Ask {
        region,
        role: None,
        name: "",
    };
    let (_, endpoint) = ask
        .endpoint()
        .map_err(|problem| refused(problem.to_string(), "--sts-region eu-west-1"))?;
    if let Some(role) = wanted.role.as_deref() {
        let shown: String = role.chars().filter(|c| !c.is_control()).take(80).collect();
        let partition = partition(role).ok_or_else(|| {
            let message = format!("{shown:?} is no ARN of a role");
            refused(message, "--role arn:aws:iam::123456789012:role/NAME")
        })?;
        if partition != endpoint.partition() {
            let message = format!("{shown:?} is no role of the part of AWS that {region} is in");
            return Err(refused(
                message,
                "--sts-region with a region of the role's own part, such as cn-north-1 for arn:aws-cn:",
            ));
        }
    }
    Ok(ShortLived {
        id: random::hex(32)?,
        region: region.to_owned(),
        role: wanted.role.clone(),
    })
}

/// The part of AWS that the ARN of a role names. `None`: it is none.
fn partition(text: &str) -> Option<&str> {
    let mut parts = text.splitn(6, ':');
    let begins = parts.next() == Some("arn");
    let partition = parts.next()?;
    let begins = begins
        && (partition == "aws" || partition.starts_with("aws-"))
        && parts.next() == Some("iam")
        && parts.next() == Some("");
    let account = parts.next().unwrap_or_default();
    let is_account = account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit());
    let name = parts.next().and_then(|rest| rest.strip_prefix("role/"));
    let is_name = name
        .is_some_and(|name| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()));
    (text.len() <= MAX_ROLE && begins && is_account && is_name).then_some(partition)
}

/// What a program in the sandbox is told that asks for a key; or why there is none, as a sentence that it may read.
pub(crate) async fn document(
    daemon: &Arc<Daemon>,
    sandbox: &Sandbox,
) -> Result<SecretText, String> {
    let (secret, wanted) = in_force(daemon, sandbox)?;
    let slot = daemon.short_lived.slot(&sandbox.id, &wanted.id);
    let mut slot = slot.lock().await;
    if slot.fresh().is_none() {
        if let Some(why) = slot.failure() {
            return Err(why.to_owned());
        }
        match renew(daemon, sandbox, &secret, &wanted).await {
            Ok(session) => slot.session = Some(session),
            Err(why) => {
                slot.failed = Some((Instant::now(), why.clone()));
                return Err(why);
            }
        }
    }
    // It may have been removed or replaced meanwhile.
    let (_, now) = in_force(daemon, sandbox)?;
    let session = slot.session.as_ref();
    let session = session.filter(|one| now.id == wanted.id && one.end_s() > clock::unix_s());
    let session = session.ok_or("the key was replaced meanwhile; ask again")?;
    tracing::info!(
        sandbox = sandbox.name,
        end_s = session.end_s(),
        "a key of AWS is handed in"
    );
    Ok(SecretText::new(session.document().to_string()))
}

/// The stored key of which others are handed into the sandbox.
fn in_force(daemon: &Daemon, sandbox: &Sandbox) -> Result<(Secret, ShortLived), String> {
    let vault = daemon.secrets();
    let mut secrets = vault.in_force(&sandbox.name).into_iter();
    let found = secrets.find_map(|secret| Some((secret, secret.kind.short_lived()?)));
    found
        .map(|(secret, wanted)| (secret.clone(), wanted.clone()))
        .ok_or_else(|| "no key of AWS is stored any more of which others are handed in".to_owned())
}

/// Gets another one, and has the gateway let pass what is signed with it.
async fn renew(
    daemon: &Arc<Daemon>,
    sandbox: &Sandbox,
    secret: &Secret,
    wanted: &ShortLived,
) -> Result<Session, String> {
    let value = match credentials::held(daemon, secret) {
        Held::Value(value) => value,
        Held::OnDemand => on_demand::fetched(daemon, secret).await?,
        Held::Unavailable(why) => return Err(why),
    };
    let keys = Keys::parse(value.expose()).map_err(|problem| format!("its value {problem}"))?;
    let ask = Ask {
        region: &wanted.region,
        role: wanted.role.as_deref(),
        name: &sandbox.name,
    };
    let time = Timestamp::of_rfc3339(&clock::now()).ok_or("the host has no time")?;
    let request = ask.request(&keys, time);
    let request = request.map_err(|problem| problem.to_string())?;
    let question = Question {
        host: &request.host,
        path: "/",
        head: Head::Signed(request.headers),
        body: SecretText::new(request.body),
    };
    let told = token_endpoint::ask(daemon, &question).await?;
    let session = Session::of_answer(told.status, told.body.expose(), clock::unix_s());
    let session = session.map_err(|problem| problem.to_string())?;
    let key = HandedKey {
        id: session.access_key_id().to_owned(),
        of: wanted.id.clone(),
        end_s: session.end_s(),
    };
    // Written down before it is inside: it is withdrawn even if the daemon ends meanwhile.
    sandbox
        .change_record(|record| {
            let now = clock::unix_s();
            record.handed_in.retain(|key| handing_in::lasts(key, now));
            record.handed_in.push(key);
            let beyond = record.handed_in.len().saturating_sub(MAX_HANDED);
            record.handed_in.drain(..beyond);
            Ok(())
        })
        .and_then(|()| daemon.keep_record(sandbox))
        .map_err(|report| report.message)?;
    let told = daemon.push(Some(&sandbox.name)).await;
    told.map_err(|error| error.0.message)?;
    Ok(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_have_one_form() {
        let china = "arn:aws-cn:iam::123456789012:role/agents";
        assert_eq!(partition(china), Some("aws-cn"));
        let standard = "arn:aws:iam::123456789012:role/path/agents";
        assert_eq!(partition(standard), Some("aws"));
        for text in [
            "",
            "agents",
            "arn:aws:iam::123456789012:role/",
            "arn:aws:iam::123456789012:user/me",
            "arn:aws:iam::12345678901:role/agents",
            "arn:aws:iam:us-east-1:123456789012:role/agents",
            "arn:aws:sts::123456789012:role/agents",
            "arn:awss:iam::123456789012:role/agents",
            "arn:aws:iam::123456789012:role/a b",
        ] {
            assert_eq!(partition(text), None, "{text}");
        }
    }
}
