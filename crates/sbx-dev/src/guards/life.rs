//! The guards of what is under way when the policy changes or the guest goes, and the tests that miss them.

use super::Guard;

const CLOSED: &str =
    "attacks_life::attack_68_connections_that_a_new_policy_does_not_allow_are_closed";
const BESIDE: &str =
    "attacks_life::attack_68_what_is_open_to_an_address_ends_when_another_of_its_names_is_denied";
const MORE_NAMES: &str = "attacks_life::what_has_more_names_than_are_remembered_ends_at_any_change";
const TUNNEL: &str = "revoked::a_tunnel_whose_guest_has_not_said_whom_it_wants_is_closed_too";

const UNREAD: &str = "crates/sbx-gateway/src/doors/unread.rs";

/// Every guard.
pub(super) const GUARDS: &[Guard] = &[
    Guard {
        what: "what a new policy does not allow is closed",
        file: "crates/sbx-gateway/src/gateway.rs",
        text: "let closed = self.live.enforce(&generation);",
        instead: "let closed = Vec::<Closed>::new();",
        tests: &[CLOSED, TUNNEL],
    },
    Guard {
        what: "a tunnel ends with its lease",
        file: "crates/sbx-gateway/src/relay/tunnel.rs",
        text: "        () = lease => Ok(End::Revoked),",
        instead: "        () = async { drop(lease); std::future::pending().await } => Ok(End::Revoked),",
        tests: &[CLOSED],
    },
    Guard {
        what: "a WebSocket ends with its lease",
        file: "crates/sbx-gateway/src/relay/websocket.rs",
        text: "until_end(both, &moved, lease).await",
        instead: "until_end(both, &moved, Arc::<crate::live::Live>::default().register(self.report.grant.intent.clone(), Arc::default(), Vec::new(), self.report.event.proxy)).await",
        tests: &[CLOSED],
    },
    Guard {
        what: "the body of an answer ends with its lease",
        file: "crates/sbx-gateway/src/relay/body.rs",
        text: "if Pin::new(&mut self.lease).poll(cx).is_ready() {",
        instead: "if Pin::new(&mut self.lease).poll(cx).is_ready() && cx.waker().data().is_null() {",
        tests: &[CLOSED],
    },
    Guard {
        what: "a request without an answer ends with its lease",
        file: "crates/sbx-gateway/src/relay/exchange.rs",
        text: "            () = &mut lease => {\n                let reason = lease",
        instead: "            () = std::future::pending() => {\n                let reason = lease",
        tests: &["revoked::a_request_without_an_answer_gets_403_when_its_rule_goes"],
    },
    Guard {
        what: "what was granted under another policy is judged once more",
        file: "crates/sbx-gateway/src/gateway.rs",
        text: "if changed\n            && let Err(reason) = current.keeps(",
        instead: "if changed\n            && grant.addresses.is_empty()\n            && let Err(reason) = current.keeps(",
        tests: &["revoked::a_body_that_was_to_be_read_first_is_refused_once_and_not_sent"],
    },
    Guard {
        what: "a tunnel that has not begun ends with its lease",
        file: UNREAD,
        text: "            () = &mut self.lease => return,\n",
        instead: "            () = std::future::pending() => return,\n",
        tests: &[TUNNEL],
    },
    Guard {
        what: "a tunnel that is given up is recorded",
        file: UNREAD,
        text: "        self.tell(self.grant.reason);",
        instead: "        self.told = true;",
        tests: &["given_up::a_tunnel_that_is_given_up_before_its_first_message_is_recorded"],
    },
    Guard {
        what: "an opened connection that is given up is recorded",
        file: "crates/sbx-gateway/src/relay/http.rs",
        text: "        let first = lock(&self.first).take()?;",
        instead: "        let first = lock(&self.first).take().filter(|_| granted.as_str().is_empty())?;",
        tests: &[
            "given_up::an_opened_connection_that_is_given_up_before_its_first_request_is_recorded",
        ],
    },
    Guard {
        what: "a first message has to be complete in time, and that is recorded",
        file: "crates/sbx-gateway/src/adapter/hello.rs",
        text: "        Err(_) => return Err(HelloError::Slow),",
        instead: "        Err(_) => return Err(HelloError::Gone),",
        tests: &["given_up::a_first_message_that_is_not_complete_in_time_is_cut_and_recorded"],
    },
    Guard {
        what: "what a credential is written into ends when it is withdrawn",
        file: "crates/sbx-gateway/src/generation.rs",
        text: "if written.any(|one| !self.credentials.still_binds(&target, one)) {",
        instead: "if written.any(|one| one.service.is_empty()) {",
        tests: &[
            "withdrawn::a_websocket_is_closed_when_the_credential_that_is_written_into_it_is_withdrawn_and_not_when_it_changes",
            "withdrawn::a_request_whose_credential_is_withdrawn_before_all_of_it_is_here_is_not_sent",
        ],
    },
    Guard {
        what: "none of the addresses that may have been dialled is denied",
        file: "crates/sbx-gateway/src/generation.rs",
        text: "verdict.pinned.len() < granted {",
        instead: "verdict.pinned.len() < granted.min(1) {",
        tests: &["withdrawn::a_tunnel_is_closed_when_an_address_that_it_may_lead_to_is_denied"],
    },
    Guard {
        what: "none of the names of an address that was dialled raw is denied",
        file: "crates/sbx-gateway/src/generation.rs",
        text: "beside_it.any(is_denied) {",
        instead: "beside_it.any(is_denied) && intent.host.name().is_none() {",
        tests: &[BESIDE],
    },
    Guard {
        what: "names that no rule is about are remembered as well",
        file: "crates/sbx-gateway/src/decision.rs",
        text: "        if beside.len() <= limits::NAMES_BESIDE {",
        instead: "        if beside.len() <= limits::NAMES_BESIDE && verdict.is_allowed() {",
        tests: &[BESIDE, MORE_NAMES],
    },
    Guard {
        what: "what was dialled under an older policy is not used under a newer one",
        file: "crates/sbx-gateway/src/relay/http.rs",
        text: "Some(Ok(first)) if !first.is_for(grant, self.tls()) => {}",
        instead: "Some(Ok(first)) if !first.is_for(grant, self.tls()) && grant.addresses.is_empty() => {}",
        tests: &[
            "withdrawn::a_connection_that_was_opened_under_an_older_policy_takes_no_request_of_a_newer_one",
        ],
    },
    Guard {
        what: "a connection that is kept for a login takes requests for its own host only",
        file: "crates/sbx-gateway/src/relay/http.rs",
        text: "            && own.is_for(grant, self.tls())\n",
        instead: "",
        tests: &[
            "withdrawn::a_connection_that_a_login_is_tied_to_takes_no_request_for_another_host",
        ],
    },
    Guard {
        what: "nothing is sent in clear text to the port of TLS",
        file: "crates/sbx-gateway/src/adapter/request.rs",
        text: "    if target.port == Port::HTTPS {",
        instead: "    if target.port == Port::HTTPS && parts.headers.is_empty() {",
        tests: &["withdrawn::attack_55_nothing_is_written_in_clear_text_to_the_port_of_tls"],
    },
    Guard {
        what: "what would have a server take another method or path is refused where rules look at those",
        file: "crates/sbx-gateway/src/adapter/request.rs",
        text: "names.find(|name| parts.headers.contains_key(**name))",
        instead: "names.find(|name| name.is_empty())",
        tests: &[
            "withdrawn::headers_that_change_method_or_path_are_refused_where_rules_look_at_them",
            "issuers::a_header_for_the_method_matters_where_methods_do",
        ],
    },
    Guard {
        what: "a reason phrase stays outside",
        file: "crates/sbx-gateway/src/relay/exchange.rs",
        text: "answer.extensions_mut().remove::<ReasonPhrase>();",
        instead: "let _ = answer.extensions_mut().get::<ReasonPhrase>();",
        tests: &["withdrawn::attack_56_a_value_in_the_reason_phrase_does_not_come_back"],
    },
];
