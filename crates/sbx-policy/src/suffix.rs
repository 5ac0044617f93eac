//! Suffixes under which anybody can get a name, so that a wildcard directly below them is refused.

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

/// Second-level labels under which country registries sell names (`co.uk`, `com.au`, `ne.jp`).
const REGISTRY_SECOND_LEVEL: [&str; 16] = [
    "ac", "co", "com", "edu", "firm", "gen", "go", "gob", "gov", "ind", "ltd", "ne", "net", "or",
    "org", "plc",
];

/// Whether a wildcard directly below `suffix` would take in names of unrelated owners. Knows the
/// shapes `com` and `co.uk`, not the whole public suffix list.
pub(crate) fn is_public_suffix(suffix: &str) -> bool {
    match suffix.split_once('.') {
        None => !PRIVATE_TOP_LEVEL.contains(&suffix),
        Some((second, top)) => {
            // Two letters: a country code (ISO 3166). Longer top levels sell the second level.
            top.len() == 2 && REGISTRY_SECOND_LEVEL.contains(&second)
        }
    }
}
