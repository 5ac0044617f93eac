//! A Java key store of trusted certificates, in the format that every Java since 1.2 reads whatever the
//! store's default type is (`sun.security.provider.JavaKeyStore`; not documented, but frozen).

use sha1::{Digest as _, Sha1};

/// What `keytool` and the Java runtimes themselves use; programs that give a password give this one.
const PASSWORD: &str = "changeit";
const MAGIC: u32 = 0xfeed_feed;
const VERSION: u32 = 2;
const TRUSTED_CERTIFICATE: u32 = 2;

/// The store of `certificates` (DER).
pub(super) fn store(certificates: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, MAGIC);
    put(&mut out, VERSION);
    put(
        &mut out,
        u32::try_from(certificates.len()).unwrap_or(u32::MAX),
    );
    for (number, certificate) in certificates.iter().enumerate() {
        put(&mut out, TRUSTED_CERTIFICATE);
        text(&mut out, &format!("root-{number}"));
        out.extend([0; 8]); // creation date: the epoch, so that the same roots make the same file
        text(&mut out, "X.509");
        put(
            &mut out,
            u32::try_from(certificate.len()).unwrap_or(u32::MAX),
        );
        out.extend(certificate);
    }
    let mut digest = Sha1::new();
    for unit in PASSWORD.encode_utf16() {
        digest.update(unit.to_be_bytes());
    }
    digest.update("Mighty Aphrodite");
    digest.update(&out);
    out.extend(digest.finalize());
    out
}

fn put(out: &mut Vec<u8>, number: u32) {
    out.extend(number.to_be_bytes());
}

/// `DataOutput.writeUTF` of ASCII text shorter than 64 KiB.
fn text(out: &mut Vec<u8>, text: &str) {
    out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn store_has_its_entries_and_a_digest_over_all_of_it() {
        let store = store(&[vec![1, 2, 3]]);
        assert_eq!(store[..12], *b"\xfe\xed\xfe\xed\0\0\0\x02\0\0\0\x01");
        assert_eq!(store[12..24], *b"\0\0\0\x02\0\x06root-0");
        assert_eq!(store[32..46], *b"\0\x05X.509\0\0\0\x03\x01\x02\x03");
        assert_eq!(store.len(), 46 + 20);
    }
}
