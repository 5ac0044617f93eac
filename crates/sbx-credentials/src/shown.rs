//! How servers write a value that they show: with the escapes of JSON (RFC 8259, section 7), of HTML and XML, and
//! percent-encoded.
//!
//! A list can hold what one encoder makes of the whole value, so there is a form for each habit that encoders have. What
//! mixes them (one character in one way and another one in another) is none of them.

use crate::forms::percent_encoded;

/// What JSON encoders write as `\u…`, by habit: nothing; what HTML needs (Go, Rails, Django); that and `'` (Flask, PHP), and
/// `=` (Gson); `"`, `+` and `` ` `` as well (.NET); `/` alone, with some, with all of these. Besides: everything but letters,
/// digits and `-._~`.
const IN_JSON: [&str; 9] = [
    "",
    "<>&",
    "<>&'",
    "<>&'=",
    "<>&'\"",
    "<>&'\"+`",
    "/",
    "<>&'\"/",
    "<>&'\"+`=/",
];

/// What HTML and XML encoders write, by habit. Of `&`, `<` and `>` all write the same.
const IN_HTML: [&[(char, &str)]; 14] = [
    &[],
    &[('"', "&quot;")],
    &[('"', "&quot;"), ('\'', "&#39;")],
    &[('"', "&quot;"), ('\'', "&#039;")],
    &[('"', "&quot;"), ('\'', "&#x27;")],
    &[('"', "&quot;"), ('\'', "&apos;")],
    &[('"', "&#34;"), ('\'', "&#39;")],
    &[('"', "&#34;"), ('\'', "&#39;"), ('+', "&#43;")],
    &[('"', "&quot;"), ('\'', "&#39;"), ('/', "&#x2F;")],
    &[('"', "&quot;"), ('\'', "&#x27;"), ('/', "&#x2F;")],
    &[
        ('"', "&quot;"),
        ('\'', "&#39;"),
        ('/', "&#x2F;"),
        ('`', "&#x60;"),
        ('=', "&#x3D;"),
    ],
    &[
        ('"', "&quot;"),
        ('\'', "&#x27;"),
        ('`', "&#x60;"),
        ('=', "&#x3D;"),
    ],
    &[
        ('"', "&quot;"),
        ('\'', "&#x27;"),
        ('+', "&#x2B;"),
        ('`', "&#x60;"),
    ],
    &[
        ('"', "&#34;"),
        ('\'', "&#39;"),
        ('+', "&#43;"),
        ('/', "&#47;"),
        ('=', "&#61;"),
        ('`', "&#96;"),
    ],
];

/// What stays in a path or a query besides what is unreserved, by habit: nothing; what JavaScript leaves in a part; what
/// may stand in a query; what may stand in a path; what JavaScript leaves in a URL.
const IN_URL: [&str; 5] = ["", "!'()*", "/", "!$&'()*+,;=:@/", "!'()*;/?:@&=+$,#"];

/// Every form, each once; the first is the value itself. Most values of services consist of what is written as it is
/// everywhere, and have one form.
pub(crate) fn shown(value: &str) -> Vec<String> {
    let mut forms = Vec::new();
    add(&mut forms, value.to_owned());
    in_json(value, &mut forms);
    // A body that is JSON is shown as a text inside of JSON.
    let body = json(value, &Habit::default());
    for slash in [false, true] {
        let habit = Habit {
            slash,
            ..Habit::default()
        };
        add(&mut forms, json(&body, &habit));
        add(&mut forms, json(&json(value, &habit), &habit));
    }
    for others in IN_HTML {
        add(&mut forms, html(value, others));
    }
    for left in IN_URL {
        let encoded = percent(value, left);
        add(&mut forms, lower_hex(&encoded));
        add(&mut forms, encoded);
    }
    // A form has its own writing of a space (WHATWG URL, section 5).
    let form = percent(value, " *").replace(' ', "+");
    add(&mut forms, lower_hex(&form));
    add(&mut forms, form);
    forms
}

fn add(forms: &mut Vec<String>, form: String) {
    if !forms.contains(&form) {
        forms.push(form);
    }
}

/// How an encoder of JSON writes.
#[derive(Default)]
struct Habit {
    /// Characters that it writes as `\u…`.
    special: &'static str,
    /// So it does with everything but what stays as it is in a URL, too.
    all: bool,
    /// So it does with what is not ASCII.
    ascii: bool,
    /// With digits in upper case.
    upper: bool,
    /// `/` as `\/`.
    slash: bool,
}

fn in_json(value: &str, forms: &mut Vec<String>) {
    for upper in [false, true] {
        for ascii in [false, true] {
            for slash in [false, true] {
                for special in IN_JSON {
                    let habit = Habit {
                        special,
                        all: false,
                        ascii,
                        upper,
                        slash,
                    };
                    add(forms, json(value, &habit));
                }
            }
        }
        let habit = Habit {
            all: true,
            ascii: true,
            upper,
            ..Habit::default()
        };
        add(forms, json(value, &habit));
    }
}

fn json(value: &str, habit: &Habit) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        let hex = habit.special.contains(character)
            || habit.all && !character.is_ascii_alphanumeric() && !"-._~".contains(character)
            || habit.ascii && !character.is_ascii();
        match character {
            _ if hex => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    text.push_str(&if habit.upper {
                        format!("\\u{unit:04X}")
                    } else {
                        format!("\\u{unit:04x}")
                    });
                }
            }
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\t' => text.push_str("\\t"),
            '/' if habit.slash => text.push_str("\\/"),
            other => text.push(other),
        }
    }
    text
}

fn html(value: &str, others: &[(char, &str)]) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            other => match others.iter().find(|(from, _)| *from == other) {
                Some((_, to)) => text.push_str(to),
                None => text.push(other),
            },
        }
    }
    text
}

fn percent(value: &str, left: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for character in value.chars() {
        if left.contains(character) {
            text.push(character);
        } else {
            text.push_str(&percent_encoded(
                character.encode_utf8(&mut [0; 4]).as_bytes(),
            ));
        }
    }
    text
}

/// The digits of percent-encoding in lower case.
fn lower_hex(percent: &str) -> String {
    let mut text = String::with_capacity(percent.len());
    let mut rest = percent;
    while let Some(at) = rest.find('%') {
        let (before, encoded) = rest.split_at(at);
        let digits = encoded.len().min(3);
        text.push_str(before);
        text.push_str(&encoded[..digits].to_ascii_lowercase());
        rest = &encoded[digits..];
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_written_as_it_is_everywhere_has_one_form_and_others_have_a_bound() {
        assert_eq!(shown("sk-ant-api03-Zz_09.~"), ["sk-ant-api03-Zz_09.~"]);
        let worst = shown("a\"b\\c/d+e=f&g<h>i'j`k l\tm\u{e9}n\u{1f600}o*p~q");
        assert!(worst.len() < 130, "{}", worst.len());
    }

    #[test]
    fn each_encoder_has_its_form() {
        let value = "a\"b\\c/d+e=f&g<h>i'j\u{e9}";
        let forms = shown(value);
        for (encoder, form) in [
            ("JavaScript", "a\\\"b\\\\c/d+e=f&g<h>i'j\u{e9}"),
            ("Python", "a\\\"b\\\\c/d+e=f&g<h>i'j\\u00e9"),
            ("PHP", "a\\\"b\\\\c\\/d+e=f&g<h>i'j\\u00e9"),
            (
                "PHP for HTML",
                "a\\u0022b\\\\c\\/d+e=f\\u0026g\\u003Ch\\u003Ei\\u0027j\\u00E9",
            ),
            ("Go", "a\\\"b\\\\c/d+e=f\\u0026g\\u003ch\\u003ei'j\u{e9}"),
            (
                "Gson",
                "a\\\"b\\\\c/d+e\\u003df\\u0026g\\u003ch\\u003ei\\u0027j\u{e9}",
            ),
            (
                ".NET",
                "a\\u0022b\\\\c/d\\u002Be=f\\u0026g\\u003Ch\\u003Ei\\u0027j\\u00E9",
            ),
            (
                "all",
                "a\\u0022b\\u005cc\\u002fd\\u002be\\u003df\\u0026g\\u003ch\\u003ei\\u0027j\\u00e9",
            ),
            ("JSON in JSON", "a\\\\\\\"b\\\\\\\\c/d+e=f&g<h>i'j\u{e9}"),
            ("HTML text", "a\"b\\c/d+e=f&amp;g&lt;h&gt;i'j\u{e9}"),
            (
                "HTML attribute",
                "a&quot;b\\c/d+e=f&amp;g&lt;h&gt;i'j\u{e9}",
            ),
            ("Jinja", "a&#34;b\\c/d+e=f&amp;g&lt;h&gt;i&#39;j\u{e9}"),
            (
                "Go templates",
                "a&#34;b\\c/d&#43;e=f&amp;g&lt;h&gt;i&#39;j\u{e9}",
            ),
            (
                "OWASP",
                "a&quot;b\\c&#x2F;d+e=f&amp;g&lt;h&gt;i&#x27;j\u{e9}",
            ),
            ("XML", "a&quot;b\\c/d+e=f&amp;g&lt;h&gt;i&apos;j\u{e9}"),
            ("a query", "a%22b%5Cc%2Fd%2Be%3Df%26g%3Ch%3Ei%27j%C3%A9"),
            (
                "a query in lower case",
                "a%22b%5cc%2fd%2be%3df%26g%3ch%3ei%27j%c3%a9",
            ),
            (
                "encodeURIComponent",
                "a%22b%5Cc%2Fd%2Be%3Df%26g%3Ch%3Ei'j%C3%A9",
            ),
            ("a path", "a%22b%5Cc/d+e=f&g%3Ch%3Ei'j%C3%A9"),
        ] {
            assert!(forms.iter().any(|one| one == form), "{encoder}: {form}");
        }
        assert!(shown("a b").contains(&"a+b".to_owned()));
    }
}
