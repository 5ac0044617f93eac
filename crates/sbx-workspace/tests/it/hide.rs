//! Lists of hidden names.

use sbx_workspace::hide::{list, one};
use sbx_workspace::{PatternError, PatternSet};

fn hidden(patterns: &str, path: &str) -> bool {
    let set = PatternSet::new(list(patterns).expect("a list"));
    let names = path.split('/').map(str::as_bytes);
    set.walk(names, false).matched().is_some()
}

#[test]
fn a_list_is_read_as_gitignore_is() {
    let text = "# secrets\n\n.env   \r\n*.pem\n!public.pem\n\\#odd\n";
    assert!(hidden(text, "a/.env") && hidden(text, "x.pem") && hidden(text, "#odd"));
    assert!(!hidden(text, "public.pem") && !hidden(text, "# secrets"));
}

#[test]
fn a_line_that_is_no_pattern_is_named() {
    let error = list(".env\n[x\n").expect_err("a class without its end");
    assert_eq!((error.line, error.error), (2, PatternError::Class));
    assert!(error.to_string().contains("'[x'"), "{error}");
}

#[test]
fn the_names_of_secrets_have_a_short_word() {
    assert!(hidden("@secrets", "deep/.env.local") && hidden("@secrets", "server.key"));
    assert!(!hidden("@secrets", ".env.example") && !hidden("@secrets", "src/main.rs"));
    assert_eq!(one(".env").expect("a pattern").len(), 1);
}
