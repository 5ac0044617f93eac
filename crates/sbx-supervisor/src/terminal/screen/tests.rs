//! vt100, which is no relative of the emulator that is tested, plays the terminals of the clients.

use super::*;
use proptest::prelude::*;

const SIZE: TermSize = TermSize { rows: 6, cols: 20 };

/// A client's terminal that has got these bytes.
fn terminal(size: TermSize, bytes: &[u8]) -> vt100::Parser {
    let whole = |number| std::num::NonZero::new(number).unwrap();
    let mut terminal = vt100::Parser::new(whole(size.rows), whole(size.cols), 100);
    terminal.process(bytes);
    terminal
}

fn screen(bytes: &[u8]) -> Screen {
    let mut screen = Screen::new(SIZE);
    screen.feed(bytes);
    screen
}

/// What a person sees, and what keys and mouse do.
fn seen(terminal: &vt100::Parser) -> impl PartialEq + std::fmt::Debug + use<> {
    let screen = terminal.screen();
    let cells: Vec<_> = (0..screen.size().0.get())
        .flat_map(|row| (0..screen.size().1.get()).map(move |col| (row, col)))
        .map(|(row, col)| {
            let cell = screen.cell(row, col).unwrap();
            let text = cell.contents().trim().to_owned();
            // What erasing leaves behind where nothing is written, emulators do not agree on.
            let ink = (!text.is_empty()).then(|| {
                let colours = (cell.fgcolor(), cell.bgcolor());
                (colours, cell.bold(), cell.underline(), cell.inverse())
            });
            (text, ink)
        })
        .collect();
    let modes = (
        screen.application_cursor(),
        screen.application_keypad(),
        screen.bracketed_paste(),
        screen.mouse_protocol_mode(),
        screen.mouse_protocol_encoding(),
        screen.hide_cursor(),
        screen.alternate_screen(),
    );
    (cells, modes, screen.cursor_position())
}

/// Output such as programs make: text, colours, movement, erasing, scrolling, the alternate screen, modes.
fn output() -> impl Strategy<Value = Vec<u8>> {
    let number = 0u16..12;
    let piece = prop_oneof![
        8 => "[a-z ]{1,12}".prop_map(String::into_bytes),
        2 => Just("wörld 漢字 ".as_bytes().to_vec()),
        3 => Just(b"\r\n".to_vec()),
        3 => (number.clone(), number.clone()).prop_map(|(row, col)| format!("\x1b[{row};{col}H").into()),
        4 => prop::sample::select(vec!["0", "1", "4", "7", "31", "42", "38;5;200", "48;2;1;2;3", "38:5:9"])
            .prop_map(|sgr| format!("\x1b[{sgr}m").into()),
        2 => (prop::sample::select(vec!['J', 'K']), 0u16..3).prop_map(|(c, n)| format!("\x1b[{n}{c}").into()),
        2 => (prop::sample::select(vec!['A', 'B', 'C', 'D', 'L', 'M', 'P', 'X', '@']), 1u16..4)
            .prop_map(|(c, n)| format!("\x1b[{n}{c}").into()),
        1 => (1u16..3, 4u16..7).prop_map(|(top, bottom)| format!("\x1b[{top};{bottom}r\x1b[3;1H").into()),
        1 => Just(b"\x1b[r".to_vec()),
        2 => (prop::sample::select(vec![1, 25, 1000, 1002, 1006, 2004]), any::<bool>())
            .prop_map(|(mode, on)| format!("\x1b[?{mode}{}", if on { 'h' } else { 'l' }).into()),
        // As programs do it; where the cursor is after the mode alone, and what the mode does when it is set
        // already, emulators do not agree on.
        1 => Just(b"\x1b[?1049l\x1b[?1049h\x1b[H".to_vec()),
        1 => Just(b"\x1b[?1049l".to_vec()),
        1 => Just(b"\x1b7".to_vec()),
        1 => Just(b"\x1b8".to_vec()),
        1 => Just(b"\x1b=".to_vec()),
        1 => Just(b"\x1b]2;title\x07".to_vec()),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// Also in the middle of a sequence or of a character. The one who joins has the same emulator here: others do
    /// not agree with it on every sequence.
    #[test]
    fn whoever_joins_at_any_moment_sees_what_the_others_see(
        before in output(), after in output(), cut in any::<prop::sample::Index>()
    ) {
        let all = [before, after].concat();
        let cut = cut.index(all.len() + 1);
        let mut kept = screen(&all[..cut]);
        let mut joined = screen(b"rubbish of \x1b[?1000h\x1b[31manother\x1b7 program\x1b[2;4r\x1b[?1049h");
        joined.feed(&kept.restore(true));
        // At the end also what shows only with the next letter, line or screen.
        for next in [&all[cut..], b"\x1b\\", b"X", b"\r\nY", b"\x1b[?1049lZ", b"\x1b8Q"] {
            kept.feed(next);
            joined.feed(next);
            let (kept, joined) = (kept.mirror(true), joined.mirror(true));
            prop_assert_eq!(String::from_utf8(joined), String::from_utf8(kept), "after {:?}", next);
        }
    }

    #[test]
    fn a_picture_shows_what_the_program_drew(bytes in output()) {
        let mut kept = screen(&bytes);
        let large = TermSize { rows: 9, cols: 31 };
        let mut watching = terminal(large, b"\x1b[31mmine");
        watching.process(&kept.mirror(true));
        watching.process(&kept.mirror(false));
        let direct = terminal(SIZE, &kept.restore(false));
        for row in 0..large.rows {
            for col in 0..large.cols {
                let here = watching.screen().cell(row, col).unwrap();
                let text = here.contents().trim();
                match direct.screen().cell(row, col) {
                    Some(there) => {
                        prop_assert_eq!(text, there.contents().trim());
                    }
                    None => prop_assert_eq!(text, ""),
                }
            }
        }
        prop_assert_eq!(watching.screen().bracketed_paste(), direct.screen().bracketed_paste());
        prop_assert_eq!(watching.screen().mouse_protocol_mode(), direct.screen().mouse_protocol_mode());
        // And leaves no trace.
        watching.process(&kept.leave());
        let left = watching.screen().contents();
        prop_assert_eq!(left.trim(), "mine");
        prop_assert!(!watching.screen().alternate_screen() && !watching.screen().bracketed_paste());
    }

    #[test]
    fn no_bytes_and_no_sizes_break_it(
        pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..200), output(), 0u16..40, 0u16..40), 0..8)
    ) {
        let mut kept = Screen::new(TermSize { rows: 0, cols: 0 });
        for (junk, output, rows, cols) in pieces {
            kept.feed(&junk);
            kept.feed(&output);
            kept.resize(TermSize { rows, cols });
            kept.feed(&junk);
            let _ = (kept.restore(true), kept.mirror(true), kept.answers());
        }
        prop_assert!(kept.partial.len() < 4);
    }
}

#[test]
fn a_screen_of_a_program_is_the_same_after_a_restore() {
    let drawn = "$ vi\r\n\x1b[?1049h\x1b[?2004h\x1b[?1h\x1b=\x1b[1;5r\x1b[H\x1b[1;38;5;208mfile\x1b[m\r\n漢 ö\
                 \x1b[6;1H\x1b[7m-- INSERT --\x1b[m\x1b[2;3H";
    let direct = terminal(SIZE, drawn.as_bytes());
    let mut kept = screen(drawn.as_bytes());
    let mut joined = terminal(SIZE, b"another prompt$ ");
    joined.process(&kept.restore(true));
    assert!(
        seen(&joined) == seen(&direct),
        "{}",
        joined.screen().contents()
    );
    let bar = |terminal: &vt100::Parser| terminal.screen().cell(5, 2).unwrap().inverse();
    assert!(bar(&joined) && bar(&direct), "the bar has a gap");
    // The main screen below is there, too.
    let after = b"\x1b[?1049l";
    joined.process(after);
    kept.feed(after);
    assert!(joined.screen().contents().starts_with("$ vi"));
}

#[test]
fn line_drawing_and_margins_go_on_after_a_restore() {
    let mut kept = screen(b"\x1b(0lqk\x1b[2;4r\x1b[4;1H");
    let restored = String::from_utf8(kept.restore(false)).unwrap();
    assert!(
        restored.contains("┌─┐") || restored.contains("\x1b(0"),
        "{restored:?}"
    );
    let mut joined = Screen::new(SIZE);
    joined.feed(restored.as_bytes());
    for one in [&mut kept, &mut joined] {
        one.feed(b"x\r\ny");
    }
    assert_eq!(joined.restore(false), kept.restore(false));
}

#[test]
fn history_comes_before_the_screen_and_only_once() {
    let lines: String = (0..40).map(|n| format!("line {n}\r\n")).collect();
    let mut kept = screen(lines.as_bytes());
    let mut joined = terminal(SIZE, b"mine");
    joined.process(&kept.restore(true));
    let mut all = String::new();
    for above in (1..=60).rev() {
        joined.screen_mut().set_scrollback(above);
        if joined.screen().scrollback() == above {
            all.push_str(&joined.screen().rows(0, 20).next().unwrap());
            all.push('\n');
        }
    }
    joined.screen_mut().set_scrollback(0);
    all.push_str(&joined.screen().contents());
    let all: String = all
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    assert!(all.contains("mine"), "what was there is not lost: {all}");
    for n in 0..40 {
        assert_eq!(
            all.matches(&format!("line {n}\n")).count(),
            1,
            "line {n} in {all}"
        );
    }
}

#[test]
fn history_and_work_are_bounded() {
    let size = TermSize::MAX;
    let mut kept = Screen::new(TermSize {
        rows: u16::MAX,
        cols: u16::MAX,
    });
    assert_eq!(kept.size(), size);
    for _ in 0..3 * HISTORY {
        kept.feed(b"line\r\n");
    }
    let lines = kept.terminal.0.primary_screen().all_lines().count();
    assert!(lines <= HISTORY + usize::from(size.rows), "{lines}");
    // The worst that a slice can ask for.
    let start = std::time::Instant::now();
    kept.feed(&b"x\x1b[65535b\x1b[65535S\x1b[65535L\x1b[65535T\x1b[65535@".repeat(10));
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}

#[test]
fn questions_are_answered_from_where_the_cursor_is() {
    let mut kept = screen(b"ab\x1b[6n\x1b[c\x1b[>1u\x1b[?u");
    assert_eq!(kept.answers(), "\x1b[1;3R\x1b[?62;22c\x1b[?1u");
    assert_eq!(kept.answers(), "");
}

#[test]
fn a_program_that_cleans_up_leaves_a_terminal_plain() {
    assert!(screen(b"\x1b[?1049h\x1b[?25lx\x1b[?25h\x1b[?1049l").is_plain());
    for disorder in ["\x1b[?1049h", "\x1b[?25l", "\x1b[?2004h", "\x1b[>1u"] {
        assert!(!screen(disorder.as_bytes()).is_plain(), "{disorder:?}");
    }
}
