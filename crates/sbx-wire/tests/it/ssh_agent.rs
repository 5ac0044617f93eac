//! Messages of the SSH agent's protocol.

use proptest::prelude::*;
use sbx_wire::ssh_agent::{Hash, Hex, Key, MAX_KEYS, Purpose, Reply, Request};

fn string(bytes: &[u8]) -> Vec<u8> {
    let mut out = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    out.extend(bytes);
    out
}

/// A message that asks for a signature of these bytes, written without the crate.
fn sign(key: &[u8], data: &[u8], flags: u32) -> Vec<u8> {
    let message = [&[13][..], &string(key), &string(data), &flags.to_be_bytes()].concat();
    string(&message)
}

/// What a login signs (RFC 4252, section 7).
fn login(method: &[u8], key: &[u8], more: &[u8]) -> Vec<u8> {
    [
        &string(&[7; 32])[..],
        &[50],
        &string(b"me"),
        &string(b"ssh-connection"),
        &string(method),
        &[1],
        &string(b"ssh-ed25519"),
        &string(key),
        more,
    ]
    .concat()
}

/// What `ssh-keygen -Y sign` and git sign.
fn message(namespace: &[u8], reserved: &[u8], hash: &[u8], digest: &[u8]) -> Vec<u8> {
    [
        &b"SSHSIG"[..],
        &string(namespace),
        &string(reserved),
        &string(hash),
        &string(digest),
    ]
    .concat()
}

#[test]
fn requests_for_keys_and_for_signatures_of_both_kinds_are_read_and_written_the_same() {
    let key = b"the key";
    let host = string(b"host key");
    let read = |bytes: &[u8]| {
        let request = Request::parse(bytes).unwrap();
        assert_eq!(request.encode(), bytes);
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        request
    };
    assert_eq!(read(&string(&[11])), Request::Keys);
    let commit = read(&sign(key, &message(b"git", b"", b"sha512", &[9; 64]), 0));
    let Request::Sign { purpose, .. } = commit else {
        panic!("{commit:?}");
    };
    assert_eq!(purpose.to_string(), "signature/git");
    let plain = read(&sign(key, &login(b"publickey", key, b""), 4));
    let bound = login(b"publickey-hostbound-v00@openssh.com", key, &host);
    let bound = read(&sign(key, &bound, 0));
    for (request, named) in [(plain, false), (bound, true)] {
        match request {
            Request::Sign {
                purpose: Purpose::Login { user, host, .. },
                ..
            } => assert_eq!((user.as_str(), host.is_some()), ("me", named)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_has_another_meaning_or_none_is_never_signed() {
    let key = b"the key";
    let good = login(b"publickey", key, b"");
    let mut bad = vec![
        // Messages: to add, remove and lock; extensions; version 1.
        string(&[17, 0]),
        string(&[19]),
        string(&[22, 0, 0, 0, 0]),
        string(&[27, 0, 0, 0, 0]),
        string(&[1]),
        string(&[]),
        // Framing: nothing, too short, too long, more behind.
        vec![],
        vec![0, 0, 0],
        vec![0xff; 4],
        [string(&[11]), vec![0]].concat(),
        string(&[11, 0]),
        // A flag that is not known.
        sign(key, &good, 1),
    ];
    for data in [
        // Any bytes; what another protocol might sign.
        b"".to_vec(),
        b"anything".to_vec(),
        [&good[..], b"x"].concat(),
        // Of another key, another service, without the mark of a signature.
        login(b"publickey", b"another", b""),
        login(b"password", key, b""),
        login(b"publickey", key, &string(b"host key")),
        login(b"publickey-hostbound-v00@openssh.com", key, b""),
        message(b"", b"", b"sha512", &[9; 64]),
        message(b"git", b"r", b"sha512", &[9; 64]),
        message(b"git", b"", b"md5", &[9; 16]),
        message(b"git", b"", b"sha512", &[9; 32]),
        message(b"g\x1bt", b"", b"sha512", &[9; 64]),
        message(&[b'n'; 257], b"", b"sha512", &[9; 64]),
        [&message(b"git", b"", b"sha256", &[9; 32])[..], b"x"].concat(),
    ] {
        bad.push(sign(key, &data, 0));
    }
    // Longer than any message may be.
    bad.push(sign(&vec![1; 16 << 10], &good, 0));
    for message in bad {
        assert!(Request::parse(&message).is_err(), "{message:?}");
    }
    assert!(Request::parse(&sign(key, &good, 0)).is_ok());
}

#[test]
fn answers_of_the_hosts_agent_are_bounded_and_their_comments_are_no_commands() {
    let keys = |count: u32, entry: &[u8]| {
        let entries = entry.repeat(count.min(100) as usize);
        string(&[&[12][..], &count.to_be_bytes(), &entries].concat())
    };
    let entry = [string(b"key"), string(b"me@home\x1b]0;x\x07")].concat();
    let Ok(Reply::Keys { keys: found }) = Reply::parse(&keys(2, &entry)) else {
        panic!();
    };
    assert_eq!((found.len(), found[0].comment.as_str()), (2, "me@home]0;x"));
    let most = u32::try_from(MAX_KEYS).unwrap();
    assert!(Reply::parse(&keys(most, &entry)).is_ok());
    for bad in [
        keys(most + 1, &entry),
        keys(u32::MAX, &entry),
        string(&[14, 0, 1, 0, 1]),
        string(&[6]),
        vec![],
    ] {
        assert!(Reply::parse(&bad).is_err(), "{bad:?}");
    }
    let signature = Reply::Signature {
        signature: Hex(vec![1, 2]),
    };
    assert_eq!(Reply::parse(&signature.encode()), Ok(signature));
    assert!(matches!(
        Reply::parse(&string(&[5])),
        Ok(Reply::Refused { .. })
    ));
    let listed = Reply::Keys {
        keys: vec![Key {
            key: Hex(vec![3]),
            comment: "c".into(),
        }],
    };
    assert_eq!(Reply::parse(&listed.encode()), Ok(listed));
}

proptest! {
    /// Whatever comes: what is accepted is written as it came, so what is signed is what was judged.
    #[test]
    fn what_is_accepted_is_written_as_it_came(
        key in prop::collection::vec(any::<u8>(), 0..9),
        tail in prop::collection::vec(any::<u8>(), 0..3),
        digest in prop::collection::vec(any::<u8>(), 32),
        at in 0_usize..200, with in any::<u8>(), flags in 0_u32..8,
    ) {
        for data in [message(b"git", b"", b"sha256", &digest), login(b"publickey", &key, &tail)] {
            let mut bytes = sign(&key, &data, flags);
            let at = at % bytes.len();
            bytes[at] = with;
            if let Ok(request) = Request::parse(&bytes) {
                prop_assert_eq!(request.encode(), bytes);
            }
        }
        let purpose = Purpose::Message { namespace: "git".into(), hash: Hash::Sha256, digest: Hex(digest) };
        let request = Request::Sign { key: Hex(key), purpose, flags: flags & 6 };
        prop_assert_eq!(Request::parse(&request.encode()), Ok(request));
    }
}
