//! SYNs whose upstream is being dialled.

use std::io::Read;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrV4, SocketType};
use sbx_gateway::addresses::GATEWAY;
use sbx_gateway::limits;
use smoltcp::wire::TcpControl;

use crate::lab::{Lab, Setup, run};
use crate::wire::{Answer, answer_to, segment, unreachable};

/// A listener whose queue is full: whoever connects waits until it is emptied.
struct Congested {
    listener: TcpListener,
    _filler: TcpStream,
}

impl Congested {
    fn start() -> Self {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        rustix::net::listen(&socket, 0).unwrap();
        let listener = TcpListener::from(socket);
        let filler = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Self {
            listener,
            _filler: filler,
        }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// Takes the connection that fills the queue out of it.
    fn empty(&self) {
        drop(self.listener.accept().unwrap());
    }

    fn lab(&self) -> Lab {
        Setup::new(&[&format!("allow localhost:{}", self.port())]).start()
    }

    fn send(&self, lab: &Lab, source: u16, control: TcpControl, sequence: i32) {
        let frame = segment(source, GATEWAY, self.port(), control, sequence);
        lab.guest().frame(&frame);
    }

    /// Waits until the gateway has seen what was sent so far: it takes frames in their order.
    async fn heard(&self, lab: &Lab) {
        assert!(lab.resolve("gateway.docker.internal").await.is_ok());
    }

    /// Waits for an answer to a port of the guest.
    async fn answer(&self, lab: &Lab, to: u16) -> Answer {
        loop {
            let answers = answer_to(&lab.guest().captured(), GATEWAY, self.port(), to);
            match answers.first() {
                Some(answer) => return *answer,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

#[test]
fn a_repeated_syn_makes_one_dial_and_the_newest_is_answered() {
    let upstream = Congested::start();
    let lab = upstream.lab();
    run(async {
        for sequence in [1000, 1000, 1000, 5000] {
            upstream.send(&lab, 30_000, TcpControl::Syn, sequence);
        }
        // Nothing is accepted before the upstream does.
        upstream.heard(&lab).await;
        assert!(answer_to(&lab.guest().captured(), GATEWAY, upstream.port(), 30_000).is_empty());
        upstream.empty();
        let answer = upstream.answer(&lab, 30_000).await;
        assert_eq!(
            (answer.syn, answer.reset, answer.acknowledges),
            (true, false, 5001)
        );
        drop(upstream.listener.accept().unwrap());
        // A second dial would have ended by the time of a later one.
        lab.guest().connect(GATEWAY, upstream.port()).await.unwrap();
        lab.records_that(2, |record| record.reason == "allow-rule")
            .await;
    });
}

#[test]
fn a_syn_that_is_taken_back_is_not_answered_and_one_after_it_is() {
    let upstream = Congested::start();
    let lab = upstream.lab();
    run(async {
        upstream.send(&lab, 30_000, TcpControl::Syn, 1000);
        upstream.send(&lab, 30_000, TcpControl::Rst, 1001);
        upstream.heard(&lab).await;
        upstream.empty();
        // The dial was under way; nothing is sent on it.
        lab.one_record("allow-rule", "localhost").await;
        let (mut dialled, _) = upstream.listener.accept().unwrap();
        assert_eq!(dialled.read(&mut [0]).unwrap(), 0);
    });
    let upstream = Congested::start();
    let lab = upstream.lab();
    run(async {
        upstream.send(&lab, 30_000, TcpControl::Syn, 1000);
        upstream.send(&lab, 30_000, TcpControl::Rst, 1001);
        upstream.send(&lab, 30_000, TcpControl::Syn, 9000);
        upstream.heard(&lab).await;
        upstream.empty();
        let answer = upstream.answer(&lab, 30_000).await;
        assert_eq!(
            (answer.syn, answer.reset, answer.acknowledges),
            (true, false, 9001)
        );
        lab.one_record("allow-rule", "localhost").await;
    });
}

#[test]
fn a_syn_that_a_new_policy_does_not_allow_is_refused() {
    let upstream = Congested::start();
    let mut lab = upstream.lab();
    run(async {
        upstream.send(&lab, 30_000, TcpControl::Syn, 1000);
        assert!(lab.resolve("gateway.docker.internal").await.is_ok());
        tokio::task::block_in_place(|| lab.set_rules(&["allow a.test"]));
        let answer = upstream.answer(&lab, 30_000).await;
        assert!(answer.reset);
        let record = lab.one_record("policy-changed", "localhost").await;
        assert!(!record.allowed);
    });
}

#[test]
fn where_there_is_no_way_the_guest_is_told_so() {
    // Nobody can connect to a broadcast address.
    let lab = Setup::new(&["allow db.test"])
        .send_to("db.test:5432", "255.255.255.255:5432".parse().unwrap())
        .start();
    run(async {
        let address = lab.resolve("db.test").await.unwrap()[0];
        let frame = segment(30_000, address, 5432, TcpControl::Syn, 0x0102_0304);
        lab.guest().frame(&frame);
        lab.one_record("upstream-unreachable", "db.test").await;
        let words = loop {
            let words = unreachable(&lab.guest().captured());
            if !words.is_empty() {
                break words;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        // Host unreachable; the ports and the sequence number are those of the SYN.
        let quoted = vec![0x75, 0x30, 0x15, 0x38, 1, 2, 3, 4];
        assert_eq!(words, [(1, quoted)]);
        assert!(answer_to(&lab.guest().captured(), address, 5432, 30_000).is_empty());
    });
}

#[test]
fn syns_beyond_those_that_may_wait_are_refused() {
    let upstream = Congested::start();
    let lab = upstream.lab();
    run(async {
        let beyond = 30_000 + u16::try_from(limits::PARKED_SYNS).unwrap();
        for source in 30_000..=beyond {
            upstream.send(&lab, source, TcpControl::Syn, 1000);
        }
        assert!(upstream.answer(&lab, beyond).await.reset);
        lab.one_record("connection-limit", &GATEWAY.to_string())
            .await;
        // Those that are taken back keep their places: their dials are still under way.
        for source in 30_000..beyond {
            upstream.send(&lab, source, TcpControl::Rst, 1001);
        }
        upstream.send(&lab, 29_999, TcpControl::Syn, 1000);
        assert!(upstream.answer(&lab, 29_999).await.reset);
        // Others are served meanwhile.
        assert!(lab.guest().connect(GATEWAY, 3128).await.is_ok());
    });
}
