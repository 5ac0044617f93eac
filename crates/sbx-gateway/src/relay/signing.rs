//! Requests to AWS on their way: the body is held where its signature has to be verified whole, and followed where it
//! streams.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::header::HeaderMap;
use hyper::http::request::Parts;
use sbx_credentials::sigv4::{Chunks, Digest, Hasher, MAX_CHUNK, Refusal, Verified};
use tokio::sync::OwnedSemaphorePermit;

use super::body::BodyError;
use super::http::{Granted, Inspected};
use super::page::{self, Answer};
use super::source::Source;
use super::stage::Pass;
use crate::connector::aws::{self, Complaint, Examined};
use crate::credentials::{AwsForm, Form, Supplied};
use crate::decision::{Denial, Grant};
use crate::gateway::Gateway;
use crate::limits;
use crate::reason::Reason;

/// A signature that was the placeholder's, to be made anew.
pub(super) struct Signing {
    pub(super) verified: Verified,
    pub(super) supplied: Supplied,
    /// The body is here whole.
    pub(super) whole: bool,
    /// Its digest as it goes on.
    pub(super) digest: Option<Digest>,
}

/// A body, and what is known of its signature.
pub(super) struct Admitted {
    pub(super) source: Source,
    pub(super) signing: Option<Signing>,
    /// What the body has to be found to be as it streams.
    pub(super) follows: Option<Follows>,
    /// Where a body that is broken off says why.
    pub(super) broken: Option<Broken>,
    /// Room for what is held.
    pub(super) _room: Option<OwnedSemaphorePermit>,
}

/// Why a body was broken off, once it was, and how the guest is told.
#[derive(Clone)]
pub(super) struct Broken {
    why: Arc<OnceLock<Refusal>>,
    complaint: Complaint,
}

impl Broken {
    /// What the guest and the record are told.
    pub(super) fn told(&self, grant: &Grant) -> Option<(Denial, Answer)> {
        let refusal = self.why.get()?;
        let denial = denial(grant, refusal);
        let page = page::aws(&denial, refusal, self.complaint);
        Some((denial, Ok(page)))
    }
}

/// Why a request does not go on.
enum Stop {
    Refused(Refusal),
    /// The guest broke its body off.
    Broken,
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Inspected {
    /// Verifies what is signed with a placeholder of AWS. Requests to other hosts pass.
    pub(super) async fn admit(
        &self,
        request: &Granted,
        parts: &Parts,
        body: Source,
    ) -> Result<Admitted, Answer> {
        let Some((supplied, form)) = signer(&request.supplied) else {
            return Ok(Admitted {
                source: body,
                signing: None,
                follows: None,
                broken: None,
                _room: None,
            });
        };
        // Apart: few requests go to AWS.
        let admitted = Box::pin(self.admit_signed(request, parts, body, supplied, form)).await;
        admitted.map_err(|stop| match stop {
            Stop::Refused(refusal) => {
                let denial = denial(&request.grant, &refusal);
                self.deny(&denial, parts);
                let complaint = Complaint::of(&request.grant, form, parts);
                Ok(page::aws(&denial, &refusal, complaint))
            }
            Stop::Broken => {
                let grant = &request.grant;
                let text = "the body broke off";
                let denial =
                    Denial::new(&grant.generation, &grant.target, Reason::BadRequest, text);
                self.deny(&denial, parts);
                Ok(page::bad_request(text))
            }
        })
    }

    async fn admit_signed(
        &self,
        request: &Granted,
        parts: &Parts,
        body: Source,
        supplied: &Supplied,
        form: &AwsForm,
    ) -> Result<Admitted, Stop> {
        let grant = &request.grant;
        let placeholder = &form.placeholder;
        let examined = aws::examine(grant, parts, form, self.tls(), now())?;
        let room = self.room(&examined, &body).await?;
        let (digest, in_chunks, whole) =
            (examined.digest(), examined.is_in_chunks(), examined.whole);
        let (source, held) = if whole {
            let (data, trailers) = held(body).await?;
            (
                Source::Read(Some(data.clone()).filter(|data| !data.is_empty()), trailers),
                Some(data),
            )
        } else {
            (body, None)
        };
        if let Some(digest) = digest
            && source.is_end_stream()
            && digest != Digest::of(b"")
        {
            return Err(Refusal::OtherBody.into());
        }
        let verified = examined.verify(parts, placeholder, held.as_deref())?;
        let broken = Broken {
            why: Arc::default(),
            complaint: Complaint::of(grant, form, parts),
        };
        let follows = digest.filter(|_| !source.is_end_stream());
        let follows = follows.map(|digest| Follows::digest(digest, &broken));
        let broken = (follows.is_some() || in_chunks).then_some(broken);
        Ok(Admitted {
            source,
            signing: verified.map(|verified| Signing {
                verified,
                supplied: supplied.clone(),
                whole,
                digest: None,
            }),
            follows,
            broken,
            _room: room,
        })
    }

    /// Waits for room for what has to be held of the body.
    async fn room(
        &self,
        examined: &Examined,
        body: &Source,
    ) -> Result<Option<OwnedSemaphorePermit>, Stop> {
        let bytes = if examined.whole {
            let announced = body.size_hint();
            let most = announced.upper().unwrap_or(limits::AWS_BODY as u64);
            if announced.lower() > limits::AWS_BODY as u64 {
                return Err(Refusal::TooLarge.into());
            }
            usize::try_from(most)
                .unwrap_or(limits::AWS_BODY)
                .min(limits::AWS_BODY)
        } else if examined.is_in_chunks() {
            MAX_CHUNK
        } else {
            return Ok(None);
        };
        let gateway: &Gateway = &self.gateway;
        let units = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        // Nobody closes it.
        Ok(gateway.held.clone().acquire_many_owned(units).await.ok())
    }
}

/// The credential that requests are signed with.
fn signer(supplied: &[Supplied]) -> Option<(&Supplied, &AwsForm)> {
    supplied.iter().find_map(|one| match &one.credential.form {
        Form::Aws(form) => Some((one, form)),
        Form::Header { .. } | Form::Replace { .. } | Form::Login | Form::Registry(_) => None,
    })
}

fn denial(grant: &Grant, refusal: &Refusal) -> Denial {
    let reason = match refusal {
        Refusal::Issuing(_) => Reason::CredentialIssuer,
        _ => Reason::AwsSignature,
    };
    Denial::new(
        &grant.generation,
        &grant.target,
        reason,
        refusal.to_string(),
    )
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// The whole of a body, which has a bound.
async fn held(mut body: Source) -> Result<(Bytes, Option<HeaderMap>), Stop> {
    let mut data = BytesMut::new();
    let mut trailers = None;
    loop {
        let next = tokio::time::timeout(limits::BODY_IDLE, body.frame()).await;
        let Ok(next) = next else {
            return Err(Stop::Broken);
        };
        let Some(frame) = next else {
            return Ok((data.freeze(), trailers));
        };
        match frame.map_err(|_| Stop::Broken)?.into_data() {
            Ok(piece) if data.len() + piece.len() > limits::AWS_BODY => {
                return Err(Refusal::TooLarge.into());
            }
            Ok(piece) => data.extend_from_slice(&piece),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
}

/// A body that has to be what was signed: it is broken off before its end when it turns out not to be.
pub(super) struct Follows {
    how: How,
    broken: Broken,
}

enum How {
    /// The last piece waits until the digest is known, so that nobody ever gets the whole of another body.
    Digest {
        wanted: Digest,
        hasher: Hasher,
        last: Bytes,
    },
    Chunks(Box<Chunks>),
}

impl Follows {
    fn digest(wanted: Digest, broken: &Broken) -> Self {
        let (hasher, last) = (Hasher::new(), Bytes::new());
        Self {
            how: How::Digest {
                wanted,
                hasher,
                last,
            },
            broken: broken.clone(),
        }
    }

    /// A body in signed chunks, which are signed anew.
    pub(super) fn chunks(chunks: Chunks, broken: &Broken) -> Self {
        Self {
            how: How::Chunks(Box::new(chunks)),
            broken: broken.clone(),
        }
    }
}

impl Pass for Follows {
    fn pass(&mut self, piece: Bytes, last: bool) -> Result<Bytes, BodyError> {
        let passed = match &mut self.how {
            How::Digest {
                wanted,
                hasher,
                last: held,
            } => {
                hasher.update(&piece);
                if last {
                    let fits = hasher.clone().finish() == *wanted;
                    let end = [&std::mem::take(held)[..], &piece[..]].concat();
                    fits.then(|| Bytes::from(end)).ok_or(Refusal::OtherBody)
                } else if piece.is_empty() {
                    Ok(piece)
                } else {
                    Ok(std::mem::replace(held, piece))
                }
            }
            How::Chunks(chunks) => {
                let passed = chunks.push(&piece);
                let passed = passed.and_then(|passed| {
                    if last {
                        chunks.finish()?;
                    }
                    Ok(passed)
                });
                passed.map_err(Refusal::from)
            }
        };
        passed.map_err(|refusal| {
            let _ = self.broken.why.set(refusal);
            BodyError::Signature
        })
    }

    /// No signature covers them: chunks have theirs inside of the body.
    fn trailers(&mut self, _trailers: &mut HeaderMap) -> Result<(), BodyError> {
        Ok(())
    }
}
