//! The small kernel's configuration: what is wanted, and whether a finished `.config` has it.

use std::collections::BTreeSet;

/// Every option with its reason, in the form that `make KCONFIG_ALLCONFIG=… allnoconfig` reads.
pub(crate) const TEXT: &str = include_str!("../../kernel/small.config");

/// The wanted lines that `config`, a kernel's `.config`, does not have. Kconfig drops without a word what is
/// misspelt, gone from this version, or lacks something that it depends on.
pub(crate) fn lost(config: &str) -> Vec<&'static str> {
    lost_of(TEXT, config)
}

fn lost_of<'w>(wanted: &'w str, config: &str) -> Vec<&'w str> {
    let lines: BTreeSet<&str> = config.lines().collect();
    let holds = |line: &str| match unset(line) {
        Some(name) => !lines.range(name..).next().is_some_and(|next| {
            let rest = next.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with('='))
        }),
        None => lines.contains(line),
    };
    wanted
        .lines()
        .filter(|line| line.starts_with("CONFIG_") || unset(line).is_some())
        .filter(|line| !holds(line))
        .collect()
}

/// The option that `# CONFIG_X is not set` turns off.
fn unset(line: &str) -> Option<&str> {
    line.strip_prefix("# ")?
        .strip_suffix(" is not set")
        .filter(|name| name.starts_with("CONFIG_"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_that_kconfig_dropped_or_changed_is_named() {
        let wanted = "# why\nCONFIG_A=y\nCONFIG_N=64\nCONFIG_GONE=y\n";
        let config = "CONFIG_A=y\nCONFIG_N=8\nCONFIG_A_MORE=y\n# CONFIG_GONE is not set\n";
        assert_eq!(lost_of(wanted, config), ["CONFIG_N=64", "CONFIG_GONE=y"]);
    }

    #[test]
    fn option_that_has_to_be_off_may_be_missing_but_not_on() {
        let wanted = "# CONFIG_MODULES is not set\n";
        for off in ["# CONFIG_MODULES is not set\n", "", "CONFIG_MODULES_X=y\n"] {
            assert!(lost_of(wanted, off).is_empty(), "{off}");
        }
        assert_eq!(
            lost_of(wanted, "CONFIG_MODULES=y\n"),
            ["# CONFIG_MODULES is not set"]
        );
    }

    #[test]
    fn every_line_is_an_option_or_a_comment_and_none_comes_twice() {
        let mut seen = BTreeSet::new();
        for line in TEXT.lines().filter(|line| !line.is_empty()) {
            let name = unset(line).or_else(|| line.split_once('=').map(|(name, _)| name));
            if !line.starts_with('#') || unset(line).is_some() {
                let name = name.filter(|name| name.starts_with("CONFIG_"));
                assert!(seen.insert(name.expect(line)), "{line} comes twice");
            }
        }
        assert!(seen.len() > 300, "{} options", seen.len());
    }
}
