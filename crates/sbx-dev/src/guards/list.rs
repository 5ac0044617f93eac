//! The guards, and the tests that miss them.
#![expect(
    clippy::needless_raw_string_hashes,
    reason = "texts of source are quoted alike, with or without a quote in them"
)]

/// One guard.
pub(super) struct Guard {
    /// What it keeps.
    pub(super) what: &'static str,
    /// Where it stands, from the repository's root.
    pub(super) file: &'static str,
    /// Its text, which stands there once.
    pub(super) text: &'static str,
    /// What stands there without it.
    pub(super) instead: &'static str,
    /// The tests of the gateway (`file::test`) that must fail without it, all of them.
    pub(super) tests: &'static [&'static str],
}

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
        what: "a host is made of letters, digits, hyphens and dots",
        file: "crates/sbx-policy/src/host.rs",
        text: "    if !name.bytes().all(good) {",
        instead: "    if name.bytes().any(|b| b.is_ascii_uppercase() && good(b)) {",
        tests: &["attacks_names::attack_02_control_bytes_spaces_and_percent_are_no_part_of_a_host"],
    },
    Guard {
        what: "an encoded label decodes to something",
        file: "crates/sbx-policy/src/host.rs",
        text: "if !text.is_ascii() || has_punycode(text) {",
        instead: "if !text.is_ascii() || (text.len() > MAX_INPUT && has_punycode(text)) {",
        tests: &["attacks_names::attack_03_names_have_one_form_and_a_homoglyph_is_another_name"],
    },
    Guard {
        what: "a name matches a rule label by label",
        file: "crates/sbx-policy/src/index.rs",
        text: r#"            Host::Name(name) => {
                self.names_of(name, &mut each);"#,
        instead: r#"            Host::Name(name) => {
                if name.as_str().contains("allowed.test") {
                    self.entries.iter().for_each(|entry| found(entry));
                    return;
                }
                self.names_of(name, &mut each);"#,
        tests: &["attacks_names::attack_04_suffix_tricks_are_other_names"],
    },
    Guard {
        what: "a pattern that is everything has to say so",
        file: "crates/sbx-policy/src/pattern.rs",
        text: r#""*" | "*.*" | "**.*" | "*.**" | "**.**" => return Err(PatternError::LoneStar),"#,
        instead: r#""*" | "*.*" | "**.*" | "*.**" | "**.**" => return Self::parse("**"),"#,
        tests: &[
            "attacks_names::attack_05_over_broad_patterns_are_refused_when_loaded_with_the_reason",
        ],
    },
    Guard {
        what: "a label has at most 63 bytes",
        file: "crates/sbx-policy/src/host.rs",
        text: "if label.len() > MAX_LABEL {",
        instead: "if label.len() > 2 * MAX_LABEL {",
        tests: &["attacks_names::attack_06_names_longer_than_dns_allows_are_refused"],
    },
    Guard {
        what: "a port has no leading zero",
        file: "crates/sbx-policy/src/target.rs",
        text: "if !digits || text.starts_with('0') {",
        instead: "if !digits {",
        tests: &["attacks_names::attack_08_ports_are_numbers_from_1_to_65535_and_nothing_else"],
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
        what: "an alias of the host is the host",
        file: "crates/sbx-policy/src/host.rs",
        text: "        if name.is_host_service() {",
        instead: r#"        if name.is_host_service() && name.as_str() == "localhost" {"#,
        tests: &[
            "attacks_host::attack_11_every_alias_of_the_host_is_one_resource",
            "attacks_host::attack_11_a_deny_on_any_alias_of_the_host_closes_all_of_them",
        ],
    },
    Guard {
        what: "the gateway's address is the host",
        file: "crates/sbx-policy/src/host.rs",
        text: "        if HOST_SERVICE_ADDRESSES.contains(&ip.to_canonical()) {",
        instead: "        if ip.to_canonical().is_loopback() {",
        tests: &[
            "attacks_host::attack_11_every_alias_of_the_host_is_one_resource",
            "attacks_host::attack_11_a_deny_on_any_alias_of_the_host_closes_all_of_them",
        ],
    },
    Guard {
        what: "a server name is the one that was judged",
        file: "crates/sbx-gateway/src/doors/tls.rs",
        text: "(Some(name), host) => name == host,",
        instead: "(Some(_), _) => true,",
        tests: &[
            "attacks_tls::attack_13_connect_to_an_allowed_host_with_another_server_name_is_blocked",
            "attacks_tls::attack_16_an_encrypted_server_name_is_judged_by_the_outer_one",
            "attacks_http::attack_31_other_ports_of_an_allowed_host_need_a_rule_and_their_protocol",
        ],
    },
    Guard {
        what: "a tunnel to a name begins with that name",
        file: "crates/sbx-gateway/src/doors/tls.rs",
        text: "(None, Host::Name(_)) => false,",
        instead: "(None, Host::Name(_)) => true,",
        tests: &[
            "attacks_tls::attack_15_a_client_without_a_server_name_is_judged_by_the_address_it_dialled",
        ],
    },
    Guard {
        what: "a request inside names the host of its connection",
        file: "crates/sbx-gateway/src/relay/http.rs",
        text: "if named != *target {",
        instead: "if named.port != target.port {",
        tests: &[
            "attacks_tls::attack_14_a_request_inside_that_names_another_host_is_blocked",
            "attacks_framing::attack_28_every_request_on_a_kept_connection_is_judged_by_itself",
            "attacks_handshake::attack_21_a_connection_is_not_renegotiated",
        ],
    },
    Guard {
        what: "an overridden name is used with the address made up for it",
        file: "crates/sbx-gateway/src/decision.rs",
        text: "    let ours = generation.synthetic.get(name) == Some(&dialled);",
        instead: "    let ours = dialled.octets()[0] != 0;",
        tests: &[
            "attacks_tls::attack_17_an_allowed_name_with_an_address_never_resolved_for_it_is_blocked",
        ],
    },
    Guard {
        what: "a name is used with an address that was resolved for it",
        file: "crates/sbx-gateway/src/decision.rs",
        text: "                        Some(_) => return Err(not_pinned(generation, target)),",
        instead: "                        Some(_) => found,",
        tests: &[
            "attacks_tls::attack_17_an_allowed_name_with_an_address_never_resolved_for_it_is_blocked",
        ],
    },
    Guard {
        what: "rules with method and path judge each request",
        file: "crates/sbx-gateway/src/relay/http.rs",
        text: "        let (grant, path) = if grant.by_request {",
        instead: "        let (grant, path) = if grant.by_request && parts.method == hyper::Method::TRACE {",
        tests: &[
            "attacks_tls::attack_18_a_client_that_speaks_http2_only_works_and_each_stream_is_judged",
            "attacks_http::attack_30_a_websocket_is_judged_when_it_is_opened",
            "attacks_http::attack_32_a_path_is_judged_in_one_form_and_sent_in_that_form",
        ],
    },
    Guard {
        what: "an upstream's certificate is verified",
        file: "crates/sbx-gateway/src/generation.rs",
        text: "            .with_root_certificates(roots.clone())",
        instead: r#"            .dangerous()
            .with_custom_certificate_verifier({
                use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
                use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
                use rustls::{DigitallySignedStruct, Error, SignatureScheme};
                #[derive(Debug)]
                struct Anything(RootCertStore);
                impl ServerCertVerifier for Anything {
                    fn verify_server_cert(
                        &self,
                        _: &CertificateDer<'_>,
                        _: &[CertificateDer<'_>],
                        _: &ServerName<'_>,
                        _: &[u8],
                        _: UnixTime,
                    ) -> Result<ServerCertVerified, Error> {
                        Ok(ServerCertVerified::assertion())
                    }
                    fn verify_tls12_signature(
                        &self,
                        _: &[u8],
                        _: &CertificateDer<'_>,
                        _: &DigitallySignedStruct,
                    ) -> Result<HandshakeSignatureValid, Error> {
                        Ok(HandshakeSignatureValid::assertion())
                    }
                    fn verify_tls13_signature(
                        &self,
                        _: &[u8],
                        _: &CertificateDer<'_>,
                        _: &DigitallySignedStruct,
                    ) -> Result<HandshakeSignatureValid, Error> {
                        Ok(HandshakeSignatureValid::assertion())
                    }
                    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
                        vec![
                            SignatureScheme::ECDSA_NISTP256_SHA256,
                            SignatureScheme::ECDSA_NISTP384_SHA384,
                            SignatureScheme::ED25519,
                            SignatureScheme::RSA_PSS_SHA256,
                        ]
                    }
                }
                Arc::new(Anything(roots.as_ref().clone()))
            })"#,
        tests: &[
            "attacks_tls::attack_19_an_upstream_without_a_valid_certificate_gets_no_request_and_no_secret",
        ],
    },
    Guard {
        what: "leaves have another key than the authority",
        file: "crates/sbx-gateway/src/mint.rs",
        text: r#"        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let der = "#,
        instead: r#"        let key = KeyPair::try_from(key.0.serialize_der())?;
        let der = "#,
        tests: &[
            "authority::attack_20_the_key_is_the_gateway_s_own_and_a_restarted_one_has_another",
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
        what: "early data is not taken",
        file: "crates/sbx-gateway/src/mint.rs",
        text: "        config.alpn_protocols = ",
        instead: r#"        config.max_early_data_size = 16 * 1024;
        config.alpn_protocols = "#,
        tests: &["attacks_handshake::attack_21_early_data_is_neither_taken_nor_asked_for"],
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
        what: "trailers that could change a message are taken out",
        file: "crates/sbx-gateway/src/relay/body.rs",
        text: "trailers.remove(name);",
        instead: "let _ = (&mut trailers, name);",
        tests: &["attacks_bodies::attack_27_trailers_that_could_change_a_message_stay_here"],
    },
    Guard {
        what: "only a WebSocket takes Upgrade along",
        file: "crates/sbx-gateway/src/relay/headers.rs",
        text: "        headers.remove(UPGRADE);",
        instead: r#"        headers.remove("x-upgrade");"#,
        tests: &[
            "attacks_framing::attack_29_http2_in_clear_text_is_neither_upgraded_to_nor_spoken",
        ],
    },
    Guard {
        what: "an upstream switches the protocol only when asked to",
        file: "crates/sbx-gateway/src/relay/exchange.rs",
        text: "            None if switched => account",
        instead: "            None if switched && websocket => account",
        tests: &[
            "attacks_http::attack_30_nothing_but_a_websocket_that_was_asked_for_switches_the_protocol",
        ],
    },
    Guard {
        what: "placeholders go to their own host only",
        file: "crates/sbx-gateway/src/relay/http.rs",
        text: "if let Some(service) = placeholder::stray(&grant, parts) {",
        instead: "if let Some(service) = placeholder::stray(&grant, parts).filter(|s| s.is_empty()) {",
        tests: &[
            "attacks_http::attack_30_a_websocket_is_judged_when_it_is_opened",
            "attacks_http::attack_37_a_redirect_is_the_clients_to_follow_and_takes_no_credential_along",
        ],
    },
    Guard {
        what: "a credential is written for its host only",
        file: "crates/sbx-gateway/src/decision.rs",
        text: r#"        .get(target)
        .cloned()
        .unwrap_or_default();"#,
        instead: r#"        .values()
        .next()
        .cloned()
        .unwrap_or_default();"#,
        tests: &[
            "attacks_http::attack_37_a_redirect_is_the_clients_to_follow_and_takes_no_credential_along",
        ],
    },
    Guard {
        what: "a tunnel begins with TLS unless a rule names its port",
        file: "crates/sbx-policy/src/verdict.rs",
        text: "port == Port::HTTPS || !named",
        instead: "port == Port::HTTPS && !named",
        tests: &[
            "attacks_http::attack_31_other_ports_of_an_allowed_host_need_a_rule_and_their_protocol",
        ],
    },
    Guard {
        what: "a rule with a port is for that port",
        file: "crates/sbx-policy/src/findings.rs",
        text: "entry.port.is_none_or(|port| port == self.port)",
        instead: "entry.port.is_none_or(|port| port.get() > 0)",
        tests: &[
            "attacks_http::attack_31_other_ports_of_an_allowed_host_need_a_rule_and_their_protocol",
            "attacks_ip::attack_51_ssh_is_open_to_the_hosts_that_have_a_rule_and_to_no_other",
            "attacks_ip::attack_52_without_a_proxy_the_verdicts_are_the_same",
        ],
    },
    Guard {
        what: "a path that hides a dot segment is refused",
        file: "crates/sbx-policy/src/request_path.rs",
        text: "            return Err(PathError::HiddenDotSegment);",
        instead: "            continue;",
        tests: &["attacks_http::attack_32_a_path_is_judged_in_one_form_and_sent_in_that_form"],
    },
    Guard {
        what: "a request of HTTP/2 that the library refused is noticed",
        file: "crates/sbx-gateway/src/relay/serve.rs",
        text: "|| tally.requests() > handed_out.load(Ordering::Relaxed)",
        instead: "|| tally.requests() == u64::MAX",
        tests: &[
            "attacks_h2::attack_34_an_http2_request_with_more_than_one_meaning_is_refused_and_recorded",
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
        what: "a request is judged before its body is asked for",
        file: "crates/sbx-gateway/src/relay/http.rs",
        text: r#"        let (parts, body) = request.into_parts();
"#,
        instead: r#"        let (parts, mut body) = request.into_parts();
        let _ = http_body_util::BodyExt::frame(&mut body).await;
"#,
        tests: &["attacks_bodies::attack_35_a_body_that_nobody_wants_is_never_taken_for_a_request"],
    },
    Guard {
        what: "a rule with something unknown in it is refused",
        file: "crates/sbx-policy/src/http.rs",
        text: r#"#[serde(deny_unknown_fields)]
pub struct HttpMatch"#,
        instead: "pub struct HttpMatch",
        tests: &["attacks_http::attack_36_a_rule_about_bodies_is_refused_and_not_left_out"],
    },
    Guard {
        what: "an upstream's answer has a bounded head",
        file: "crates/sbx-gateway/src/connector/http.rs",
        text: "        .max_buf_size(limits::REQUEST_HEAD_BYTES)\n",
        instead: "        .max_buf_size(1024 * 1024)\n",
        tests: &[
            "attacks_limits::attack_38_answers_and_requests_beyond_a_limit_end_themselves_and_nothing_else",
        ],
    },
    Guard {
        what: "other resolvers are told apart from other UDP",
        file: "crates/sbx-gateway/src/adapter/frame.rs",
        text: "} else if super::dns::is_dns((address, port).into()) {",
        instead: "} else if super::dns::is_dns((address, port).into()) && port == 0 {",
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
        what: "only addresses that may be dialled are given out",
        file: "crates/sbx-gateway/src/resolver.rs",
        text: "addresses.iter().filter(may).copied().collect()",
        instead: "addresses.iter().filter(|a| may(a) || !a.is_unspecified()).copied().collect()",
        tests: &["attacks_dns::attack_42_only_addresses_that_were_judged_are_dialled"],
    },
    Guard {
        what: "a wildcard opens no metadata service",
        file: "crates/sbx-policy/src/address.rs",
        text: "METADATA_NAMES.contains(&name)",
        instead: "METADATA_NAMES.is_empty() && name.is_empty()",
        tests: &["attacks_ip::attack_43_metadata_services_need_a_rule_with_exactly_their_address"],
    },
    Guard {
        what: "special-purpose addresses are closed",
        file: "crates/sbx-policy/src/evaluator.rs",
        text: "        let block = block(ip);",
        instead: "        let block = block(ip).filter(|_| ip.is_unspecified() && question.sandbox.is_empty());",
        tests: &[
            "attacks_ip::attack_43_metadata_services_need_a_rule_with_exactly_their_address",
            "attacks_ip::attack_44_special_addresses_are_closed_unless_a_rule_names_them",
            "attacks_dns::attack_42_only_addresses_that_were_judged_are_dialled",
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
        what: "Alt-Svc is taken out of answers",
        file: "crates/sbx-gateway/src/relay/exchange.rs",
        text: "head.headers.remove(ALT_SVC);",
        instead: r#"head.headers.remove("x-alt-svc");"#,
        tests: &["attacks_ip::attack_47_quic_is_stopped_and_not_offered"],
    },
    Guard {
        what: "a frame comes from the guest itself",
        file: "crates/sbx-gateway/src/adapter/frame.rs",
        text: "if source != GUEST || packet.version() != 4 {",
        instead: "if packet.version() != 4 {",
        tests: &["attacks_ip::attack_52_without_a_proxy_the_verdicts_are_the_same"],
    },
    Guard {
        what: "a wildcard opens no service of the host",
        file: "crates/sbx-policy/src/index.rs",
        text: "            Host::HostService => each(&self.host_service),",
        instead: r#"            Host::HostService => {
                each(&self.host_service);
                each(&self.everything);
            }"#,
        tests: &[
            "attacks_ip::attack_49_another_sandbox_is_out_of_reach",
            "attacks_ip::attack_50_services_of_the_host_and_control_sockets_are_out_of_reach",
            "attacks_ip::attack_53_a_broker_on_the_host_is_closed_until_a_rule_names_it",
        ],
    },
    Guard {
        what: "what is sent elsewhere is judged first",
        file: "crates/sbx-gateway/src/decision.rs",
        text: r#"    if !verdict.is_allowed() {
        return Err(Denial::of(generation, target, &verdict));"#,
        instead: r#"    if !verdict.is_allowed() && overridden.is_none() {
        return Err(Denial::of(generation, target, &verdict));"#,
        tests: &[
            "attacks_ip::attack_54_what_is_sent_elsewhere_is_judged_first_and_never_goes_direct",
        ],
    },
    Guard {
        what: "what a new policy does not allow is closed",
        file: "crates/sbx-gateway/src/gateway.rs",
        text: "let closed = self.live.enforce(&generation);",
        instead: "let closed = Vec::<Closed>::new();",
        tests: &["attacks_life::attack_68_connections_that_a_new_policy_does_not_allow_are_closed"],
    },
];
