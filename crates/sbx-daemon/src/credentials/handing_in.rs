//! Keys of AWS that end soon, in what a sandbox and its gateway are given: see [`crate::short_lived`].

use super::InForce;
use crate::clock;
use crate::random;
use crate::record::{HandedKey, Record};
use sbx_secrets::ShortLived;
use sbx_wire::gateway::{
    Credential, HandedIn, SHORT_LIVED, SHORT_LIVED_ADDRESS, SHORT_LIVED_PATH, Withdrawn,
};
use sbx_wire::report::Report;

/// Digits of the token that a program shows.
const TOKEN: usize = 40;
const SERVICE: &str = "aws";

/// Whether the key has not ended at that time, seconds since the Unix epoch.
pub(crate) fn lasts(key: &HandedKey, now: u64) -> bool {
    key.end_s > now
}

fn wanted<'a>(found: &InForce<'a>) -> Option<&'a ShortLived> {
    let (_, secret) = found.services.get(SERVICE)?;
    secret.kind.short_lived()
}

/// Gives the sandbox a token for programs that ask; whether it had none.
pub(super) fn give(found: &InForce<'_>, record: &mut Record) -> Result<bool, Report> {
    let missing = wanted(found).is_some() && !record.placeholders.contains_key(SHORT_LIVED);
    if missing {
        let token = random::hex(TOKEN)?;
        record.placeholders.insert(SHORT_LIVED.to_owned(), token);
    }
    Ok(missing)
}

/// Variables in the place of those with the placeholder, which clients would take first. `None`: nothing is handed in.
pub(super) fn variables(found: &InForce<'_>, record: &Record) -> Option<Vec<(String, String)>> {
    wanted(found)?;
    let token = record.placeholders.get(SHORT_LIVED)?;
    let place = format!("http://{SHORT_LIVED_ADDRESS}{SHORT_LIVED_PATH}");
    Some(vec![
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI".to_owned(), place),
        (
            "AWS_CONTAINER_AUTHORIZATION_TOKEN".to_owned(),
            token.clone(),
        ),
    ])
}

/// Has the gateway hand keys in, and let pass what is signed with those that it has handed in.
pub(super) fn add(found: &InForce<'_>, record: &Record, credentials: &mut [Credential]) {
    let (Some(wanted), Some(token)) = (wanted(found), record.placeholders.get(SHORT_LIVED)) else {
        return;
    };
    let now = clock::unix_s();
    let keys = record.handed_in.iter();
    let keys = keys.filter(|key| key.of == wanted.id && lasts(key, now));
    let handed_in = HandedIn {
        token: token.clone(),
        ids: keys.map(|key| key.id.clone()).collect(),
    };
    let signing = credentials.iter_mut().filter_map(|one| one.aws.as_mut());
    for aws in signing {
        aws.handed_in = Some(handed_in.clone());
    }
}

/// Keys that were handed in and are of something that is not in force any more.
pub(super) fn withdrawn(found: &InForce<'_>, record: &Record) -> Vec<Withdrawn> {
    let (now, wanted) = (clock::unix_s(), wanted(found));
    let keys = record.handed_in.iter();
    let keys = keys.filter(|key| lasts(key, now) && wanted.is_none_or(|one| one.id != key.of));
    keys.map(|key| Withdrawn {
        service: SERVICE.to_owned(),
        placeholder: key.id.clone(),
    })
    .collect()
}
