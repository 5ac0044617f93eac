//! The guards of the policy, and the gateway's tests that miss them.

use super::Guard;

const NEAR: &str =
    "near::attack_44_addresses_of_the_host_and_its_neighbours_are_closed_to_wildcards_and_ranges";

/// Every guard.
pub(super) const GUARDS: &[Guard] = &[
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
        what: "a rule with something unknown in it is refused",
        file: "crates/sbx-policy/src/http.rs",
        text: r#"#[serde(deny_unknown_fields)]
pub struct HttpMatch"#,
        instead: "pub struct HttpMatch",
        tests: &["attacks_http::attack_36_a_rule_about_bodies_is_refused_and_not_left_out"],
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
        instead: "        let block = block(ip).filter(|_| ip.is_unspecified() && self.generation == u64::MAX);",
        tests: &[
            "attacks_ip::attack_43_metadata_services_need_a_rule_with_exactly_their_address",
            "attacks_ip::attack_44_special_addresses_are_closed_unless_a_rule_names_them",
            "attacks_dns::attack_42_only_addresses_that_were_judged_are_dialled",
        ],
    },
    Guard {
        what: "an address of the host needs a rule with exactly that address",
        file: "crates/sbx-policy/src/near.rs",
        text: "    if is_own(ip).unwrap_or(true) {",
        instead: "    if is_own(ip).unwrap_or(true) && ip.is_loopback() {",
        tests: &[NEAR],
    },
    Guard {
        what: "a neighbour by IPv6 needs a rule within the link",
        file: "crates/sbx-policy/src/near.rs",
        text: "Ok(Some(IpAddr::V6(source))) => link.contains(&source),",
        instead: "Ok(Some(IpAddr::V6(source))) => link.contains(&source) && source.is_loopback(),",
        tests: &[NEAR],
    },
    Guard {
        what: "what addresses are tried with is kept",
        file: "crates/sbx-policy/src/near.rs",
        text: "                *place = Some(socket);\n",
        instead: "",
        tests: &["near::a_gateway_without_descriptors_takes_no_address_for_the_hosts_own"],
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
];
