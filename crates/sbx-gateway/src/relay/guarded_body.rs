//! The body of a request on its way up, or the messages of a WebSocket: placeholders that must not go there are looked
//! for, and those that stand for a value in the body are replaced.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use sbx_credentials::scrub::{self, Scrub};
use sbx_credentials::stray;
use sbx_credentials::substitute::for_body;

use tokio::sync::OwnedSemaphorePermit;

use super::body::BodyError;
use super::decoding::{self, Decoder};
use super::stage::Pass;
use super::supply;
use crate::credentials::{Bound, Form, Supplied};
use crate::decision::{Denial, Grant};
use crate::gateway::Gateway;
use crate::reason::Reason;
use crate::records::Event;

/// Code of the record of a placeholder that was made unreadable.
const MASKED: &str = "placeholder-masked";

/// What passes over the pieces of a body. `None` from [`BodyGuard::new`]: nothing has to.
pub(super) struct BodyGuard {
    strays: Option<stray::Stream>,
    /// What is looked at is not what goes on.
    decoder: Option<Decoder>,
    /// Placeholders are made unreadable; else they break the body off.
    mask: bool,
    /// What may be the beginning of a placeholder waits for what comes behind it. Else it goes on, since in a body that is
    /// a conversation of two programs the other one may have to answer first.
    hold: bool,
    write: Option<scrub::Stream>,
    report: Report,
    /// Room for what the decoder holds; given back with it.
    room: Option<OwnedSemaphorePermit>,
}

/// Who is told of what was found.
struct Report {
    gateway: Arc<Gateway>,
    grant: Arc<Grant>,
    /// The request, as it will be recorded.
    event: Event,
    told: bool,
    stopped: Stopped,
}

/// Why a body was broken off, once it was. It has been recorded then.
pub(super) type Stopped = Arc<OnceLock<Denial>>;

impl BodyGuard {
    /// For a request with this head. `fixed`: its body must not change on its way. The error: the body cannot be looked
    /// into.
    pub(super) fn new(
        gateway: &Arc<Gateway>,
        grant: &Grant,
        supplied: &[Supplied],
        headers: &HeaderMap,
        event: &Event,
        fixed: bool,
    ) -> Result<Option<Self>, Denial> {
        let write = replacements(supplied, headers);
        let Some(mut guard) = Self::begin(gateway, grant, write, event) else {
            return Ok(None);
        };
        let denied = |text| {
            let (generation, target) = (&grant.generation, &grant.target);
            Denial::new(generation, target, Reason::BodyEncoding, text)
        };
        guard.decoder = Decoder::of(headers).map_err(|_| {
            denied("The body has to be looked into for placeholders, and is compressed in a way that cannot be undone here")
        })?;
        if guard.decoder.is_some() && guard.write.is_some() {
            return Err(denied(
                "A value is to be written into the body, and it is compressed",
            ));
        }
        // What is compressed stays as it is.
        guard.mask &= guard.decoder.is_none() && !fixed;
        guard.hold = guard.mask;
        Ok(Some(guard))
    }

    /// For the messages of a WebSocket, one after the other. Nothing says of what type they are, so a value is written as
    /// it is.
    pub(super) fn of_messages(
        gateway: &Arc<Gateway>,
        grant: &Grant,
        supplied: &[Supplied],
        event: &Event,
    ) -> Option<Self> {
        let write = replacements(supplied, &HeaderMap::new());
        Self::begin(gateway, grant, write, event)
    }

    fn begin(
        gateway: &Arc<Gateway>,
        grant: &Grant,
        write: Option<Scrub>,
        event: &Event,
    ) -> Option<Self> {
        let bound: &Bound = &grant.bound;
        if bound.strays.is_none() && write.is_none() {
            return None;
        }
        Some(Self {
            strays: bound.strays.clone().map(stray::Stream::new),
            mask: bound.conversation,
            // A message has an end, at which nothing waits.
            hold: true,
            decoder: None,
            write: write.map(|write| scrub::Stream::new(Arc::new(write), false)),
            report: Report {
                gateway: gateway.clone(),
                grant: Arc::new(grant.clone()),
                event: event.clone(),
                told: false,
                stopped: Stopped::default(),
            },
            room: None,
        })
    }

    /// Waits for room for a decoder that holds much.
    pub(super) async fn make_room(&mut self, gateway: &Gateway) {
        if self.decoder.as_ref().is_some_and(Decoder::is_large) {
            // Nobody closes it.
            self.room = gateway.decoding.clone().acquire_owned().await.ok();
        }
    }

    /// Looks at texts that pass whole or not at all: there is no reason to quote anything in them, and nothing is written.
    pub(super) fn whole<'a>(
        &mut self,
        mut texts: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), BodyError> {
        let bound = self.report.grant.bound.clone();
        let found = bound
            .strays
            .as_ref()
            .and_then(|strays| texts.find_map(|text| strays.find(text)));
        match found {
            None => Ok(()),
            Some(number) => {
                self.report.tell(number, false);
                Err(BodyError::Placeholder)
            }
        }
    }

    /// Why it breaks the body off, once it does.
    pub(super) fn stopped(&self) -> Stopped {
        self.report.stopped.clone()
    }
}

impl Pass for BodyGuard {
    fn pass(&mut self, piece: Bytes, last: bool) -> Result<Bytes, BodyError> {
        let mut piece = piece;
        if let Some(strays) = &mut self.strays {
            let plain = match &mut self.decoder {
                Some(decoder) => decoder.push(&piece, last).map_err(BodyError::Encoding)?,
                None => piece.clone(),
            };
            let passed = strays.push(plain, last);
            if let Some(number) = passed.found {
                self.report.tell(number, self.mask);
                if !self.mask {
                    return Err(BodyError::Placeholder);
                }
            }
            if let Some(decoder) = &mut self.decoder {
                piece = decoder.behind(piece).map_err(BodyError::Encoding)?;
            }
            if self.hold {
                piece = passed.text;
            }
        }
        if let Some(write) = &mut self.write {
            piece = write.push(piece, last).text;
        }
        Ok(piece)
    }

    fn step(&self) -> usize {
        decoding::step(self.decoder.as_ref())
    }

    fn expanded(&self) -> usize {
        self.decoder.as_ref().map_or(0, Decoder::came)
    }

    /// As in the head.
    fn trailers(&mut self, trailers: &mut HeaderMap) -> Result<(), BodyError> {
        self.whole(trailers.values().map(HeaderValue::as_bytes))
    }
}

fn replacements(supplied: &[Supplied], headers: &HeaderMap) -> Option<Scrub> {
    let media_type = headers.get(CONTENT_TYPE);
    let media_type = media_type.and_then(|value| value.to_str().ok());
    let pairs: Vec<(&str, String)> = supplied
        .iter()
        .filter(|one| matches!(one.credential.form, Form::Replace { body: true }))
        .map(|one| {
            let value = one.material.text.expose();
            let value = for_body(media_type.unwrap_or_default(), value);
            (one.credential.placeholder.as_str(), value)
        })
        .collect();
    Scrub::for_sending(pairs.iter().map(|(from, to)| (*from, to.as_str())))
}

impl Report {
    fn tell(&mut self, number: usize, masked: bool) {
        // Once for what was made unreadable, and for what ends the request in any case.
        if std::mem::replace(&mut self.told, true) && masked {
            return;
        }
        let grant = &self.grant;
        let owner = grant.bound.owner(number);
        let denial = supply::stray(grant, owner);
        tracing::warn!(target = %grant.target, masked, "{}", denial.text);
        let mut event = self.event.clone();
        if masked {
            event.alert = Some(MASKED);
        } else {
            event.reason = denial.reason;
        }
        self.gateway.record(&grant.generation, event);
        if !masked {
            let _ = self.stopped.set(denial);
        }
    }
}
