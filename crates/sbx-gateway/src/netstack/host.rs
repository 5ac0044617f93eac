//! What crosses between the network thread and the tokio runtime besides the bytes of connections.

use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smoltcp::wire::IpEndpoint;
use tokio::net::TcpStream;

use super::pipe::Wake;
use super::{Flow, GuestStream};
use crate::reason::Reason;

/// What the network thread hands over. All of it happens on the tokio runtime.
pub trait Host: Send + Sync + 'static {
    /// A connection to the gateway's DNS port.
    fn dns_stream(&self, stream: GuestStream);
    /// A DNS question; the answer goes to [`Answers::dns`].
    fn dns_question(&self, question: Vec<u8>, ticket: DnsTicket);
    /// A connection to the forward proxy.
    fn proxy(&self, stream: GuestStream);
    /// A connection to port 80 of any address.
    fn http(&self, stream: GuestStream);
    /// A connection to port 443 of any address.
    fn tls(&self, stream: GuestStream);
    /// A SYN to another port. False: denied. True: [`Answers::dialled`] follows.
    fn raw(&self, flow: Flow) -> bool;
    /// The connection of an allowed SYN, whose upstream has been dialled.
    fn raw_stream(&self, stream: GuestStream, upstream: Dialled);
    /// Something was stopped.
    fn stopped(&self, reason: Reason, address: Ipv4Addr, port: u16);
}

/// An upstream connection with what belongs to it.
pub struct Dialled {
    /// The connection.
    pub stream: TcpStream,
    /// What it was granted for.
    pub grant: crate::decision::Grant,
}

/// Where an answer to a DNS question goes.
pub struct DnsTicket {
    pub(super) to: IpEndpoint,
    pub(super) answers: Arc<Answers>,
}

impl DnsTicket {
    /// Sends the answer, or gives up with `None`. Every ticket has to come back.
    pub fn answer(self, answer: Option<Vec<u8>>) {
        let mut inbox = self.answers.lock();
        inbox.dns.push_back((self.to, answer));
        drop(inbox);
        self.answers.wake.ring();
    }
}

/// What the tokio side gives back to the network thread. Bounded by what was asked for.
pub struct Answers {
    inbox: Mutex<Inbox>,
    pub(super) wake: Arc<Wake>,
}

#[derive(Default)]
pub(super) struct Inbox {
    pub(super) dns: VecDeque<(IpEndpoint, Option<Vec<u8>>)>,
    pub(super) dialled: Vec<(Flow, Option<Dialled>)>,
}

impl Answers {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The outcome of a SYN that [`Host::raw`] allowed. `None`: the upstream refused; so does the SYN.
    pub fn dialled(&self, flow: Flow, upstream: Option<Dialled>) {
        self.lock().dialled.push((flow, upstream));
        self.wake.ring();
    }

    /// What a network thread and its host share.
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            inbox: Mutex::default(),
            wake: Arc::new(Wake::new()?),
        }))
    }
}
