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
    let shown = |c: char| {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns { '?' } else { c }
    };
    text.chars().map(shown).collect()
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
}
