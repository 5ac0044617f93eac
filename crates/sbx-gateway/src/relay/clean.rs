//! Answers without the values that were written into this request or an earlier one: head, body, trailers, the messages of
//! a WebSocket.

use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue};
use sbx_credentials::scrub::{self, Scrub};
use tokio::sync::OwnedSemaphorePermit;

use super::body::BodyError;
use super::decoding::{self, Decoder, Unknown};
use super::stage::Pass;
use crate::credentials::{Bound, Form, Part, Supplied};
use crate::decision::Grant;
use crate::gateway::Gateway;
use crate::records::Event;

/// Code of the record of a value that came back.
const CAME_BACK: &str = "value-in-answer";

/// Whether the body of an answer with these headers stays as it is. The key of a signature never leaves, and what names it
/// in an error comes as it is. What is compressed is somebody's object in S3, whose bytes have a checksum.
pub(super) fn is_object(supplied: &[Supplied], headers: &HeaderMap) -> bool {
    let signed = |one: &Supplied| matches!(one.credential.form, Form::Aws(_));
    !supplied.is_empty() && supplied.iter().all(signed) && headers.contains_key(CONTENT_ENCODING)
}

/// The values that were written into a request whose answer is looked into.
pub(super) struct Values {
    supplied: Vec<Supplied>,
    /// The answer is read here: a token that it issues stays in it.
    captured: bool,
}

/// For the answer with this status to a request that these were written into. `None`: nothing was ever bound there, so
/// nothing can come back.
pub(super) fn values(bound: &Bound, supplied: &[Supplied], status: StatusCode) -> Option<Values> {
    bound.sought.as_ref().map(|_| Values {
        supplied: supplied.to_vec(),
        // What is no success goes to the guest as it is.
        captured: status.is_success() && supplied.iter().any(|one| one.part == Part::Asks),
    })
}

/// What finds all that may come back now, and since when.
fn sought_at(grant: &Grant, values: &Values) -> (u64, Arc<Scrub>) {
    match &grant.bound.sought {
        Some(sought) => {
            // Read first: what changes after it is found the next time.
            let changes = sought.changes();
            let scrub = sought.at(&grant.target, &values.supplied, values.captured);
            (changes, scrub)
        }
        None => (0, Arc::new(Scrub::of_nothing())),
    }
}

/// See the module.
pub(super) struct Clean {
    values: Values,
    /// When `scrub` was made: what others were given since is found as well.
    changes: u64,
    scrub: Arc<Scrub>,
    stream: scrub::Stream,
    decoder: Option<Decoder>,
    gateway: Arc<Gateway>,
    grant: Arc<Grant>,
    /// The request, as it was recorded.
    event: Event,
    told: bool,
    /// For what the decoder holds.
    room: Option<OwnedSemaphorePermit>,
}

impl Clean {
    /// For the answer to a request. Cleans its head at once; what was compressed although nobody asked for it goes on as
    /// what it means. `opaque`: its body stays as it is. The error: what it means cannot be found out.
    pub(super) fn of_answer(
        values: Values,
        gateway: &Arc<Gateway>,
        grant: &Grant,
        event: &Event,
        headers: &mut HeaderMap,
        opaque: bool,
    ) -> Result<Option<Self>, Unknown> {
        // Values of other kinds are written into objects.
        let mut bound = grant.bound.credentials.iter();
        let opaque = opaque && bound.all(|one| one.aws().is_some());
        if opaque {
            let _ = Self::of_head(values, gateway, grant, event, headers);
            return Ok(None);
        }
        Self::new(values, gateway, grant, event, headers).map(Some)
    }

    fn new(
        values: Values,
        gateway: &Arc<Gateway>,
        grant: &Grant,
        event: &Event,
        headers: &mut HeaderMap,
    ) -> Result<Self, Unknown> {
        let decoder = Decoder::of(headers)?;
        // A part of what was compressed begins in the middle of it.
        if decoder.is_some() && headers.contains_key(CONTENT_RANGE) {
            return Err(Unknown);
        }
        // Somebody reads what comes, and would wait for it.
        if decoder.as_ref().is_some_and(|decoder| !decoder.is_prompt()) {
            return Err(Unknown);
        }
        if decoder.is_some() {
            headers.remove(CONTENT_ENCODING);
            headers.remove(CONTENT_LENGTH);
        }
        // Nobody asked for it, so nobody waits for room.
        let room = match &decoder {
            Some(decoder) if decoder.is_large() => Some(
                gateway
                    .decoding
                    .clone()
                    .try_acquire_owned()
                    .map_err(|_| Unknown)?,
            ),
            _ => None,
        };
        let announced = headers.contains_key(CONTENT_LENGTH);
        let mut clean = Self::begin(values, gateway, grant, event, decoder, announced);
        clean.room = room;
        clean.head(headers);
        Ok(clean)
    }

    fn begin(
        values: Values,
        gateway: &Arc<Gateway>,
        grant: &Grant,
        event: &Event,
        decoder: Option<Decoder>,
        announced: bool,
    ) -> Self {
        let (changes, scrub) = sought_at(grant, &values);
        Self {
            stream: scrub::Stream::new(scrub.clone(), announced),
            values,
            changes,
            scrub,
            decoder,
            gateway: gateway.clone(),
            grant: Arc::new(grant.clone()),
            event: event.clone(),
            told: false,
            room: None,
        }
    }

    /// Cleans the head of an answer. What is returned can clean what comes behind it, as pieces whose length nobody has
    /// announced.
    pub(super) fn of_head(
        values: Values,
        gateway: &Arc<Gateway>,
        grant: &Grant,
        event: &Event,
        headers: &mut HeaderMap,
    ) -> Self {
        let mut clean = Self::begin(values, gateway, grant, event, None, false);
        clean.head(headers);
        clean
    }

    /// A short text, which stays as long as it is.
    pub(super) fn whole(&mut self, text: Bytes) -> Bytes {
        self.renew();
        let passed = scrub::Stream::new(self.scrub.clone(), true).push(text, true);
        if passed.found {
            self.tell();
        }
        passed.text
    }

    /// Looks for what others were given in the meantime, too.
    fn renew(&mut self) {
        let sought = self.grant.bound.sought.as_ref();
        if sought.is_some_and(|sought| sought.changes() != self.changes) {
            let (changes, scrub) = sought_at(&self.grant, &self.values);
            self.stream.look_for(scrub.clone());
            self.changes = changes;
            self.scrub = scrub;
        }
    }

    fn head(&mut self, headers: &mut HeaderMap) {
        let mut found = false;
        for value in headers.values_mut() {
            if let Some(text) = self.scrub.whole(value.as_bytes()) {
                // A placeholder can stand in a header, or the daemon would not have made it.
                *value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
                found = true;
            }
        }
        if found {
            self.tell();
        }
    }

    fn tell(&mut self) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let grant = &self.grant;
        tracing::warn!(target = %grant.target, "an answer held the value of a credential");
        let mut event = self.event.clone();
        event.alert = Some(CAME_BACK);
        self.gateway.record(&grant.generation, event);
    }
}

impl Pass for Clean {
    fn pass(&mut self, piece: Bytes, last: bool) -> Result<Bytes, BodyError> {
        let piece = match &mut self.decoder {
            Some(decoder) => decoder.push(&piece, last).map_err(BodyError::Encoding)?,
            None => piece,
        };
        self.renew();
        let passed = self.stream.push(piece, last);
        if passed.found {
            self.tell();
        }
        Ok(passed.text)
    }

    fn step(&self) -> usize {
        decoding::step(self.decoder.as_ref())
    }

    fn expanded(&self) -> usize {
        self.decoder.as_ref().map_or(0, Decoder::came)
    }

    fn trailers(&mut self, trailers: &mut HeaderMap) -> Result<(), BodyError> {
        self.renew();
        self.head(trailers);
        Ok(())
    }
}
