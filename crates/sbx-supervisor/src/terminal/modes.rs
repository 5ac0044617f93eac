//! What a program told its terminal beyond the picture: how keys, mouse and pastes are reported, the title,
//! the shape of the cursor. And what it asked, for the time when no terminal is there to answer.
//!
//! Sources: xterm's "Control Sequences" (ctlseqs), and the "Comprehensive keyboard handling in terminals" of
//! kitty for the keyboard's stack.

use std::fmt::Write as _;
use vte::{Params, Parser, Perform};

/// DEC private modes that are restored. The others are part of the picture, or not worth keeping.
const TRACKED: [u16; 16] = [
    1,    // cursor keys
    9,    // mouse: X10
    66,   // keypad
    1000, // mouse: presses
    1001, // mouse: highlight
    1002, // mouse: drags
    1003, // mouse: everything
    1004, // focus
    1005, // mouse coordinates: UTF-8
    1006, // mouse coordinates: SGR
    1007, // wheel as arrow keys
    1015, // mouse coordinates: urxvt
    1016, // mouse coordinates: pixels
    2004, // bracketed paste
    2031, // changes between dark and light
    2048, // resizes in band
];
/// Entries kept of each keyboard stack.
const MAX_KEYBOARD: usize = 16;
/// Characters kept of a title.
const MAX_TITLE: usize = 256;
/// Questions that may wait for an answer; more at a time are a flood.
const MAX_QUESTIONS: usize = 32;

/// One screen's keyboard flags: what is in force, and what was pushed.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Keyboard {
    current: u16,
    saved: Vec<u16>,
}

impl Keyboard {
    fn push(&mut self, flags: u16) {
        if self.saved.len() >= MAX_KEYBOARD {
            self.saved.remove(0);
        }
        self.saved.push(self.current);
        self.current = flags;
    }

    fn pop(&mut self, count: u16) {
        for _ in 0..usize::from(count.max(1)).min(MAX_KEYBOARD) {
            self.current = self.saved.pop().unwrap_or_default();
        }
    }

    fn set(&mut self, flags: u16, how: u16) {
        match how {
            2 => self.current |= flags,
            3 => self.current &= !flags,
            _ => self.current = flags,
        }
    }

    fn write(&self, out: &mut String) {
        let mut all = self.saved.iter().chain([&self.current]);
        if let Some(first) = all.next().filter(|first| **first != 0) {
            let _ = write!(out, "\x1b[={first};1u");
        }
        for flags in all {
            let _ = write!(out, "\x1b[>{flags}u");
        }
    }
}

/// Something that a program asked its terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Alive,
    Cursor,
    Kind,
    Version,
    Keyboard,
}

/// See the module.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Told {
    set: [bool; TRACKED.len()],
    keypad: bool,
    alternate: bool,
    cursor_style: u16,
    modify_other_keys: u16,
    /// Of the main screen and of the alternate one.
    keyboards: [Keyboard; 2],
    title: String,
    questions: Vec<Question>,
}

/// Reads what a program writes and remembers its modes.
#[derive(Default)]
pub(super) struct Modes {
    parser: Parser,
    told: Told,
}

impl std::fmt::Debug for Modes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.told.fmt(f)
    }
}

impl Modes {
    /// Reads output.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.parser.advance(&mut self.told, bytes);
    }

    /// Whether a terminal that was told the same is as it was before, but for its title.
    pub(super) fn is_plain(&self) -> bool {
        let plain = Told {
            title: self.told.title.clone(),
            ..Told::default()
        };
        self.told == plain
    }

    /// Forgets the questions and returns the answers of a terminal that can little. `cursor`: row and column
    /// from 1.
    pub(super) fn answers(&mut self, cursor: (usize, usize)) -> String {
        let mut out = String::new();
        for question in std::mem::take(&mut self.told.questions) {
            let _ = match question {
                Question::Alive => write!(out, "\x1b[0n"),
                Question::Cursor => write!(out, "\x1b[{};{}R", cursor.0, cursor.1),
                Question::Kind => write!(out, "\x1b[?62;22c"),
                Question::Version => write!(out, "\x1b[>1;0;0c"),
                Question::Keyboard => write!(out, "\x1b[?{}u", self.told.keyboard().current),
            };
        }
        out
    }

    /// What brings a terminal that was just reset into these modes. The main screen must be shown.
    pub(super) fn write(&self, out: &mut String) {
        let told = &self.told;
        for (mode, set) in TRACKED.iter().zip(told.set) {
            if set {
                let _ = write!(out, "\x1b[?{mode}h");
            }
        }
        if told.keypad {
            out.push_str("\x1b=");
        }
        if told.cursor_style != 0 {
            let _ = write!(out, "\x1b[{} q", told.cursor_style);
        }
        if told.modify_other_keys != 0 {
            let _ = write!(out, "\x1b[>4;{}m", told.modify_other_keys);
        }
        if !told.title.is_empty() {
            let _ = write!(out, "\x1b]2;{}\x1b\\", told.title);
        }
        told.keyboards[0].write(out);
        if told.alternate && told.keyboards[1] != Keyboard::default() {
            out.push_str("\x1b[?1049h");
            told.keyboards[1].write(out);
            out.push_str("\x1b[?1049l");
        }
    }

    /// The same for a terminal that shows a picture of the screen and was told other modes before.
    pub(super) fn write_mirrored(&self, out: &mut String) {
        let told = &self.told;
        for (mode, set) in TRACKED.iter().zip(told.set) {
            // A wheel as arrow keys would type into the program.
            let on = set && *mode != 1007;
            let _ = write!(out, "\x1b[?{mode}{}", if on { 'h' } else { 'l' });
        }
        out.push_str(if told.keypad { "\x1b=" } else { "\x1b>" });
        let _ = write!(out, "\x1b[{} q", told.cursor_style);
        let _ = write!(out, "\x1b[>4;{}m", told.modify_other_keys);
        let _ = write!(out, "\x1b[={};1u", told.keyboard().current);
        if !told.title.is_empty() {
            let _ = write!(out, "\x1b]2;{}\x1b\\", told.title);
        }
    }

    /// Takes every mode back that [`Self::write`] can set, whatever a terminal was told, and shows the main
    /// screen.
    pub(super) fn reset(out: &mut String) {
        // More than there are empty the stack; both screens have one.
        out.push_str("\x1b[<99u\x1b[?1049l\x1b[<99u");
        for mode in TRACKED {
            let _ = write!(out, "\x1b[?{mode}l");
        }
        out.push_str("\x1b>\x1b[>4;0m\x1b[0 q");
    }
}

impl Told {
    fn keyboard(&self) -> &Keyboard {
        &self.keyboards[usize::from(self.alternate)]
    }

    fn keyboard_mut(&mut self) -> &mut Keyboard {
        &mut self.keyboards[usize::from(self.alternate)]
    }

    fn ask(&mut self, question: Question) {
        if self.questions.len() < MAX_QUESTIONS {
            self.questions.push(question);
        }
    }

    fn private_modes(&mut self, params: &Params, on: bool) {
        for param in params.iter().filter_map(|param| param.first()) {
            match *param {
                47 | 1047 | 1049 => self.alternate = on,
                mode => {
                    if let Some(at) = TRACKED.iter().position(|tracked| *tracked == mode) {
                        self.set[at] = on;
                    }
                }
            }
        }
    }
}

impl Perform for Told {
    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        if ignore {
            return;
        }
        let mut numbers = params.iter().filter_map(|param| param.first().copied());
        let first = numbers.next().unwrap_or_default();
        let second = numbers.next();
        match (intermediates, action) {
            (b"?", 'h') => self.private_modes(params, true),
            (b"?", 'l') => self.private_modes(params, false),
            (b">", 'u') => self.keyboard_mut().push(first & 0x1f),
            (b"<", 'u') => self.keyboard_mut().pop(first),
            (b"=", 'u') => self
                .keyboard_mut()
                .set(first & 0x1f, second.unwrap_or_default()),
            (b"?", 'u') => self.ask(Question::Keyboard),
            (b">", 'm') if first == 4 => self.modify_other_keys = second.unwrap_or_default().min(3),
            (b" ", 'q') if first <= 6 => self.cursor_style = first,
            (b"", 'n') if first == 5 => self.ask(Question::Alive),
            (b"", 'n') if first == 6 => self.ask(Question::Cursor),
            (b"", 'c') if first == 0 => self.ask(Question::Kind),
            (b">", 'c') if first == 0 => self.ask(Question::Version),
            (b"!", 'p') => {
                self.keypad = false;
                self.set[0] = false;
            }
            _ => {}
        }
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], ignore: bool, byte: u8) {
        match (intermediates, byte) {
            _ if ignore => {}
            (b"", b'=') => self.keypad = true,
            (b"", b'>') => self.keypad = false,
            (b"", b'c') => *self = Self::default(),
            _ => {}
        }
    }

    fn osc_dispatch(&mut self, params: &[&[u8]], _bell_terminated: bool) {
        if let [b"0" | b"2", title @ ..] = params {
            let text = title.join(&b';');
            self.title = String::from_utf8_lossy(&text)
                .chars()
                .filter(|c| !c.is_control())
                .take(MAX_TITLE)
                .collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(bytes: &str) -> Modes {
        let mut modes = Modes::default();
        modes.feed(bytes.as_bytes());
        modes
    }

    #[test]
    fn modes_written_down_and_read_again_are_the_same() {
        for bytes in [
            "\x1b[?1h\x1b=\x1b[?2004h\x1b[?1000;1006h\x1b[4 q\x1b[>4;2m\x1b]2;a title\x07",
            "\x1b[>1u\x1b[>5u\x1b[?1004h",
            "\x1b[=3u\x1b[=4;2u",
            "\x1b[>7u\x1b[?1049h\x1b[>15u",
        ] {
            let modes = after(bytes);
            let mut text = String::new();
            Modes::reset(&mut text);
            modes.write(&mut text);
            if modes.told.alternate {
                // The picture, which follows, does this.
                text.push_str("\x1b[?1049h");
            }
            assert_eq!(after(&text).told, modes.told, "{bytes:?}");
        }
    }

    #[test]
    fn a_reset_takes_everything_back() {
        let all = "\x1b[>1u\x1b[?1049h\x1b[>3u\x1b[?1;66;1003;1006;2004;2031;2048h\x1b=\x1b[>4;1m\x1b[2 q";
        assert!(!after(all).is_plain());
        let mut reset = all.to_owned();
        Modes::reset(&mut reset);
        assert!(after(&reset).is_plain());
        assert!(after(&format!("{all}\x1bc")).is_plain());
    }

    #[test]
    fn floods_of_pushes_titles_and_questions_are_bounded() {
        let mut modes = Modes::default();
        for _ in 0..10_000 {
            modes.feed(b"\x1b[>31u\x1b[6n\x1b]2;");
            modes.feed(&[b'x'; 200]);
        }
        modes.feed(b"\x07");
        assert!(modes.told.keyboards[0].saved.len() <= MAX_KEYBOARD);
        assert!(modes.told.title.chars().count() <= MAX_TITLE);
        let answers = modes.answers((3, 4));
        assert_eq!(answers.matches("\x1b[3;4R").count(), MAX_QUESTIONS);
        assert_eq!(modes.answers((3, 4)), "", "a question was answered twice");
    }

    #[test]
    fn a_title_carries_no_control_characters_and_keeps_its_semicolons() {
        assert_eq!(after("\x1b]0;a;b\u{9b}c\x1b\\").told.title, "a;bc");
    }
}
