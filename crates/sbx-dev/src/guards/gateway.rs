//! The guards of the gateway behind its adapters, and the tests that miss them.

use super::Guard;

/// Every guard.
pub(super) const GUARDS: &[Guard] = &[
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
        what: "early data is not taken",
        file: "crates/sbx-gateway/src/mint.rs",
        text: "        config.alpn_protocols = ",
        instead: r#"        config.max_early_data_size = 16 * 1024;
        config.alpn_protocols = "#,
        tests: &["attacks_handshake::attack_21_early_data_is_neither_taken_nor_asked_for"],
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
        text: "if let Some(owner) = grant.bound.stray(parts) {",
        instead: "if let Some(owner) = grant.bound.stray(parts).filter(|o| o.service.is_empty()) {",
        tests: &[
            "attacks_credentials::attack_55_a_placeholder_in_the_head_or_a_small_body_is_stopped_before_a_byte_is_sent",
            "attacks_http::attack_30_a_websocket_is_judged_when_it_is_opened",
            "attacks_http::attack_37_a_redirect_is_the_clients_to_follow_and_takes_no_credential_along",
        ],
    },
    Guard {
        what: "what cannot be written down does not happen",
        file: "crates/sbx-gateway/src/decision.rs",
        text: "    if gateway.records.can_write() {",
        instead: "    if gateway.records.can_write() || true {",
        tests: &["unwritten::nothing_new_passes_while_it_cannot_be_written_down"],
    },
    Guard {
        what: "a raw connection is written down or is none",
        file: "crates/sbx-gateway/src/doors/mod.rs",
        text: "        Ok(_) if !gateway.records.can_write() => Err(Refusal::Refused),\n",
        instead: "",
        tests: &["unwritten::a_tunnel_whose_own_record_cannot_be_written_passes_nothing"],
    },
    Guard {
        what: "a tunnel is written down or is none",
        file: "crates/sbx-gateway/src/doors/unread.rs",
        text: "if !self.account.gateway.records.can_write() {",
        instead: "if false {",
        tests: &["unwritten::a_tunnel_whose_own_record_cannot_be_written_passes_nothing"],
    },
    Guard {
        what: "datagrams are written down or not sent",
        file: "crates/sbx-gateway/src/doors/datagrams.rs",
        text: "Ok(_) if !self.gateway.records.can_write() =>",
        instead: "Ok(_) if false =>",
        tests: &["udp::datagrams_whose_own_record_cannot_be_written_are_not_sent"],
    },
    Guard {
        what: "a question to a resolver is written down or not asked",
        file: "crates/sbx-gateway/src/adapter/dns.rs",
        text: "if !gateway.records.can_write() {",
        instead: "if false {",
        tests: &["unwritten::no_name_is_asked_about_while_it_cannot_be_written_down"],
    },
    Guard {
        what: "a key that goes in is written down or does not",
        file: "crates/sbx-gateway/src/relay/handing_in.rs",
        text: "if !self.gateway.records.can_write() {",
        instead: "if false {",
        tests: &["unwritten::no_key_is_handed_in_while_it_cannot_be_written_down"],
    },
    Guard {
        what: "a sign-in's placeholder stands where a login does",
        file: "crates/sbx-gateway/src/relay/http.rs",
        text: "if let Some(denial) = supply::misplaced(&grant, parts) {",
        instead: "if let Some(denial) = supply::misplaced(&grant, parts).filter(|_| false) {",
        tests: &[
            "attacks_places::attack_57_a_sign_in_s_token_is_written_into_logins_and_nowhere_else",
        ],
    },
    Guard {
        what: "bodies are looked into",
        file: "crates/sbx-gateway/src/relay/guarded_body.rs",
        text: "if bound.strays.is_none() && write.is_none() {",
        instead: "if write.is_none() {",
        tests: &[
            "attacks_credentials::attack_55_a_placeholder_in_the_head_or_a_small_body_is_stopped_before_a_byte_is_sent",
            "attacks_credentials::attack_55_a_placeholder_split_over_writes_or_deep_in_a_long_body_never_arrives_whole",
            "attacks_credentials::attack_55_a_compressed_body_is_looked_into_and_what_cannot_be_is_refused",
            "attacks_credentials::attack_55_a_placeholder_in_a_long_compressed_body_never_arrives_whole",
        ],
    },
    Guard {
        what: "what is compressed waits until it was looked at",
        file: "crates/sbx-gateway/src/relay/decoding.rs",
        text: "Coding::Zstd(zstd) => zstd.release(&piece),",
        instead: "Coding::Zstd(zstd) => zstd.release(&piece).map(|_| piece),",
        tests: &[
            "attacks_credentials::attack_55_a_placeholder_in_a_long_compressed_body_never_arrives_whole",
        ],
    },
    Guard {
        what: "a compressed body does not grow without end",
        file: "crates/sbx-gateway/src/relay/decoding.rs",
        text: "if self.0.len() + text.len() > limits::DECODED {",
        instead: "if self.0.len() + text.len() > 16 * limits::DECODED {",
        tests: &[
            "attacks_credentials::attack_55_a_compressed_body_is_looked_into_and_what_cannot_be_is_refused",
        ],
    },
    Guard {
        what: "without its value a request is refused",
        file: "crates/sbx-gateway/src/relay/supply.rs",
        text: "            Supply::Unavailable(why) => return Err(unavailable(grant, credential, why)),",
        instead: "            Supply::Unavailable(_) => continue,",
        tests: &[
            "attacks_credentials::attack_61_without_its_value_a_request_is_refused_and_the_placeholder_goes_nowhere",
        ],
    },
    Guard {
        what: "a key of the guest's own does not go along",
        file: "crates/sbx-gateway/src/connector/message.rs",
        text: "        for name in key_headers().chain(written_over) {",
        instead: "        for name in key_headers().take(0).chain(written_over) {",
        tests: &[
            "attacks_credentials::attack_63_a_key_of_the_guests_own_is_replaced_and_that_is_recorded",
        ],
    },
    Guard {
        what: "what is signed for AWS was signed with the placeholder",
        file: "crates/sbx-credentials/src/sigv4/claim.rs",
        text: "if !key.verifies(&to_sign, &self.signature) {",
        instead: "if !key.verifies(&to_sign, &self.signature) && text.is_empty() {",
        tests: &[
            "aws::refusals::what_is_not_the_placeholder_s_signature_is_refused_in_the_words_of_aws",
        ],
    },
    Guard {
        what: "AWS is signed for the region and service of the host",
        file: "crates/sbx-credentials/src/sigv4/claim.rs",
        text: "if !endpoint.is(region, service) {",
        instead: "if !endpoint.is(region, service) && now == 0 {",
        tests: &[
            "aws::refusals::what_is_not_the_placeholder_s_signature_is_refused_in_the_words_of_aws",
        ],
    },
    Guard {
        what: "a body to AWS that streams is the one that was signed",
        file: "crates/sbx-gateway/src/relay/signing.rs",
        text: "let fits = hasher.clone().finish() == *wanted;",
        instead: "let fits = hasher.clone().finish() == *wanted || last;",
        tests: &["aws::bodies::a_body_that_streams_and_is_another_one_never_arrives_whole"],
    },
    Guard {
        what: "calls of AWS whose answers are credentials are refused",
        file: "crates/sbx-gateway/src/connector/aws.rs",
        text: "if let Some(call) = issuing(&endpoint, &head, b\"\") {",
        instead: "if let Some(call) = issuing(&endpoint, &head, b\"\").filter(|_| false) {",
        tests: &["aws::refusals::every_call_that_gives_out_credentials_is_refused_signed_or_not"],
    },
    Guard {
        what: "a name of AWS means what it says, whatever the key is bound as",
        file: "crates/sbx-gateway/src/credentials/aws.rs",
        text: "Some(own) if !is_of_aws(&host) => Ok(own.clone()),",
        instead: "Some(own) if !is_of_aws(&host) || !host.is_empty() => Ok(own.clone()),",
        tests: &["aws::endpoints::a_name_of_aws_means_what_it_says_whatever_the_key_is_bound_as"],
    },
    Guard {
        what: "a store is not asked for keys in a form",
        file: "crates/sbx-credentials/src/sigv4/issue.rs",
        text: "|| (endpoint.is_own_store() && is_form(head))",
        instead: "|| (endpoint.is_own_store() && is_form(head) && head.path.is_empty())",
        tests: &[
            "aws::endpoints::a_store_that_gives_out_keys_at_its_own_host_is_not_asked_for_them",
        ],
    },
    Guard {
        what: "a key of AWS is handed to who shows the token",
        file: "crates/sbx-gateway/src/relay/handing_in.rs",
        text: "shows_token(first.as_bytes(), token) && parts.method == Method::GET",
        instead: "(shows_token(first.as_bytes(), token) || true) && parts.method == Method::GET",
        tests: &["aws::handing_in::a_key_is_handed_to_who_shows_the_token_and_to_nobody_else"],
    },
    Guard {
        what: "what is signed with a key that was not handed in is refused",
        file: "crates/sbx-gateway/src/credentials/aws.rs",
        text: "handed_in.ids.iter().any(|id| id == access_key_id)",
        instead: "handed_in.ids.iter().any(|id| id.len() == access_key_id.len())",
        tests: &[
            "aws::handing_in::what_is_signed_with_a_key_that_was_handed_in_goes_on_and_with_no_other",
        ],
    },
    Guard {
        what: "a credential is written for its host only",
        file: "crates/sbx-gateway/src/credentials/mod.rs",
        text: "        let here = all.filter(|(_, credential)| credential.hosts.contains(target));",
        instead: "        let here = all.filter(|_| true);",
        tests: &["credential_forms::a_service_has_the_form_that_each_of_its_hosts_wants"],
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
        what: "an upstream's answer has a bounded head",
        file: "crates/sbx-gateway/src/connector/http.rs",
        text: "        .max_buf_size(limits::REQUEST_HEAD_BYTES)\n",
        instead: "        .max_buf_size(1024 * 1024)\n",
        tests: &[
            "attacks_limits::attack_38_answers_and_requests_beyond_a_limit_end_themselves_and_nothing_else",
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
        what: "Alt-Svc is taken out of answers",
        file: "crates/sbx-gateway/src/relay/exchange.rs",
        text: "head.headers.remove(ALT_SVC);",
        instead: r#"head.headers.remove("x-alt-svc");"#,
        tests: &["attacks_ip::attack_47_quic_is_stopped_and_not_offered"],
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
];
