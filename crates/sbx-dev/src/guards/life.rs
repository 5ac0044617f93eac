//! The guards of what is under way when the policy changes or the guest goes, and the tests that miss them.

use super::Guard;

const CLOSED: &str =
    "attacks_life::attack_68_connections_that_a_new_policy_does_not_allow_are_closed";
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
        instead: "until_end(both, &moved, Arc::<crate::live::Live>::default().register(self.report.grant.intent.clone(), self.report.event.proxy)).await",
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
        text: "            () = &mut lease => Err(SendError::Revoked),",
        instead: "            () = std::future::pending() => Err(SendError::Revoked),",
        tests: &["revoked::a_request_without_an_answer_gets_403_when_its_rule_goes"],
    },
    Guard {
        what: "what was granted under another policy is judged once more",
        file: "crates/sbx-gateway/src/gateway.rs",
        text: "if changed && !current.allows(&grant.intent) && lease.revoke() {",
        instead: "if changed && grant.addresses.is_empty() && lease.revoke() {",
        tests: &["revoked::a_body_that_was_to_be_read_first_is_refused_once_and_not_sent"],
    },
    Guard {
        what: "a tunnel that has not begun ends with its lease",
        file: UNREAD,
        text: "            () = &mut self.lease => {\n                account.told = true;\n                return;",
        instead: "            () = std::future::pending() => {\n                account.told = true;\n                return;",
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
        what: "a first message has a bound",
        file: "crates/sbx-gateway/src/adapter/hello.rs",
        text: "if seen.len() > limits::CLIENT_HELLO_BYTES {",
        instead: "if seen.len() > 8 * limits::CLIENT_HELLO_BYTES {",
        tests: &["given_up::a_first_message_that_is_too_long_is_cut_and_recorded"],
    },
];
