//! Cells as bytes for a terminal.

use avt::{Cell, Color, Line, Pen};
use sbx_wire::guest::TermSize;
use std::fmt::Write as _;

/// Writes a line's cells from where the cursor is, without blanks at its end that say nothing. The pen is the
/// default one before and after.
pub(super) fn line(line: &Line, out: &mut String) {
    let cells = line.cells();
    let used = cells.iter().rposition(|cell| !is_blank(cell));
    let mut pen = Pen::default();
    for cell in &cells[..used.map_or(0, |last| last + 1)] {
        // The right half of a wide character.
        if cell.width() == 0 {
            continue;
        }
        if *cell.pen() != pen {
            pen = *cell.pen();
            self::pen(&pen, out);
        }
        out.push(cell.char());
    }
    if !pen.is_default() {
        out.push_str("\x1b[m");
    }
}

fn is_blank(cell: &Cell) -> bool {
    cell.char() == ' ' && cell.pen().is_default()
}

/// Select graphic rendition (ECMA-48, 8.3.117), with semicolons: every terminal understands them.
fn pen(pen: &Pen, out: &mut String) {
    out.push_str("\x1b[0");
    let attributes = [
        (pen.is_bold(), ";1"),
        (pen.is_faint(), ";2"),
        (pen.is_italic(), ";3"),
        (pen.is_underline(), ";4"),
        (pen.is_blink(), ";5"),
        (pen.is_inverse(), ";7"),
        (pen.is_strikethrough(), ";9"),
    ];
    for (_, code) in attributes.iter().filter(|(set, _)| *set) {
        out.push_str(code);
    }
    for (color, base) in [(pen.foreground(), 30), (pen.background(), 40)] {
        let _ = match color {
            None => Ok(()),
            Some(Color::Indexed(number @ 0..8)) => write!(out, ";{}", base + u16::from(number)),
            Some(Color::Indexed(number)) => write!(out, ";{};5;{number}", base + 8),
            Some(Color::RGB(rgb)) => write!(out, ";{};2;{};{};{}", base + 8, rgb.r, rgb.g, rgb.b),
        };
    }
    out.push('m');
}

/// Shows the alternate screen. The mode that all terminals have saves the cursor, which the dump has saved already:
/// so that is brought back first, and what came back with it is taken back for what follows in the dump, also from
/// the empty screen.
const ENTER: &str = "\x1b8\x1b[?1049h\x1b[?6l\x1b[?7h\x1b[m\x1b[2J";
/// Shows the main screen.
const LEAVE: &str = "\x1b[?1049l\x1b[?6l\x1b[?7h\x1b[m";

/// A dump as every terminal understands it: control characters of eight bits in seven (ECMA-48, 5.3), colours
/// with semicolons instead of colons, the alternate screen by the mode that all have, and repeated characters (REP)
/// one by one. Tab stops (CTC) are left out: the emulator loses one when it grows, and nothing would set a client's
/// right again afterwards.
pub(super) fn plain(dump: &str) -> String {
    let mut out = String::with_capacity(dump.len());
    let mut rest = dump.chars().peekable();
    let mut last = ' ';
    while let Some(c) = rest.next() {
        match c {
            '\u{80}'..='\u{9f}' => {
                out.push('\x1b');
                // The offset between the two sets.
                out.push(char::from_u32(u32::from(c) - 0x40).unwrap_or('\\'));
            }
            c => {
                if !c.is_control() && !out.ends_with('\x1b') {
                    last = c;
                }
                out.push(c);
            }
        }
        if !out.ends_with("\x1b[") {
            continue;
        }
        let start = out.len();
        while let Some(c) = rest.next_if(|c| matches!(c, '\x20'..='\x3f')) {
            out.push(c);
        }
        let parameters = match rest.peek() {
            Some('W') => {
                rest.next();
                out.truncate(start - 2);
                continue;
            }
            Some('b') => {
                rest.next();
                let count = out[start..].parse().unwrap_or(1_usize);
                out.truncate(start - 2);
                out.extend(std::iter::repeat_n(
                    last,
                    count.min(TermSize::MAX.cols.into()),
                ));
                continue;
            }
            Some('h' | 'l') if &out[start..] == "?1047" => {
                let enter = rest.next() == Some('h');
                out.truncate(start - 2);
                out.push_str(if enter { ENTER } else { LEAVE });
                continue;
            }
            Some('m') => out[start..].replace(':', ";"),
            _ => continue,
        };
        out.replace_range(start.., &parameters);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_is_written_as_every_terminal_reads_it_and_its_text_is_left_alone() {
        assert_eq!(
            plain(
                "\x1b[38:5:9ma:b\x1b[48:2:1:2:3m\u{9b}1;2Hc:\x1b[1:2x\x1b[?1h?1047h\x1b[5W\x1b[9G\x1b[0W-\x1b[3bx"
            ),
            "\x1b[38;5;9ma:b\x1b[48;2;1;2;3m\x1b[1;2Hc:\x1b[1:2x\x1b[?1h?1047h\x1b[9G----x"
        );
        assert_eq!(plain("\x1b[?1047ha\x1b[?1047l"), format!("{ENTER}a{LEAVE}"));
    }
}
