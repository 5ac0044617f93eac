//! What a gateway knows of what the one before it told the guest.

use std::net::Ipv4Addr;

use sbx_testkit::dns::Entry;
use sbx_wire::gateway::EgressRecord;

use crate::lab::{Lab, NOWHERE, Setup, run};
use crate::wire::datagram;

/// A lab in which `a.test` may be sent datagrams, and has been resolved to [`NOWHERE`]. Whether a datagram goes by the
/// name says whether the address is known for it; no datagram has to arrive for that.
fn lab() -> Lab {
    let mut setup = Setup::new(&["allow-udp a.test"]).name("a.test", &[NOWHERE]);
    setup.file.upstream.udp_egress = true;
    let lab = setup.start();
    run(async {
        assert_eq!(lab.resolve("a.test").await, Ok(vec![NOWHERE]));
        assert_eq!(lab.dns.recorder().queries_for("a.test"), 1);
    });
    lab
}

/// The record of a datagram to [`NOWHERE`], to a port that was not used before.
fn record_of(lab: &Lab, port: u16) -> EgressRecord {
    run(async {
        lab.guest().frame(&datagram(30_000, NOWHERE, port, b"x"));
        let fits = |record: &EgressRecord| record.port == port;
        lab.records_that(1, fits).await.remove(0)
    })
}

fn is_known(lab: &Lab, port: u16) -> bool {
    let record = record_of(lab, port);
    match (record.host.as_str(), record.allowed) {
        ("a.test", true) => true,
        ("203.0.113.9", false) => {
            assert_eq!(record.reason, "default-deny");
            false
        }
        _ => panic!("{record:?}"),
    }
}

#[test]
fn addresses_stay_with_their_names_through_a_restart() {
    let mut lab = lab();
    assert!(is_known(&lab, 9001));
    // The guest still has the old address, and nobody is asked about it.
    let elsewhere = Ipv4Addr::new(203, 0, 113, 10);
    lab.dns
        .set("a.test", Entry::addresses(60, &[elsewhere.into()]));
    lab.reboot();
    assert!(is_known(&lab, 9002));
    assert_eq!(lab.dns.recorder().queries_for("a.test"), 1);
    // And still after one that learnt nothing new.
    lab.reboot();
    assert!(is_known(&lab, 9003));
    run(async { assert_eq!(lab.resolve("a.test").await, Ok(vec![elsewhere])) });
}

#[test]
fn what_the_policy_no_longer_allows_is_not_taken_over() {
    let mut lab = lab();
    lab.set_rules(&["allow-udp b.test"]);
    lab.reboot();
    // Allowed again: the address has to be resolved anew.
    lab.set_rules(&["allow-udp a.test"]);
    assert!(!is_known(&lab, 9001));
    run(async { assert!(lab.resolve("a.test").await.is_ok()) });
    assert!(is_known(&lab, 9002));
}

#[test]
fn an_address_that_became_private_is_not_taken_over() {
    let mut lab = lab();
    let pins = lab.path("records/pins");
    let text = std::fs::read_to_string(&pins).unwrap();
    std::fs::write(&pins, text.replace("203.0.113.9", "10.1.2.3")).unwrap();
    lab.reboot();
    run(async {
        let address = Ipv4Addr::new(10, 1, 2, 3);
        lab.guest().frame(&datagram(30_000, address, 9001, b"x"));
        let record = lab.records_that(1, |r| r.port == 9001).await.remove(0);
        assert_eq!((record.host.as_str(), record.allowed), ("10.1.2.3", false));
    });
}

#[test]
fn a_broken_file_is_left_out_and_opens_nothing() {
    let mut lab = lab();
    let pins = lab.path("records/pins");
    let large = vec![b'9'; usize::try_from(sbx_gateway::limits::PIN_FILE).unwrap() + 1];
    for (port, text) in [
        (9001, &b"\xff\x00 broken\n"[..]),
        (
            9002,
            b"9999999999 a.test 203.0.113.9.1\n9999999999 ** 203.0.113.9\n",
        ),
        (9003, &large),
        (9004, b""),
    ] {
        std::fs::write(&pins, text).unwrap();
        lab.reboot();
        assert!(!is_known(&lab, port));
        assert!(lab.is_alive());
    }
    std::fs::remove_file(&pins).unwrap();
    std::fs::create_dir(&pins).unwrap();
    lab.reboot();
    assert!(!is_known(&lab, 9005));
    let log = std::fs::read_to_string(lab.path("log")).unwrap();
    for said in [
        "lines of the pins on disk are none",
        "too many",
        "pins are not kept",
    ] {
        assert!(log.contains(said), "{said}");
    }
}
