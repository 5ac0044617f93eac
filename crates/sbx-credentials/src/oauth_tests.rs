use super::*;

#[expect(clippy::unnecessary_wraps, reason = "chance can fail elsewhere")]
fn fill(bytes: &mut [u8]) -> Result<(), std::convert::Infallible> {
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::try_from(at * 37 % 251).unwrap_or_default();
    }
    Ok(())
}

const NAMES: [&str; 2] = ["access_token", "accessToken"];

fn issued(body: &str) -> Option<Issued> {
    Issued::of(&Document::parse(body)?, &NAMES)
}

fn jwt(claims: &str) -> String {
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    format!(
        "{}.{}.c2lnbmF0dXJl",
        part(r#"{"alg":"RS256"}"#),
        part(claims)
    )
}

#[test]
fn tokens_are_read_in_both_spellings_and_nothing_else_is_taken_for_one() {
    let snake = r#"{"access_token":"sk-ant-oat01-abcdefgh","refresh_token":"sk-ant-ort01-abcdefgh","expires_in":28800}"#;
    let one = issued(snake).unwrap();
    assert_eq!(one.access, "sk-ant-oat01-abcdefgh");
    assert_eq!(one.refresh.as_deref(), Some("sk-ant-ort01-abcdefgh"));
    assert_eq!((one.id, one.good), (None, Good::For(28800)));
    let camel = r#"{"accessToken":"0123456789abcdef","refreshToken":null,"expiresAt":1800000000}"#;
    let one = issued(camel).unwrap();
    assert_eq!(
        (one.access.as_str(), one.good),
        ("0123456789abcdef", Good::Until(1_800_000_000))
    );
    let form = "access_token=gho_0123456789abcdef&scope=repo%2Cgist&token_type=bearer";
    assert_eq!(issued(form).unwrap().access, "gho_0123456789abcdef");
    // What a token says of itself counts where the answer says nothing.
    let claimed = format!(r#"{{"access_token":"{}"}}"#, jwt(r#"{"exp":1900000000}"#));
    assert_eq!(issued(&claimed).unwrap().good, Good::Until(1_900_000_000));
    for bad in [
        "",
        "[]",
        "{}",
        "<html>access_token=0123456789abcdef</html>",
        r#"{"access_token":"short"}"#,
        r#"{"access_token":"with a space inside"}"#,
        r#"{"access_token":5}"#,
        "access_token=short",
        "access_token",
    ] {
        assert!(issued(bad).is_none(), "{bad}");
    }
    let long = format!(r#"{{"access_token":"{}"}}"#, "a".repeat(LONGEST + 1));
    assert!(issued(&long).is_none());
}

#[test]
fn the_guest_is_told_everything_but_the_tokens() {
    let body = r#"{"access_token":"aaaaaaaaaaaaaaaa","n":1,"token_type":"a-long-type-of-token","account":{"copies":["x aaaaaaaaaaaaaaaa"]},"session":{"device_secret":"0123456789abcdef0123"}}"#;
    let told = Document::parse(body)
        .unwrap()
        .told(&[("aaaaaaaaaaaaaaaa", "placeholder")]);
    let told: Value = serde_json::from_str(&told.body()).unwrap();
    assert_eq!(told["access_token"], "placeholder");
    assert_eq!(told["account"]["copies"][0], "x placeholder");
    assert_eq!(
        (&told["n"], &told["token_type"]),
        (&1.into(), &"a-long-type-of-token".into())
    );
    // Nobody knows what that is for; it does not go in.
    assert_eq!(told["session"]["device_secret"], "");
    let form = Document::parse("access_token=aaaaaaaaaaaaaaaa&scope=a%20b").unwrap();
    let told = form.told(&[("aaaaaaaaaaaaaaaa", "place/holder")]);
    assert_eq!(told.body(), "access_token=place%2Fholder&scope=a%20b");
}

#[test]
fn an_answer_that_issues_nothing_is_cut_to_its_error() {
    let pending = r#"{"error":"authorization_pending","error_description":"wait","interval":5,"other":"0123456789abcdef"}"#;
    let error = Document::parse(pending).unwrap().error().unwrap();
    let error: Value = serde_json::from_str(&error.body()).unwrap();
    assert_eq!(
        error,
        serde_json::json!({"error":"authorization_pending","error_description":"wait","interval":5})
    );
    let form = Document::parse("error=slow_down&interval=10&x=y").unwrap();
    assert_eq!(form.error().unwrap().body(), "error=slow_down&interval=10");
    assert!(Document::parse("{\"a\":1}").unwrap().error().is_none());
}

#[test]
fn a_placeholder_has_the_shape_of_its_token_and_a_jwt_its_claims() {
    let token = "sk-ant-oat01-0123456789abcdefghijklmnopqrstuvwxyz";
    let made = placeholder(token, fill).unwrap();
    assert!(made.starts_with("sk-ant-oat01-") && made.len() == token.len());
    assert_ne!(made, token);
    assert_eq!((own_part(&made), has_claims(&made)), (made.as_str(), false));
    // What says nothing of what it is has nothing in common with its placeholder, which has enough chance.
    let made = placeholder("0123456789abcdef", fill).unwrap();
    assert!(!made.starts_with('0') && made.len() == 32, "{made}");
    let made = placeholder(&format!("gho_{}", "a".repeat(36)), fill).unwrap();
    assert!(made.starts_with("gho_") && made.len() == 40, "{made}");
    let token = jwt(r#"{"sub":"me"}"#);
    let made = placeholder(&token, fill).unwrap();
    let (kept, signature) = made.rsplit_once('.').unwrap();
    assert_eq!(kept, token.rsplit_once('.').unwrap().0);
    assert!(signature.len() == 43 && signature != "c2lnbmF0dXJl");
    assert_eq!((own_part(&made), has_claims(&made)), (signature, true));
    let copilot = "tid=1;exp=1800000000;sku=x;proxy-ep=proxy.test:0123456789abcdef0123456789abcdef";
    let made = placeholder(copilot, fill).unwrap();
    assert!(
        made.starts_with("tid=1;exp=1800000000;sku=x;proxy-ep=proxy.test:"),
        "{made}"
    );
    assert!(!made.contains("0123456789abcdef"));
    // Dots alone make none.
    let made = placeholder("a.b.cdefghijklmnopqrstuv", fill).unwrap();
    assert!(!made.starts_with('a') && !made.contains("cdef"), "{made}");
}

#[test]
fn a_placeholder_shows_nothing_of_a_token_but_a_known_beginning() {
    for (token, beginning) in [
        ("f81d4fae-7dec-11d0-a765-00a0c91e6bf6", ""),
        ("Qx-_9a_b-Zr.8Kd-0123456789abcdefghijklmnopq", ""),
        ("a_-.b-c.d_e-f.g_0123456789abcdefghijklmnopq", ""),
        ("unknown-v9-Zr8Kd0123456789abcdefghijklmnopq", ""),
        ("ya29.a0-Zr_8.Kd0123456789abcdefghijklmnopq", "ya29."),
        ("1//0g-Zr_8.Kd0123456789abcdefghijklmnopqrst", "1//"),
        (
            "sk-ant-ort01-Z_r-8.0123456789abcdefghijklmn",
            "sk-ant-ort01-",
        ),
        ("sk-or-v1-0a-1b_2c.0123456789abcdefghijklmno", "sk-or-v1-"),
        ("rt_Zr-8_Kd.0123456789abcdefghijklmnopqrstuv", "rt_"),
        ("ghr_Zr8_Kd-0123456789abcdefghijklmnopqrstuvw", "ghr_"),
    ] {
        let made = placeholder(token, fill).unwrap();
        let same = made.bytes().zip(token.bytes()).take_while(|(a, b)| a == b);
        assert_eq!(&token[..same.count()], beginning, "{made}");
        assert!(made.len() >= token.len(), "{token}");
    }
}

#[test]
fn accounts_are_told_apart_by_what_the_answer_says_of_them() {
    let account = |body: &str| {
        let answer = Document::parse(body).unwrap();
        Issued::of(&answer, &NAMES).unwrap().account(&answer)
    };
    let token = "\"access_token\":\"0123456789abcdef\"";
    let named = format!(r#"{{{token},"account":{{"uuid":"1","email_address":"a@one.test"}}}}"#);
    assert_eq!(account(&named).as_deref(), Some("a@one.test"));
    let id = jwt(r#"{"sub":"user-1","email":"b@two.test"}"#);
    let id = format!(r#"{{{token},"id_token":"{id}"}}"#);
    assert_eq!(account(&id).as_deref(), Some("b@two.test"));
    assert_eq!(account(&format!("{{{token}}}")), None);
    // It is shown.
    let turned =
        format!("{{{token},\"account\":{{\"id\":\"a\u{202e}\u{2066}\u{200f}\u{61c}\u{9b}b\"}}}}");
    assert_eq!(account(&turned).as_deref(), Some("ab"));
}
