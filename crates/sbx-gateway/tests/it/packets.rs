//! What is neither HTTP nor DNS.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::process::CommandExt;

use sbx_gateway::addresses::{GATEWAY, GUEST};
use sbx_gateway::limits;
use sbx_testkit::Recorder;
use sbx_testkit::upstream::TcpEcho;
use sbx_wire::gateway::EgressRecord;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv4Message, Icmpv4Packet, Icmpv4Repr, IpProtocol,
    Ipv4Packet,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::lab::{NOWHERE, Setup, run};
use crate::wire::frame;
pub(crate) use crate::wire::packet;

pub(crate) fn echo_request() -> Vec<u8> {
    let repr = Icmpv4Repr::EchoRequest {
        ident: 1,
        seq_no: 1,
        data: b"payload",
    };
    let mut icmp = vec![0; repr.buffer_len()];
    let checksums = ChecksumCapabilities::default();
    repr.emit(&mut Icmpv4Packet::new_unchecked(&mut icmp), &checksums);
    icmp
}

/// A UDP datagram of the guest in a frame.
pub(crate) fn datagram(to: Ipv4Addr, port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut udp = vec![0x9c, 0x40];
    for word in [port, length, 0] {
        udp.extend_from_slice(&word.to_be_bytes());
    }
    udp.extend_from_slice(payload);
    packet(GUEST, to, IpProtocol::Udp, &udp)
}

pub(crate) fn is_echo_reply(frame: &[u8], from: Ipv4Addr) -> bool {
    let Ok(ethernet) = EthernetFrame::new_checked(frame) else {
        return false;
    };
    let Ok(ip) = Ipv4Packet::new_checked(ethernet.payload()) else {
        return false;
    };
    let icmp = Icmpv4Packet::new_checked(ip.payload());
    ip.next_header() == IpProtocol::Icmp
        && ip.src_addr() == from
        && icmp.is_ok_and(|icmp| icmp.msg_type() == Icmpv4Message::EchoReply)
}

#[test]
fn icmp_and_udp_are_dropped_and_recorded() {
    let mut lab = Setup::new(&["allow **"]).start();
    // And again after a restart: a rebuilt network must have every control (CVE-2026-12539).
    for round in 0..2 {
        run(async {
            lab.guest()
                .frame(&packet(GUEST, NOWHERE, IpProtocol::Icmp, &echo_request()));
            let resolver = Ipv4Addr::new(8, 8, 8, 8);
            assert!(lab.guest().connect(GATEWAY, 1).await.is_err());
            lab.guest()
                .frame(&packet(GUEST, GATEWAY, IpProtocol::Icmp, &echo_request()));
            let udp = |port: u16| {
                let mut datagram = vec![0x9c, 0x40, 0, 0, 0, 12, 0, 0, 1, 2, 3, 4];
                datagram[2..4].copy_from_slice(&port.to_be_bytes());
                datagram
            };
            lab.guest()
                .frame(&packet(GUEST, NOWHERE, IpProtocol::Udp, &udp(443)));
            lab.guest()
                .frame(&packet(GUEST, resolver, IpProtocol::Udp, &udp(53)));
            lab.guest()
                .frame(&packet(GUEST, NOWHERE, IpProtocol::Unknown(132), &[0; 16]));
            lab.guest()
                .frame(&packet(NOWHERE, NOWHERE, IpProtocol::Tcp, &[0; 20]));
            if round == 0 {
                assert_eq!(lab.one_record("icmp-blocked", "203.0.113.9").await.port, 0);
                assert_eq!(lab.one_record("udp-blocked", "203.0.113.9").await.port, 443);
                assert_eq!(lab.one_record("foreign-resolver", "8.8.8.8").await.port, 53);
                lab.one_record("packet-blocked", "203.0.113.9").await;
            }
            // The echo of the gateway itself comes back; that of others does not.
            let answered = |from| {
                lab.guest()
                    .captured()
                    .iter()
                    .any(|f| is_echo_reply(f, from))
            };
            while !answered(GATEWAY) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            assert!(!answered(NOWHERE));
            assert!(lab.dns.recorder().entries().is_empty());
        });
        if round == 0 {
            lab.reboot();
        }
    }
}

/// An IPv6 packet (RFC 8200): `next` says what the payload is.
fn ipv6(to: Ipv6Addr, next: u8, payload: &[u8]) -> Vec<u8> {
    let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x50, 0x54, 0x12, 0x3456);
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![0x60, 0, 0, 0, length[0], length[1], next, 64];
    bytes.extend(source.octets());
    bytes.extend(to.octets());
    bytes.extend(payload);
    frame(EthernetProtocol::Ipv6, &bytes)
}

#[test]
fn ipv6_is_dropped_and_recorded() {
    let mut lab = Setup::new(&["allow **", "allow [2001:db8::1]:443"])
        .name("a.test", &[NOWHERE])
        .start();
    let (outside, router) = (
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1),
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2),
    );
    let ports = [0x9c, 0x40, 1, 187, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 0];
    for round in 0..2 {
        run(async {
            // TCP, UDP, and the two with which a host looks for a router and for its neighbour.
            lab.guest().frame(&ipv6(outside, 6, &ports));
            lab.guest().frame(&ipv6(outside, 17, &ports));
            lab.guest()
                .frame(&ipv6(router, 58, &[133, 0, 0, 0, 0, 0, 0, 0]));
            let mut neighbour = vec![135, 0, 0, 0, 0, 0, 0, 0];
            neighbour.extend(outside.octets());
            lab.guest().frame(&ipv6(outside, 58, &neighbour));
            // Cut short.
            lab.guest()
                .frame(&frame(EthernetProtocol::Ipv6, &[0x60; 39]));
            let answer = lab.dns_query("a.test", 28).await;
            assert_eq!((answer[3] & 0xf, &answer[6..8]), (0, &[0, 0][..]), "AAAA");
            if round == 0 {
                let fits = |host: &'static str, port: u16| {
                    move |r: &EgressRecord| {
                        (r.reason.as_str(), r.host.as_str(), r.port) == ("ipv6-blocked", host, port)
                    }
                };
                lab.records_that(1, fits("2001:db8::1", 443)).await;
                lab.records_that(1, fits("2001:db8::1", 0)).await;
                lab.records_that(1, fits("ff02::2", 0)).await;
            }
            let ipv6 = |frame: &Vec<u8>| frame[12..14] == [0x86, 0xdd];
            assert!(!lab.guest().captured().iter().any(ipv6));
            assert!(lab.dns.recorder().entries().is_empty());
        });
        if round == 0 {
            lab.reboot();
        }
    }
}

#[test]
fn raw_tcp_denied_is_rst_and_recorded() {
    let lab = Setup::new(&["allow a.test", "allow **.b.test:443"]).start();
    run(async {
        let denied = lab.guest().connect(NOWHERE, 22).await.err().unwrap();
        assert_eq!(denied.kind(), ErrorKind::ConnectionRefused);
        let record = lab.one_record("default-deny", "203.0.113.9").await;
        assert_eq!((record.port, record.allowed), (22, false));
    });
}

#[test]
fn host_loopback_is_closed_unless_ruled() {
    let (open, closed) = (TcpEcho::start().unwrap(), TcpEcho::start().unwrap());
    let allow = format!("allow localhost:{}", open.address().port());
    let lab = Setup::new(&["allow **", &allow]).start();
    run(async {
        let mut stream = lab
            .guest()
            .connect(GATEWAY, open.address().port())
            .await
            .unwrap();
        stream.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        stream.read_exact(&mut back).await.unwrap();
        assert_eq!(&back, b"hello");
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut back).await.unwrap(), 0, "both sides close");
        for address in [GATEWAY, Ipv4Addr::LOCALHOST] {
            let denied = lab.guest().connect(address, closed.address().port()).await;
            assert!(denied.is_err(), "{address}");
        }
        assert_eq!(closed.recorder().connections(), 0);
    });
}

#[test]
fn a_service_of_the_host_on_either_loopback_is_reached_with_and_without_a_proxy() {
    for loopback in [
        IpAddr::from(Ipv4Addr::LOCALHOST),
        Ipv6Addr::LOCALHOST.into(),
    ] {
        let service = TcpEcho::start_with((loopback, 0).into(), Recorder::new()).unwrap();
        let port = service.address().port();
        let lab = Setup::new(&[&format!("allow localhost:{port}")]).start();
        run(async {
            let streams = [
                lab.guest().connect(GATEWAY, port).await.unwrap(),
                lab.connect(&format!("localhost:{port}")).await.unwrap(),
            ];
            for mut stream in streams {
                stream.write_all(b"hello").await.unwrap();
                let mut back = [0; 5];
                stream.read_exact(&mut back).await.unwrap();
                assert_eq!(&back, b"hello", "{loopback}");
            }
        });
        assert_eq!(service.recorder().connections(), 2, "{loopback}");
    }
}

#[test]
fn a_closed_port_is_refused_and_not_accepted_and_reset() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let lab = Setup::new(&[&format!("allow localhost:{port}")]).start();
    run(async {
        let refused = lab.guest().connect(GATEWAY, port).await.err().unwrap();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        lab.one_record("upstream-unreachable", "localhost").await;
    });
}

#[test]
fn a_client_that_leaves_with_bytes_unread_ends_the_connection_upstream() {
    let echo = TcpEcho::start().unwrap();
    let port = echo.address().port();
    let lab = Setup::new(&[&format!("allow localhost:{port}")]).start();
    run(async {
        let mut stream = lab.guest().connect(GATEWAY, port).await.unwrap();
        stream.write_all(b"echoed").await.unwrap();
        stream.readable().await;
        drop(stream);
        crate::attack::closed(echo.recorder()).await;
    });
}

#[test]
fn raw_tcp_goes_by_the_name_that_was_resolved() {
    let echo = TcpEcho::start().unwrap();
    let port = echo.address().port();
    let target = format!("db.test:{port}");
    let lab = Setup::new(&[&format!("allow {target}")])
        .send_to(&target, echo.address())
        .start();
    run(async {
        let address = lab.resolve("db.test").await.unwrap()[0];
        let mut stream = lab.guest().connect(address, port).await.unwrap();
        let large = vec![7; 3 << 20];
        let (mut reader, mut writer) = tokio::io::split(&mut stream);
        let send = async {
            writer.write_all(&large).await.unwrap();
            writer.shutdown().await.unwrap();
        };
        let mut back = Vec::new();
        let ((), received) = tokio::join!(send, reader.read_to_end(&mut back));
        received.unwrap();
        assert!(back == large, "{} bytes came back", back.len());
        assert!(
            lab.guest().connect(address, port ^ 1).await.is_err(),
            "another port"
        );
        let record = lab.one_record("allow-rule", "db.test").await;
        assert_eq!(record.port, port);
    });
}

#[test]
fn connections_beyond_the_limit_are_refused_and_the_gateway_lives_on() {
    let echo = TcpEcho::start().unwrap();
    let port = echo.address().port();
    let mut lab = Setup::new(&[&format!("allow localhost:{port}")]).start();
    run(async {
        let mut open = Vec::new();
        for _ in 0..limits::CONNECTIONS {
            open.push(lab.guest().connect(GATEWAY, 3128).await.unwrap());
        }
        assert!(lab.guest().connect(GATEWAY, 3128).await.is_err());
        lab.one_record("connection-limit", &GATEWAY.to_string())
            .await;
        drop(open);
        while lab.guest().connect(GATEWAY, port).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    assert!(lab.is_alive());
}

#[test]
fn corrupted_frames_do_not_end_it() {
    let mut lab = Setup::new(&[]).start();
    run(async {
        let mut seed = 0x2545_f491_4f6c_dd1d_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let tcp = [
            0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0x20, 0, 0, 0, 0, 0,
        ];
        let seeds = [
            packet(GUEST, NOWHERE, IpProtocol::Tcp, &tcp),
            packet(GUEST, GATEWAY, IpProtocol::Icmp, &echo_request()),
            packet(
                GUEST,
                GATEWAY,
                IpProtocol::Udp,
                &[0x9c, 0x40, 0, 53, 0, 9, 0, 0, 1],
            ),
        ];
        for round in 0..20_000 {
            let mut frame = seeds[round % seeds.len()].clone();
            for _ in 0..=(random() % 4) {
                let at = usize::try_from(random()).unwrap() % frame.len();
                frame[at] = random().to_le_bytes()[0];
            }
            frame.truncate(usize::try_from(random()).unwrap() % (frame.len() + 1));
            lab.guest().frame(&frame);
        }
        // Larger than any frame can be: skipped, and the next one is understood.
        lab.guest().frame(&vec![0xff; 70_000]);
        lab.guest().frame(&[]);
        assert!(lab.resolve("gateway.docker.internal").await.is_ok());
    });
    assert!(lab.is_alive());
}

#[test]
fn it_ends_well_when_the_machine_is_gone() {
    let mut lab = Setup::new(&[]).start();
    assert!(lab.power_off().success());
}

#[test]
fn control_socket_refuses_other_users() {
    if !rustix::process::geteuid().is_root() {
        return; // Only root can become somebody else.
    }
    let lab = Setup::new(&[]).start();
    // Modes alone would keep others out as well: open them, so that the check itself is tried.
    let open = |path, mode| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    lab.control();
    open(lab.path(""), 0o755);
    open(lab.path("run/gateway.sock"), 0o666);
    let script = "import socket,sys;s=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1]);\
                  s.sendall(b'{\"command\":\"status\"}\\n');sys.stdout.write(repr(s.recv(100)))";
    let ask = |uid| {
        let out = std::process::Command::new("python3")
            .args(["-c", script])
            .arg(lab.path("run/gateway.sock"))
            .uid(uid)
            .output()
            .unwrap();
        String::from_utf8(out.stdout).unwrap() + &String::from_utf8_lossy(&out.stderr)
    };
    assert!(ask(0).contains("answer"), "{}", ask(0));
    let other = ask(4321);
    assert!(!other.contains("answer"), "{other}");
    assert!(other.contains("b''") || other.contains("BrokenPipe") || other.contains("Reset"));
}

#[test]
fn a_vm_that_is_late_is_waited_for() {
    let mut lab = Setup::new(&[]).start();
    lab.reboot_with_late_vm();
    lab.configure();
    run(async { assert!(lab.proxy().await.write_all(b"x").await.is_ok()) });
}
