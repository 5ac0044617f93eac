//! The guards of the gateway's adapters, and the tests that miss them.

use super::Guard;

/// Every guard.
pub(super) const GUARDS: &[Guard] = &[
    Guard {
        what: "a DNS question names a host",
        file: "crates/sbx-gateway/src/adapter/dns.rs",
        text: r#"        if !label.iter().all(plain) {
            return None;
        }
"#,
        instead: r#"        let label: Vec<u8> = label.iter().map(|b| if plain(b) { *b } else { b'-' }).collect();
        let label = label.as_slice();
"#,
        tests: &["attacks_names::attack_01_a_name_with_nul_is_refused_and_looked_up_nowhere"],
    },
    Guard {
        what: "user information is refused",
        file: "crates/sbx-gateway/src/adapter/request.rs",
        text: r#"    // Userinfo is not forwarded, so it is refused rather than dropped silently.
    if authority.as_str().contains('@') {
        return Err(RequestError::UserInfo);
    }
    let target = Target::parse_authority(authority.as_str(), Port::HTTP)?;"#,
        instead: r#"    let authority = without_user(authority.as_str());
    let target = Target::parse_authority(authority, Port::HTTP)?;"#,
        tests: &[
            "attacks_names::attack_09_user_information_is_not_the_host_and_stays_out_of_the_record",
        ],
    },
    Guard {
        what: "a URL and its Host header agree",
        file: "crates/sbx-gateway/src/adapter/request.rs",
        text: r#"        && header != target
"#,
        instead: r#"        && header.port.get() == 1
"#,
        tests: &[
            "attacks_names::attack_10_an_absolute_url_and_a_host_header_that_differ_are_refused",
        ],
    },
    Guard {
        what: "TLS begins with version 1.2",
        file: "crates/sbx-gateway/src/adapter/hello.rs",
        text: "version < TLS_1_2) {",
        instead: "version > TLS_1_2) {",
        tests: &[
            "attacks_handshake::attack_21_old_versions_and_broken_ciphers_are_refused_on_both_sides",
        ],
    },
    Guard {
        what: "a body has a length or a coding, not both",
        file: "crates/sbx-gateway/src/adapter/framing.rs",
        text: "            (Some(_), true) => Err(Fault::LengthAndCoding),",
        instead: "            (Some(_), true) => Ok(State::Chunked(Chunk::default())),",
        tests: &["attacks_framing::attack_23_content_length_beside_transfer_encoding_is_refused"],
    },
    Guard {
        what: "a length is there once",
        file: "crates/sbx-gateway/src/adapter/framing.rs",
        text: "                if self.length.is_some() {",
        instead: "                if self.length == Some(u64::MAX) {",
        tests: &[
            "attacks_framing::attack_24_a_content_length_that_can_be_read_in_two_ways_is_refused",
        ],
    },
    Guard {
        what: "a length has no zero in front",
        file: "crates/sbx-gateway/src/adapter/framing.rs",
        text: "    let plain = matches!(digits, [b'0'] | [b'1'..=b'9', ..]) && digits.len() <= 18;",
        instead: "    let plain = matches!(digits, [b'0'..=b'9', ..]) && digits.len() <= 18;",
        tests: &[
            "attacks_framing::attack_24_a_content_length_that_can_be_read_in_two_ways_is_refused",
        ],
    },
    Guard {
        what: "chunked is the only transfer coding",
        file: "crates/sbx-gateway/src/adapter/framing.rs",
        text: "if self.chunked || !chunked || !self.http_11 {",
        instead: r#"if self.chunked || !(chunked || text(value).ends_with(b"chunked")) || !self.http_11 {"#,
        tests: &[
            "attacks_framing::attack_25_codings_and_line_ends_that_servers_read_differently_are_refused",
        ],
    },
    Guard {
        what: "a line ends with CR LF",
        file: "crates/sbx-gateway/src/adapter/framing.rs",
        text: r#"                _ => return Err(Fault::LineEnd),
            }
            let line = &bytes[self.line..end];
            (self.seen, self.line) = (end + 2, end + 2);"#,
        instead: r#"                (b'\n', _) => {}
                _ => return Err(Fault::LineEnd),
            }
            let line = &bytes[self.line..end];
            let behind = end + if bytes[end] == b'\n' { 1 } else { 2 };
            (self.seen, self.line) = (behind, behind);"#,
        tests: &[
            "attacks_framing::attack_25_codings_and_line_ends_that_servers_read_differently_are_refused",
        ],
    },
    Guard {
        what: ":authority and Host agree",
        file: "crates/sbx-gateway/src/adapter/request.rs",
        text: "(Some(header), Some(target)) if header != target => {",
        instead: "(Some(header), Some(target)) if header.port != target.port => {",
        tests: &[
            "attacks_h2::attack_34_an_http2_request_with_more_than_one_meaning_is_refused_and_recorded",
        ],
    },
    Guard {
        what: "a request of HTTP/2 says its length once",
        file: "crates/sbx-gateway/src/adapter/request.rs",
        text: r#"            .nth(1)
            .is_some()"#,
        instead: r#"            .nth(2)
            .is_some()"#,
        tests: &[
            "attacks_h2::attack_34_an_http2_request_with_more_than_one_meaning_is_refused_and_recorded",
        ],
    },
    Guard {
        what: "the headers of HTTP/2 are bounded in number",
        file: "crates/sbx-gateway/src/adapter/request.rs",
        text: "parts.headers.len() > limits::HEADERS",
        instead: "parts.headers.len() > 100 * limits::HEADERS",
        tests: &[
            "attacks_h2::attack_34_an_http2_request_with_more_than_one_meaning_is_refused_and_recorded",
        ],
    },
    Guard {
        what: "frames of HTTP/2 that ask for nothing are bounded",
        file: "crates/sbx-gateway/src/adapter/h2_frames.rs",
        text: "if !budget.take() {",
        instead: "if !budget.take() && head.kind == DATA {",
        tests: &["attacks_h2::attack_34_a_flood_of_frames_ends_its_connection_and_nothing_else"],
    },
    Guard {
        what: "other resolvers are told apart from other UDP",
        file: "crates/sbx-gateway/src/adapter/frame.rs",
        text: "never_by_udp(Some(address.into()), port).filter(|_| !question)",
        instead: "never_by_udp(Some(address.into()), 0).filter(|_| !question)",
        tests: &["attacks_dns::attack_40_other_resolvers_are_out_of_reach"],
    },
    Guard {
        what: "a name is judged before anybody is asked for it",
        file: "crates/sbx-gateway/src/adapter/dns.rs",
        text: "    if !verdict.is_allowed() {",
        instead: "    if !verdict.is_allowed() && generation.problem.is_some() {",
        tests: &[
            "attacks_dns::attack_39_a_name_without_a_rule_carries_nothing_to_any_resolver",
            "attacks_life::attack_67_a_gateway_that_was_killed_comes_back_with_every_control_before_anybody_tells_it",
        ],
    },
    Guard {
        what: "only addresses are asked for",
        file: "crates/sbx-gateway/src/adapter/dns.rs",
        text: r#"    if !is_a {
        return Reply::local(Vec::new());
    }
"#,
        instead: "",
        tests: &[
            "attacks_tls::attack_16_an_encrypted_server_name_is_judged_by_the_outer_one",
            "attacks_ip::attack_47_quic_is_stopped_and_not_offered",
            "attacks_dns::attack_39_a_name_without_a_rule_carries_nothing_to_any_resolver",
        ],
    },
    Guard {
        what: "nothing but an echo to the gateway passes of ICMP",
        file: "crates/sbx-gateway/src/adapter/frame.rs",
        text: "Ok(icmp) if address == GATEWAY && icmp.msg_type() == Icmpv4Message::EchoRequest => {",
        instead: "Ok(icmp) if icmp.msg_type() == Icmpv4Message::EchoRequest => {",
        tests: &["attacks_ip::attack_46_a_ping_leads_nowhere_also_after_a_restart"],
    },
    Guard {
        what: "a frame comes from the guest itself",
        file: "crates/sbx-gateway/src/adapter/frame.rs",
        text: "if source != GUEST || packet.version() != 4 {",
        instead: "if packet.version() != 4 {",
        tests: &["attacks_ip::attack_52_without_a_proxy_the_verdicts_are_the_same"],
    },
];
