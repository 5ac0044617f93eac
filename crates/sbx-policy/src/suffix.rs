//! Suffixes under which anybody can get a name, so that a wildcard directly below them lets strangers in.

use public_suffix::{DEFAULT_PROVIDER, ListProvider, Table};

/// Top-level names that are reserved for private use or examples (RFC 2606, RFC 6761, RFC 8375,
/// ICANN's `internal`) or widely used inside companies: their owner is the network's owner.
const PRIVATE_TOP_LEVEL: [&str; 12] = [
    "corp",
    "example",
    "home",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "private",
    "test",
];

/// Who hands out names below a suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Registry {
    /// One owner, as far as the public suffix list knows.
    Owner,
    /// A domain registry: `com`, `co.uk`.
    Public,
    /// A company that gives names to its customers: `github.io`, `blob.core.windows.net`.
    Hosting,
}

/// Whether the suffix is a top-level domain of the public internet. Needs no data, so that the answer never
/// changes: stored rules are measured by it, too.
pub(crate) fn is_public_top_level(suffix: &str) -> bool {
    !suffix.contains('.') && !PRIVATE_TOP_LEVEL.contains(&suffix)
}

/// Who hands out names directly below `suffix`, by the public suffix list. The list changes with each version of
/// its crate, so this is asked when a rule is written and never of a stored one.
pub(crate) fn registry(suffix: &str) -> Registry {
    if is_public_top_level(suffix) {
        return Registry::Public;
    }
    // `*.kawasaki.jp` stands in the list without `kawasaki.jp` itself.
    let below = format!("0.{suffix}");
    match listed(&DEFAULT_PROVIDER, suffix).or_else(|| listed(&DEFAULT_PROVIDER, &below)) {
        Some(true) => Registry::Public,
        Some(false) => Registry::Hosting,
        None => Registry::Owner,
    }
}

/// Takes the lowest `bits` off the value.
fn field(value: &mut u32, bits: u32) -> u32 {
    let low = *value & ((1 << bits) - 1);
    *value >>= bits;
    low
}

/// Whether the list has `name` itself, and if so, whether in its part about registries (or else in the one that
/// companies wrote). The crate's own look-up does not say which part.
fn listed<T: Table>(_list: &ListProvider<T>, name: &str) -> Option<bool> {
    let text = |node: u32| {
        let mut node = node;
        let length = field(&mut node, T::NODES_BITS_TEXT_LENGTH) as usize;
        let offset = field(&mut node, T::NODES_BITS_TEXT_OFFSET) as usize;
        T::TEXT.get(offset..offset + length).unwrap_or_default()
    };
    let (mut low, mut high) = (0, T::NUM_TLD);
    let (mut every, mut registries) = (false, false);
    let mut labels = name.rsplit('.').peekable();
    while let Some(label) = labels.next() {
        let last = labels.peek().is_none();
        let nodes = T::NODES.get(low as usize..high as usize)?;
        let Ok(at) = nodes.binary_search_by(|node| text(*node).cmp(label)) else {
            return (every && last).then_some(registries);
        };
        let mut node = nodes[at] >> (T::NODES_BITS_TEXT_LENGTH + T::NODES_BITS_TEXT_OFFSET);
        registries = field(&mut node, T::NODES_BITS_ICANN) == 1;
        let at = field(&mut node, T::NODES_BITS_CHILDREN) as usize;
        let mut children = *T::CHILDREN.get(at)?;
        low = field(&mut children, T::CHILDREN_BITS_LO);
        high = field(&mut children, T::CHILDREN_BITS_HI);
        let kind = field(&mut children, T::CHILDREN_BITS_NODE_TYPE);
        if last {
            let here = kind == T::NODE_TYPE_NORMAL || (every && kind != T::NODE_TYPE_EXCEPTION);
            return here.then_some(registries);
        }
        every = field(&mut children, T::CHILDREN_BITS_WILDCARD) == 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_and_hosting_companies_are_told_apart_from_owners() {
        for suffix in [
            "com",
            "bar",
            "xn--p1ai",
            "zz",
            "co.uk",
            "com.au",
            "k12.ca.us",
            "kawasaki.jp",
            "foo.ck",
        ] {
            assert_eq!(registry(suffix), Registry::Public, "{suffix}");
        }
        for suffix in [
            "github.io",
            "s3.amazonaws.com",
            "blob.core.windows.net",
            "workers.dev",
        ] {
            assert_eq!(registry(suffix), Registry::Hosting, "{suffix}");
        }
        for suffix in [
            "example.com",
            "amazonaws.com",
            "x.co.uk",
            "a.github.io",
            "www.ck",
            "city.kawasaki.jp",
            "test",
            "internal",
            "corp",
            "x.corp",
            "co.internal",
            "a.city.kawasaki.jp",
            "b.x.co.uk",
        ] {
            assert_eq!(registry(suffix), Registry::Owner, "{suffix}");
        }
    }

    #[test]
    fn every_name_that_the_list_calls_a_suffix_is_found() {
        // The crate's own look-up as the witness, over every label of the list below some top levels.
        let mut seen = 0;
        for top in ["uk", "jp", "com", "io", "no", "ck", "br", "net", "dev"] {
            for other in [
                "co", "com", "net", "org", "ac", "kawasaki", "github", "www", "blogspot", "zzz",
            ] {
                let name = format!("{other}.{top}");
                let witness = DEFAULT_PROVIDER.is_effective_tld(&name);
                assert_eq!(
                    listed(&DEFAULT_PROVIDER, &name).is_some(),
                    witness,
                    "{name}"
                );
                seen += usize::from(witness);
            }
        }
        assert!(seen > 10);
    }
}
