//! The guards of values on their way back to the guest, and the tests that miss them.

use super::Guard;

/// Every guard.
pub(super) const GUARDS: &[Guard] = &[
    Guard {
        what: "values are taken out of answers",
        file: "crates/sbx-gateway/src/relay/clean.rs",
        text: "    bound.sought.as_ref().map(|_| Values {",
        instead: "    bound.sought.as_ref().filter(|_| supplied.len() > 99).map(|_| Values {",
        tests: &[
            "attacks_credentials::attack_56_a_value_that_comes_back_is_replaced_in_head_and_body_whatever_they_are_written_as",
            "attacks_shown::attack_56_a_value_in_a_trailer_is_replaced",
        ],
    },
    Guard {
        what: "a value that was written is looked for in later answers",
        file: "crates/sbx-gateway/src/relay/supply.rs",
        text: "            sought.give(&one);",
        instead: "            let _ = sought;",
        tests: &[
            "attacks_shown::attack_56_a_value_that_a_host_keeps_is_replaced_in_its_later_answers_on_every_connection",
        ],
    },
    Guard {
        what: "what is open looks for what is written elsewhere",
        file: "crates/sbx-gateway/src/relay/clean.rs",
        text: "sought.changes() != self.changes)",
        instead: "sought.changes() < self.changes)",
        tests: &[
            "attacks_shown::attack_56_what_is_open_learns_of_a_value_that_is_written_elsewhere",
        ],
    },
    Guard {
        what: "what was replaced or withdrawn is looked for a while longer",
        file: "crates/sbx-gateway/src/credentials/given.rs",
        text: "            value.until.get_or_insert(now + limits::GIVEN_KEPT);\n        }\n    }\n}",
        instead: "            value.until.get_or_insert(now);\n        }\n    }\n}",
        tests: &["attacks_shown::attack_56_a_value_that_was_replaced_or_withdrawn_is_still_found"],
    },
    Guard {
        what: "hosts of what was withdrawn stay opened",
        file: "crates/sbx-gateway/src/credentials/mod.rs",
        text: "self.has_issuer(target) || self.given.was_bound(target)",
        instead: "self.has_issuer(target)",
        tests: &["attacks_shown::attack_56_a_value_that_was_replaced_or_withdrawn_is_still_found"],
    },
];
