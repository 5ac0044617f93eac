//! The guards, and the tests that miss them.

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
pub(super) const GUARDS: &[Guard] = &[Guard {
    what: "an address was resolved for the name that is used with it",
    file: "crates/sbx-gateway/src/decision.rs",
    text: "    let ours = generation.synthetic.get(name) == Some(&dialled);",
    instead: "    let ours = true || generation.synthetic.get(name) == Some(&dialled);",
    tests: &[
        "attacks_tls::attack_17_an_allowed_name_with_an_address_never_resolved_for_it_is_blocked",
    ],
}];
