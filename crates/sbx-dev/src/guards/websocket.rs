//! The guards of what passes in a WebSocket, and the tests that miss them.

use super::Guard;

const STRAY: &str = "attacks_websocket::attack_30_a_placeholder_in_a_message_is_stopped_however_it_is_written_and_split";
const VALUE: &str = "attacks_websocket::attack_56_a_value_that_comes_back_in_messages_is_replaced";
const EXTENSION: &str = "attacks_websocket::attack_30_no_extension_is_offered_and_none_is_taken";
const FRAMES: &str =
    "attacks_websocket::attack_30_frames_that_are_none_end_their_connection_and_no_other";
const UPSTREAM: &str = "attacks_websocket::attack_30_an_upstream_whose_frames_are_none_is_told_and_what_it_sends_stays_out";
const CHOSEN: &str = "attacks_websocket::attack_57_a_placeholder_in_a_message_stays_one_unless_somebody_chose_otherwise";

const RELAY: &str = "crates/sbx-gateway/src/relay/websocket.rs";
const ADAPTER: &str = "crates/sbx-gateway/src/adapter/websocket.rs";

/// Every guard.
pub(super) const GUARDS: &[Guard] = &[
    Guard {
        what: "messages are looked into",
        file: RELAY,
        text: "BodyGuard::of_messages(gateway, grant, supplied, &event);",
        instead: "BodyGuard::of_messages(gateway, grant, supplied, &event).filter(|_| false);",
        tests: &[STRAY, CHOSEN],
    },
    Guard {
        what: "a message is one text, whatever its fragments",
        file: RELAY,
        text: "Some(messages) => messages.pass(text, last)?,",
        instead: "Some(messages) => messages.pass(text, true)?,",
        tests: &[STRAY, VALUE, CHOSEN],
    },
    Guard {
        what: "the beginning of a placeholder waits for its end",
        file: "crates/sbx-gateway/src/relay/guarded_body.rs",
        text: "            hold: true,\n",
        instead: "            hold: bound.conversation,\n",
        tests: &[STRAY],
    },
    Guard {
        what: "control frames are looked into",
        file: RELAY,
        text: "        self.whole(std::iter::once(&text[..]))?;\n",
        instead: "",
        tests: &[STRAY],
    },
    Guard {
        what: "values are taken out of messages",
        file: RELAY,
        text: "        Self {\n            guard,\n            clean,",
        instead: "        Self {\n            guard,\n            clean: clean.filter(|_| false),",
        tests: &[VALUE, CHOSEN],
    },
    Guard {
        what: "values are taken out of control frames",
        file: RELAY,
        text: "        Ok(self.whole(text))",
        instead: "        Ok(text)",
        tests: &[VALUE],
    },
    Guard {
        what: "no extension of WebSocket is offered",
        file: "crates/sbx-gateway/src/connector/message.rs",
        text: "parts.headers.remove(SEC_WEBSOCKET_EXTENSIONS);",
        instead: "let _ = SEC_WEBSOCKET_EXTENSIONS;",
        tests: &[EXTENSION],
    },
    Guard {
        what: "no extension of WebSocket is taken",
        file: RELAY,
        text: "if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) {",
        instead: "if headers.contains_key(SEC_WEBSOCKET_EXTENSIONS) && headers.is_empty() {",
        tests: &[EXTENSION],
    },
    Guard {
        what: "reserved bits are refused",
        file: ADAPTER,
        text: "if first & RESERVED != 0 {",
        instead: "if first & RESERVED == RESERVED {",
        tests: &[FRAMES, UPSTREAM],
    },
    Guard {
        what: "a client masks",
        file: ADAPTER,
        text: "Side::Client if !masked =>",
        instead: "Side::Client if !masked && last && !last =>",
        tests: &[FRAMES],
    },
    Guard {
        what: "a server does not mask",
        file: ADAPTER,
        text: "Side::Server if masked =>",
        instead: "Side::Server if masked && last && !last =>",
        tests: &[UPSTREAM],
    },
    Guard {
        what: "control frames are short and whole",
        file: ADAPTER,
        text: "(!last || usize::from(short) > CONTROL) {",
        instead: "(!last && usize::from(short) > CONTROL) {",
        tests: &[FRAMES, UPSTREAM],
    },
    Guard {
        what: "a length has one form",
        file: ADAPTER,
        text: "if !(shortest..=LARGEST).contains(&length) {",
        instead: "if !(shortest.min(0)..=LARGEST).contains(&length) {",
        tests: &[FRAMES, UPSTREAM],
    },
    Guard {
        what: "a frame has the largest length or less",
        file: ADAPTER,
        text: "const LARGEST: u64 = u64::MAX >> 1;",
        instead: "const LARGEST: u64 = u64::MAX;",
        tests: &[FRAMES],
    },
    Guard {
        what: "a message does not begin inside of another one",
        file: ADAPTER,
        text: "(Opcode::Message(_), Some(_)) => return Err(Violation::Inside),",
        instead: "(Opcode::Message(kind), Some(_)) => kind,",
        tests: &[FRAMES],
    },
];
