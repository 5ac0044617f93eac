//! What crosses between the network task and the other tasks besides the bytes of connections.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::stream::Wake;
use super::{Flow, GuestStream};
use crate::limits;
use crate::reason::Reason;

/// What the network task hands over. None of it waits.
pub trait Host: Send + Sync + 'static {
    /// A connection to the gateway's DNS port.
    fn dns_stream(&self, stream: GuestStream);
    /// A DNS question; the answer goes to [`DnsTicket::answer`].
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
    /// The first datagram of a UDP flow. Where its datagrams go, or nothing: refused.
    fn datagrams(&self, flow: Flow) -> Option<Datagrams>;
    /// Something was stopped.
    fn stopped(&self, reason: Reason, address: IpAddr, port: u16);
}

/// An upstream connection with what belongs to it.
pub struct Dialled {
    /// The connection.
    pub stream: TcpStream,
    /// Permission to stay open, from before it was dialled.
    pub lease: crate::live::Lease,
}

/// Where the datagrams of an allowed UDP flow go.
pub struct Datagrams {
    /// The queue. The flow is over once its receiver is gone.
    pub queue: mpsc::Sender<Sending>,
    /// Whether it is allowed any more: known before the task at the other end has heard of it.
    pub feed: crate::live::Feed,
}

/// A datagram on its way, with its room among those of all flows.
pub type Sending = (Vec<u8>, OwnedSemaphorePermit);

impl Datagrams {
    /// Passes a datagram on, if there is room: it is lost else, as datagrams may be. `room`: of those of all flows.
    pub(super) fn offer(&self, datagram: Vec<u8>, room: &Arc<Semaphore>) {
        let length = u32::try_from(datagram.len()).unwrap_or(u32::MAX);
        if let Ok(room) = room.clone().try_acquire_many_owned(length) {
            drop(self.queue.try_send((datagram, room)));
        }
    }

    /// Whether the flow is over: the next datagram is judged like a first one.
    pub(super) fn is_over(&self) -> bool {
        self.queue.is_closed() || self.feed.is_revoked()
    }
}

/// What a SYN is told whose upstream cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// RST: nobody listens there, or it is not allowed any more.
    Refused,
    /// ICMP host unreachable: there is no way there, or nobody answers.
    Unreachable,
}

/// Where an answer to a DNS question goes.
pub struct DnsTicket {
    pub(super) flow: Flow,
    pub(super) answers: Arc<Answers>,
}

impl DnsTicket {
    /// Sends the answer, or gives up with `None`. Every ticket has to come back.
    pub fn answer(self, answer: Option<Vec<u8>>) {
        self.answers.push(Word::Dns(self.flow, answer));
    }
}

/// What the other tasks give back to the network task. Bounded by what was asked for.
#[derive(Default)]
pub struct Answers {
    inbox: Mutex<Inbox>,
    pub(super) wake: Arc<Wake>,
}

/// Something for the network task.
pub(super) enum Word {
    /// The answer to a question, if there is one.
    Dns(Flow, Option<Vec<u8>>),
    /// What became of a SYN.
    Dialled(Flow, Result<Dialled, Refusal>),
    /// A datagram for the guest.
    Datagram(Flow, Vec<u8>),
    /// Nobody listens where the guest sent a datagram to.
    Closed(Flow),
}

#[derive(Default)]
struct Inbox {
    words: VecDeque<Word>,
    /// What the datagrams among them cost, in bytes.
    datagrams: usize,
}

/// What a datagram costs besides its payload, in bytes.
const ENTRY: usize = 64;

impl Answers {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, word: Word) {
        self.lock().words.push_back(word);
        self.wake.ring();
    }

    /// The oldest word.
    pub(super) fn next(&self) -> Option<Word> {
        let mut inbox = self.lock();
        let word = inbox.words.pop_front()?;
        match &word {
            Word::Datagram(_, payload) => inbox.datagrams -= ENTRY + payload.len(),
            Word::Closed(_) => inbox.datagrams -= ENTRY,
            _ => {}
        }
        Some(word)
    }

    /// The outcome of a SYN that [`Host::raw`] allowed.
    pub fn dialled(&self, flow: Flow, upstream: Result<Dialled, Refusal>) {
        self.push(Word::Dialled(flow, upstream));
    }

    /// A datagram for the guest. Left out when too many wait.
    pub fn datagram(&self, flow: Flow, payload: Vec<u8>) {
        self.push_bounded(ENTRY + payload.len(), Word::Datagram(flow, payload));
    }

    /// Nobody listens where the guest sent a datagram to. Left out when too many wait.
    pub fn closed(&self, flow: Flow) {
        self.push_bounded(ENTRY, Word::Closed(flow));
    }

    fn push_bounded(&self, cost: usize, word: Word) {
        let mut inbox = self.lock();
        if inbox.datagrams + cost <= limits::UDP_WAITING {
            inbox.datagrams += cost;
            inbox.words.push_back(word);
            drop(inbox);
            self.wake.ring();
        }
    }

    /// What a network task and its host share.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn datagrams_that_wait_for_the_hosts_network_are_bounded_in_bytes_and_those_that_went_make_room()
     {
        let (queue, mut receiver) = mpsc::channel(limits::UDP_QUEUE);
        let feed = crate::live::tests::lease().feed();
        let open = Datagrams { queue, feed };
        let room = Arc::new(Semaphore::new(1000));
        for length in [600, 500, 400, 1] {
            open.offer(vec![0; length], &room);
        }
        let mut waiting = |number: usize| -> Vec<usize> {
            let next = std::iter::from_fn(|| receiver.try_recv().ok());
            next.take(number)
                .map(|(datagram, _)| datagram.len())
                .collect()
        };
        assert_eq!(waiting(1), [600]);
        open.offer(vec![0; 600], &room);
        assert_eq!(waiting(9), [400, 600]);
        assert_eq!(room.available_permits(), 1000);
    }

    #[test]
    fn datagrams_that_wait_for_the_guest_are_bounded_and_nothing_else_is_left_out_for_them() {
        let answers = Answers::new();
        let flow = Flow {
            source: 40_000,
            address: Ipv4Addr::new(203, 0, 113, 9),
            port: 53,
        };
        let payload = vec![0; 1000];
        for _ in 0..limits::UDP_WAITING / payload.len() {
            answers.datagram(flow, payload.clone());
        }
        for _ in 0..limits::UDP_WAITING / ENTRY {
            answers.closed(flow);
        }
        let answers_of_dns = 10;
        for _ in 0..answers_of_dns {
            let answers = answers.clone();
            DnsTicket { flow, answers }.answer(None);
        }
        let (mut cost, mut dns) = (0, 0);
        while let Some(word) = answers.next() {
            match word {
                Word::Datagram(_, payload) => cost += ENTRY + payload.len(),
                Word::Closed(_) => cost += ENTRY,
                Word::Dns(..) => dns += 1,
                Word::Dialled(..) => panic!("nothing was dialled"),
            }
        }
        assert_eq!(dns, answers_of_dns);
        assert!(
            cost <= limits::UDP_WAITING && cost > limits::UDP_WAITING - ENTRY,
            "{cost}"
        );
        // What was taken makes room.
        answers.datagram(flow, payload);
        assert!(matches!(answers.next(), Some(Word::Datagram(..))));
    }
}
