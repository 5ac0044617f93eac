//! Programs in a namespace, and what of them arrives at the socket.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use sbx_testkit::netns::{Namespace, Options, helper};

const ADDRESS: [u8; 4] = [192, 0, 2, 2];
const GATEWAY: [u8; 4] = [192, 0, 2, 1];
const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const GATEWAY_MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

fn options(folder: &Path) -> Options {
    let hosts = folder.join("hosts");
    std::fs::write(&hosts, "192.0.2.1 gateway.test\n").unwrap();
    Options {
        frames: folder.join("frames"),
        address: Ipv4Addr::from(ADDRESS),
        prefix: 24,
        more: Vec::new(),
        gateway: Ipv4Addr::from(GATEWAY),
        mac: MAC,
        mtu: 65_520,
        files: vec![(hosts, "/etc/hosts".into())],
    }
}

fn read_frame(socket: &mut UnixStream) -> Vec<u8> {
    let mut length = [0; 4];
    socket.read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    socket.read_exact(&mut frame).unwrap();
    frame
}

fn write_frame(socket: &mut UnixStream, frame: &[u8]) {
    let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
    socket.write_all(&[&length, frame].concat()).unwrap();
}

/// The ones' complement sum (RFC 1071); 0xffff over something that holds its checksum.
fn sum(parts: &[&[u8]]) -> u16 {
    let mut bytes = parts.concat();
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// Answers the namespace's question for the gateway's Ethernet address, and gives the first IPv4 frame.
fn first_packet(socket: &mut UnixStream) -> Vec<u8> {
    loop {
        let frame = read_frame(socket);
        assert_eq!(&frame[6..12], MAC, "a frame of another interface");
        match frame[12..14] {
            [0x08, 0x06] => {
                assert_eq!(&frame[38..42], GATEWAY);
                let answer = [
                    &MAC[..],
                    &GATEWAY_MAC,
                    &[8, 6, 0, 1, 8, 0, 6, 4, 0, 2],
                    &GATEWAY_MAC,
                    &GATEWAY,
                    &MAC,
                    &ADDRESS,
                ];
                write_frame(socket, &answer.concat());
            }
            [0x08, 0x00] => return frame,
            _ => panic!("neither ARP nor IPv4: {frame:02x?}"),
        }
    }
}

/// A datagram leaves as one frame with its checksums, and the answer reaches the program.
fn datagrams_pass(namespace: &Namespace, frames: &Path) {
    let mut socket = UnixStream::connect(frames).unwrap();
    let script = "exec 3<>/dev/udp/gateway.test/9; head -c 8000 /dev/zero >&3; echo \"got $(head -c 6 <&3)\"";
    let program = namespace
        .command("bash")
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let frame = first_packet(&mut socket);
    let (ip, udp) = (&frame[14..34], &frame[34..]);
    assert_eq!(ip[9], 17, "not UDP");
    assert_eq!((&ip[12..16], &ip[16..20]), (&ADDRESS[..], &GATEWAY[..]));
    assert_eq!(sum(&[ip]), 0xffff, "no IP checksum");
    let pseudo = [&ip[12..20], &[0, 17], &udp[4..6]].concat();
    assert_eq!(sum(&[&pseudo, udp]), 0xffff, "no UDP checksum");

    let mut header = vec![0x45, 0, 0, 20 + 8 + 6, 0, 0, 0, 0, 64, 17, 0, 0];
    header.extend([GATEWAY, ADDRESS].concat());
    let checksum = !sum(&[&header]);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    // UDP without a checksum, back to the port that asked.
    let answer = [&[0, 9], &udp[..2], &[0, 14, 0, 0], b"hello\n"].concat();
    let frame = [&MAC[..], &GATEWAY_MAC, &[8, 0], &header, &answer].concat();
    write_frame(&mut socket, &frame);
    let output = program.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"got hello\n");
}

#[test]
fn frames_of_a_namespace_are_whole_and_the_next_peer_is_served_like_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let options = options(folder.path());
    let namespace = Namespace::start(&options).unwrap();
    datagrams_pass(&namespace, &options.frames);
    datagrams_pass(&namespace, &options.frames);
    let output = namespace
        .command("sh")
        .args(["-c", "pwd; exit 7"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7));
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(Path::new(stdout.trim()), folder.path());
}

#[test]
fn nobody_needs_privileges_for_a_namespace() {
    // An ordinary user's tests have shown it above.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mode = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(folder.path(), mode).unwrap();
    let copy = folder.path().join("helper");
    std::fs::copy(helper().unwrap(), &copy).unwrap();
    let mut nobody = Command::new("setpriv");
    nobody
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(copy);
    let options = options(folder.path());
    let namespace = Namespace::start_by(nobody, &options).unwrap();
    datagrams_pass(&namespace, &options.frames);
}

#[test]
fn a_namespace_that_cannot_be_made_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(folder.path());
    options.files[0].1 = folder.path().join("not there");
    let error = Namespace::start(&options).unwrap_err().to_string();
    assert!(error.contains("cannot replace"), "{error}");
}
