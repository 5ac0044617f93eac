//! Columns for people: as wide as the longest cell, two spaces apart, nothing behind the last one.

/// Renders rows under a header.
pub(crate) fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let header: Vec<String> = header.iter().map(|cell| (*cell).to_owned()).collect();
    let all: Vec<&Vec<String>> = std::iter::once(&header).chain(rows).collect();
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            all.iter()
                .filter_map(|row| row.get(column))
                .map(|c| c.chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let lines: Vec<String> = all
        .iter()
        .map(|row| {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            cells.join("  ").trim_end().to_owned()
        })
        .collect();
    lines.join("\n")
}

/// Shows text from a hostile source on one line: control characters become `?`, and so do those that turn the
/// direction of what follows.
pub(crate) fn safe(text: &str) -> String {
    let shown = |c| if steers(c) { '?' } else { c };
    text.chars().map(shown).collect()
}

/// JSON as it can be shown: what a terminal would obey is escaped, and the value stays the same. Outside of strings
/// there is nothing of that but the ends of lines.
pub(crate) fn safe_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) && c != '\n' {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether a terminal does something else with it than showing it: control characters, and marks of direction (all
/// have four hexadecimal digits).
fn steers(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_trailing_blanks() {
        let rows = vec![
            vec!["a".into(), "long cell".into()],
            vec!["bbbb".into(), "x".into()],
        ];
        assert_eq!(
            render(&["N", "M"], &rows),
            "N     M\na     long cell\nbbbb  x"
        );
    }

    #[test]
    fn escape_sequences_in_untrusted_text_are_shown_not_sent() {
        assert_eq!(safe("a\x1b]52;c;x\x07b"), "a?]52;c;x?b");
        assert_eq!(safe("a\u{9b}2J\u{202e}b\n\t\u{7f}ü"), "a?2J?b???ü");
    }

    #[test]
    fn json_is_the_same_value_without_anything_that_a_terminal_obeys() {
        let value = serde_json::json!({ "a\u{202e}\u{61c}": ["\u{9b}2J\u{7f}\n\u{1b}\u{2069}\u{200f}ü\u{1f600}"] });
        for text in [value.to_string(), format!("{value:#}")] {
            let shown = safe_json(&text);
            assert!(!shown.chars().any(|c| c != '\n' && steers(c)), "{shown:?}");
            assert!(shown.contains("ü\u{1f600}") && shown.contains("\\u009b2J\\u007f"));
            let parsed: serde_json::Value = serde_json::from_str(&shown).unwrap();
            assert_eq!(parsed, value);
        }
    }
}
