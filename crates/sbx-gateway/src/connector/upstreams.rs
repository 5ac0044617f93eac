//! Connections to upstreams, used again by every connection of the guest under the same generation: one sandbox, one set
//! of credentials, one policy. A new generation begins with none.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use sbx_policy::Target;

use super::bulk::Above;
use super::http::{handshake_h1, handshake_h2};
use super::{SendError, Sender, dial, dial_tls};
use crate::adapter::hello::Offers;
use crate::decision::Grant;
use crate::limits;

/// A connection with what it was opened for.
pub struct Upstream {
    /// To send on.
    pub sender: Sender,
    /// Those of the generation under which it was opened.
    of: Weak<Upstreams>,
    /// Whom it is for, and whether in TLS.
    target: Arc<(Target, bool)>,
    /// The address that was dialled: a guest that chose another one does not get this connection.
    address: SocketAddr,
    /// What was offered to the upstream when it chose.
    offers: Offers,
    /// Requests in work on a connection of HTTP/2, and one for the connection itself.
    load: Arc<()>,
    since: Instant,
}

impl Upstream {
    /// A new connection for a client that speaks `offers`, in TLS or in clear text.
    pub async fn open(grant: &Grant, tls: bool, offers: Offers) -> Result<Self, SendError> {
        let stream = dial(grant).await?;
        let address = stream
            .peer_addr()
            .map_err(|error| super::DialError::Connect(grant.target.to_string(), error))?;
        let sender = if tls {
            let stream = dial_tls(grant, stream, offers).await?;
            match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => handshake_h2(Above::new(stream)).await?,
                _ => handshake_h1(Above::new(stream)).await?,
            }
        } else {
            handshake_h1(stream).await?
        };
        Ok(Self {
            sender,
            of: Arc::downgrade(&grant.generation.upstreams),
            target: Arc::new((grant.target.clone(), tls)),
            address,
            offers,
            load: Arc::default(),
            since: Instant::now(),
        })
    }

    /// Whether it may be used for this: the same host in the same way, at an address that is granted, opened under the
    /// policy, the overrides and the roots of this grant.
    pub fn is_for(&self, grant: &Grant, tls: bool) -> bool {
        let (target, in_tls) = &*self.target;
        std::ptr::eq(self.of.as_ptr(), Arc::as_ptr(&grant.generation.upstreams))
            && (target, *in_tls) == (&grant.target, tls)
            && grant.addresses.contains(&self.address)
    }

    /// Held by an answer for as long as it is passed on.
    pub fn load(&self) -> Arc<()> {
        self.load.clone()
    }

    /// The same connection for another request, if it carries several at a time.
    fn shared(&self) -> Option<Self> {
        match &self.sender {
            Sender::H1(_) => None,
            Sender::H2(sender) => Some(Self {
                sender: Sender::H2(sender.clone()),
                of: self.of.clone(),
                target: self.target.clone(),
                load: self.load.clone(),
                ..*self
            }),
        }
    }

    /// Whether no other request has it, and nobody keeps it for one.
    fn is_alone(&self) -> bool {
        Arc::strong_count(&self.load) == 1
    }

    fn suits(&self, grant: &Grant, offers: Offers) -> bool {
        // Who speaks HTTP/2 may get HTTP/1.1 only from an upstream that was asked for both.
        let spoken = match self.sender {
            Sender::H2(_) => offers.h2,
            Sender::H1(_) => !offers.h2 || self.offers.h2,
        };
        spoken && grant.addresses.contains(&self.address)
    }
}

#[derive(Default)]
struct Kept {
    /// `None` once the generation is over.
    by_target: Option<HashMap<(Target, bool), Vec<Upstream>>>,
    count: usize,
    swept: bool,
}

/// Connections that wait for a request, and those of HTTP/2 that can take one more.
pub struct Upstreams(Mutex<Kept>);

impl std::fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Upstreams")
    }
}

impl Default for Upstreams {
    fn default() -> Self {
        Self(Mutex::new(Kept {
            by_target: Some(HashMap::new()),
            ..Kept::default()
        }))
    }
}

impl Upstreams {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that fits and can take a request.
    pub fn take(&self, grant: &Grant, tls: bool, offers: Offers) -> Option<Upstream> {
        let mut kept = self.lock();
        let list = kept
            .by_target
            .as_mut()?
            .get_mut(&(grant.target.clone(), tls))?;
        let mut at = list.len();
        let mut gone = 0;
        let mut found = None;
        // The one used last is the one most likely to be open still.
        while found.is_none() && at > 0 {
            at -= 1;
            let upstream = &list[at];
            if upstream.sender.is_gone() {
                list.swap_remove(at);
                gone += 1;
            } else if upstream.suits(grant, offers) && upstream.sender.is_usable() {
                match &upstream.sender {
                    Sender::H1(_) => {
                        found = Some(list.swap_remove(at));
                        gone += 1;
                    }
                    Sender::H2(_) => {
                        if Arc::strong_count(&upstream.load) <= limits::H2_STREAMS_UPSTREAM {
                            found = upstream.shared();
                        }
                    }
                }
            }
        }
        kept.count -= gone;
        found
    }

    /// What an upstream has chosen for a client that speaks both, if that is known: whether it was HTTP/2.
    pub fn chose_h2(&self, grant: &Grant) -> Option<bool> {
        let kept = self.lock();
        let list = kept
            .by_target
            .as_ref()?
            .get(&(grant.target.clone(), true))?;
        let asked = |upstream: &&Upstream| {
            upstream.offers.h2 && upstream.offers.h1 && !upstream.sender.is_gone()
        };
        list.iter()
            .rfind(asked)
            .map(|upstream| upstream.sender.is_h2())
    }

    /// Lets others have a new connection that carries several requests at a time before the first one is answered:
    /// those that come at once would each open one.
    pub fn share(self: &Arc<Self>, grant: &Grant, tls: bool, upstream: &Upstream) {
        if upstream.is_alone()
            && let Some(shared) = upstream.shared()
        {
            self.put(grant, tls, shared);
        }
    }

    /// Gives nobody else this connection from now on, if it carries several requests at a time.
    pub fn withhold(&self, grant: &Grant, tls: bool, upstream: &Upstream) {
        let mut kept = self.lock();
        let by_target = kept.by_target.as_mut();
        let list = by_target.and_then(|all| all.get_mut(&(grant.target.clone(), tls)));
        let Some(list) = list else {
            return;
        };
        let before = list.len();
        list.retain(|other| !Arc::ptr_eq(&other.load, &upstream.load));
        let gone = before - list.len();
        kept.count -= gone;
    }

    /// Keeps a connection for the next request. One of HTTP/1.1 is used again only once its answer has been read.
    pub fn put(self: &Arc<Self>, grant: &Grant, tls: bool, mut upstream: Upstream) {
        if upstream.sender.is_gone() {
            return;
        }
        upstream.since = Instant::now();
        let mut kept = self.lock();
        let sweep = !kept.swept;
        let Some(by_target) = &mut kept.by_target else {
            return;
        };
        let list = by_target.entry((grant.target.clone(), tls)).or_default();
        let same = |old: &&mut Upstream| Arc::ptr_eq(&old.load, &upstream.load);
        if let Some(old) = list.iter_mut().find(same) {
            old.since = upstream.since;
            return;
        }
        list.push(upstream);
        kept.count += 1;
        kept.swept = true;
        if kept.count > limits::IDLE_UPSTREAMS {
            kept.drop_oldest();
        }
        drop(kept);
        if sweep {
            tokio::spawn(sweep_now_and_then(Arc::downgrade(self)));
        }
    }

    /// Closes what waits, and keeps nothing from now on.
    pub fn close(&self) {
        let mut kept = self.lock();
        kept.by_target = None;
        kept.count = 0;
    }
}

impl Kept {
    /// Drops a quarter at once: to look for the oldest costs as much as all that is kept.
    fn drop_oldest(&mut self) {
        let Some(by_target) = &mut self.by_target else {
            return;
        };
        let mut ages: Vec<Instant> = by_target.values().flatten().map(|u| u.since).collect();
        let last = ages.len() / 4;
        let (_, since, _) = ages.select_nth_unstable(last);
        let since = *since;
        by_target.retain(|_, list| {
            list.retain(|upstream| upstream.since > since);
            !list.is_empty()
        });
        self.count = by_target.values().map(Vec::len).sum();
    }

    /// Drops what nobody has used for too long. False: nothing will be kept any more.
    fn sweep(&mut self) -> bool {
        let Some(by_target) = &mut self.by_target else {
            return false;
        };
        by_target.retain(|_, list| {
            list.retain(|upstream| {
                let busy = Arc::strong_count(&upstream.load) > 1;
                let fresh = busy || upstream.since.elapsed() < limits::UPSTREAM_IDLE;
                fresh && !upstream.sender.is_gone()
            });
            !list.is_empty()
        });
        self.count = by_target.values().map(Vec::len).sum();
        true
    }
}

async fn sweep_now_and_then(upstreams: Weak<Upstreams>) {
    loop {
        tokio::time::sleep(limits::UPSTREAM_IDLE / 4).await;
        match upstreams.upgrade() {
            Some(upstreams) if upstreams.lock().sweep() => {}
            _ => return,
        }
    }
}
