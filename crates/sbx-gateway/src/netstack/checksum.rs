//! TCP's checksum (RFC 9293, section 3.1), in words of four bytes: smoltcp's own, in words of two and with every
//! addition checked, costs as much as the encryption of what it is about.

use smoltcp::wire::{IpProtocol, Ipv4Packet};

/// Where the checksum lies in a TCP header.
const PLACE: usize = 16;
/// Bytes of the shortest TCP header.
const SHORTEST: usize = 20;
/// Bytes that are added up side by side.
const BLOCK: usize = 32;

/// Writes the checksum of the TCP segment in an IPv4 packet of our own. Leaves any other packet as it is.
pub(super) fn fill(packet: &mut [u8]) {
    let Some(pseudo) = pseudo_header(packet) else {
        return;
    };
    let header = usize::from(packet[0] & 0x0f) * 4;
    let segment = &mut packet[header..];
    segment[PLACE..PLACE + 2].fill(0);
    let checksum = !fold(pseudo + sum(segment));
    segment[PLACE..PLACE + 2].copy_from_slice(&checksum.to_ne_bytes());
}

/// Whether an IPv4 packet may go on: what is no whole TCP segment is for smoltcp to judge.
pub(super) fn is_right(packet: &[u8]) -> bool {
    let whole = || {
        let ip = Ipv4Packet::new_checked(packet).ok()?;
        let packet = &packet[..usize::from(ip.total_len())];
        let header = usize::from(ip.header_len());
        Some(fold(pseudo_header(packet)? + sum(&packet[header..])) == u16::MAX)
    };
    whole().unwrap_or(true)
}

/// The sum over what the checksum covers besides the segment, or nothing: the packet holds none.
fn pseudo_header(packet: &[u8]) -> Option<u64> {
    let ip = Ipv4Packet::new_checked(packet).ok()?;
    let length = usize::from(ip.total_len()).checked_sub(usize::from(ip.header_len()))?;
    let fragment = ip.more_frags() || ip.frag_offset() > 0;
    if ip.next_header() != IpProtocol::Tcp || fragment || length < SHORTEST {
        return None;
    }
    // The protocol and the length, as two words of the network.
    let [high, low] = u16::try_from(length).ok()?.to_be_bytes();
    let behind = [0, u8::from(IpProtocol::Tcp), high, low];
    Some(sum(&ip.src_addr().octets()) + sum(&ip.dst_addr().octets()) + sum(&behind))
}

/// The sum of the words, in the machine's byte order: turned round, the sum is that of the words turned round (RFC
/// 1071, section 2). A packet has less than 2^14 words of four bytes: nothing overflows.
fn sum(bytes: &[u8]) -> u64 {
    let mut lanes = [0_u64; BLOCK / 4];
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
            *lane = lane.wrapping_add(u64::from(u32::from_ne_bytes(*word)));
        }
    }
    let mut last = [0; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    for (lane, word) in lanes.iter_mut().zip(last.as_chunks::<4>().0) {
        *lane = lane.wrapping_add(u64::from(u32::from_ne_bytes(*word)));
    }
    lanes.iter().sum()
}

/// The sum in 16 bits, carries added at the other end.
fn fold(mut sum: u64) -> u16 {
    while sum > u64::from(u16::MAX) {
        sum = (sum >> 16) + (sum & u64::from(u16::MAX));
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{IpAddress, Ipv4Address, Ipv4Repr, TcpPacket};

    use super::*;

    /// An IPv4 packet with a TCP segment whose checksum smoltcp has written.
    fn packet(header: &[u8; SHORTEST], data: &[u8], ends: [u32; 2]) -> Vec<u8> {
        let [source, destination] = ends.map(Ipv4Address::from_bits);
        let mut segment = [header, data].concat();
        let mut tcp = TcpPacket::new_unchecked(&mut segment);
        tcp.set_header_len(20);
        tcp.fill_checksum(&IpAddress::Ipv4(source), &IpAddress::Ipv4(destination));
        let ip = Ipv4Repr {
            src_addr: source,
            dst_addr: destination,
            next_header: IpProtocol::Tcp,
            payload_len: segment.len(),
            hop_limit: 64,
        };
        let mut bytes = vec![0; ip.buffer_len() + segment.len()];
        let mut packet = Ipv4Packet::new_unchecked(&mut bytes);
        ip.emit(&mut packet, &ChecksumCapabilities::default());
        packet.payload_mut().copy_from_slice(&segment);
        bytes
    }

    proptest! {
        #[test]
        fn the_checksum_is_the_one_that_smoltcp_writes(
            header: [u8; SHORTEST],
            data in prop::collection::vec(any::<u8>(), 0..200),
            ends: [u32; 2],
            place: prop::sample::Index,
        ) {
            let good = packet(&header, &data, ends);
            prop_assert!(is_right(&good));
            let mut filled = good.clone();
            filled[20 + PLACE..20 + PLACE + 2].fill(0x5a);
            fill(&mut filled);
            prop_assert_eq!(&filled, &good);
            // No one bit is missed.
            let mut broken = good;
            let at = 20 + place.index(SHORTEST + data.len());
            broken[at] ^= 0x10;
            prop_assert!(!is_right(&broken));
        }
    }

    #[test]
    fn what_is_no_whole_segment_is_left_to_smoltcp() {
        let good = packet(&[0; SHORTEST], b"data", [1, 2]);
        for length in 0..20 + SHORTEST {
            assert!(is_right(&good[..length]));
        }
        let mut udp = good.clone();
        udp[9] = 17;
        assert!(is_right(&udp));
        let before = udp.clone();
        fill(&mut udp);
        assert_eq!(udp, before);
    }

    #[test]
    fn the_largest_packet_adds_up() {
        let good = packet(&[0xff; SHORTEST], &vec![0xff; 65_000], [u32::MAX, u32::MAX]);
        assert!(is_right(&good));
    }
}
