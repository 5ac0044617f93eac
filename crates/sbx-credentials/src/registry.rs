//! Registries of images: which requests are those of their interface (OCI distribution specification, section 4), where one
//! says that its tokens are issued, and what it issues (token authentication of the same project).

use crate::oauth::{Document, Issued};

/// Parts of a repository.
const PARTS: [&str; 4] = ["manifests", "blobs", "tags", "referrers"];

/// Whether a path is one of the interface that clients push and pull with: the base, the catalogue, and the parts of a
/// repository. Nothing else that lies below `/v2/` is, because some registries issue their tokens there. A path that
/// could be read in more than one way is none.
pub fn is_interface(path: &str) -> bool {
    let Some(below) = path.strip_prefix("/v2") else {
        return false;
    };
    if matches!(below, "" | "/" | "/_catalog") {
        return true;
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:@+=/".contains(&byte);
    let Some(below) = below.strip_prefix('/').filter(|all| all.bytes().all(plain)) else {
        return false;
    };
    // That of an upload may end in a slash.
    let segments: Vec<&str> = below
        .strip_suffix('/')
        .unwrap_or(below)
        .split('/')
        .collect();
    let is_name = |segment: &&str| !matches!(*segment, "" | "." | "..");
    // A repository has a name before its parts, and a part something behind it.
    let part = segments.iter().rposition(|one| PARTS.contains(one));
    segments.iter().all(is_name) && part.is_some_and(|at| at > 0 && at + 1 < segments.len())
}

/// The realm of a challenge that asks for a token (`WWW-Authenticate: Bearer realm="…",service="…"`). `None`: it is another
/// one.
pub fn bearer_realm(challenge: &str) -> Option<&str> {
    let (scheme, mut rest) = challenge.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    loop {
        let (name, value) = rest.split_once('=')?;
        let (text, after) = match value.trim_start().strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => value.split_once(',').unwrap_or((value, "")),
        };
        if name.trim_matches([' ', ',']).eq_ignore_ascii_case("realm") {
            return Some(text.trim());
        }
        rest = after;
    }
}

/// What a registry issued: the answer, and the token in it. Both names stand for the same one. `None`: there is none.
pub fn issued(body: &str) -> Option<(Document, Issued)> {
    let answer = Document::parse(body)?;
    if !matches!(answer, Document::Json(_)) {
        return None;
    }
    let issued = Issued::of(&answer, &["token", "access_token"])?;
    Some((answer, issued))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_is_known_and_nothing_else_below_it() {
        for path in [
            "/v2",
            "/v2/",
            "/v2/_catalog",
            "/v2/a/manifests/latest",
            "/v2/a/b/c/manifests/sha256:0f",
            "/v2/a/blobs/sha256:0f",
            "/v2/a/blobs/uploads/",
            "/v2/manifests/blobs/uploads/1-2",
            "/v2/a/tags/list",
            "/v2/a/referrers/sha256:0f",
        ] {
            assert!(is_interface(path), "{path}");
        }
        for path in [
            "/",
            "/v20/",
            "/v1/",
            "/v2/token",
            "/v2/auth",
            "/v2/a/token",
            "/v2/manifests/x",
            "/v2/a/manifests",
            "/v2/a/manifests/",
            "/v2/a/../auth/tags/list",
            "/v2/./a/tags/list",
            "/v2//a/tags/list",
            "/v2/%61uth/tags/list",
            "/v2/a/tags/list;x",
            "/token/v2/a/tags/list",
            "/v2/a\\b/tags/list",
        ] {
            assert!(!is_interface(path), "{path}");
        }
    }

    #[test]
    fn a_realm_is_found_wherever_it_stands_in_a_challenge_for_a_token() {
        let realm = Some("https://a.test/token");
        for text in [
            "Bearer realm=\"https://a.test/token\",service=\"a\"",
            "bearer  scope=\"repository:a/b:pull,push\", realm=\"https://a.test/token\"",
            "Bearer service=a,Realm=https://a.test/token",
        ] {
            assert_eq!(bearer_realm(text), realm, "{text}");
        }
        for text in [
            "",
            "Bearer",
            "Bearer realm",
            "Bearer realm=\"https://a.test/token",
            "Basic realm=\"https://a.test/token\"",
            "Bearer scope=\"realm=x\"",
        ] {
            assert_eq!(bearer_realm(text), None, "{text}");
        }
    }

    #[test]
    fn the_guest_is_told_a_placeholder_under_both_names_and_no_other_secret() {
        let token = "a-token-of-some-length";
        let body = format!(
            "{{\"token\":\"{token}\",\"access_token\":\"{token}\",\"expires_in\":300,\
             \"refresh_token\":\"another-token-of-some-length\",\"issued_at\":\"2026-01-01T00:00:00Z\"}}"
        );
        let (answer, issued) = issued(&body).unwrap();
        assert_eq!(issued.access, token);
        let told = answer.told(&[(token, "placeholder")]).body();
        assert_eq!(told.matches("placeholder").count(), 2, "{told}");
        assert!(
            !told.contains("some-length") && told.contains("300"),
            "{told}"
        );
        for body in [
            "",
            "{}",
            "{\"token\":\"short\"}",
            "<html>",
            "[1]",
            "token=a-token-of-some-length",
        ] {
            assert!(super::issued(body).is_none(), "{body}");
        }
    }
}
