//! The screen of a program: everything that a terminal which joins later has to be told.

use super::modes::Modes;
use super::paint;
use avt::{ScreenKind, Terminal};
use sbx_wire::guest::TermSize;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Lines kept above the screen.
pub(super) const HISTORY: usize = 1000;

/// See the module. What is fed to it comes from a hostile guest.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: Guarded,
    modes: Modes,
    /// Bytes of a character that is not complete yet.
    partial: Vec<u8>,
    size: TermSize,
}

/// A terminal emulator that is made anew, empty, should it ever panic.
struct Guarded(Terminal);

impl std::fmt::Debug for Guarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Terminal")
    }
}

impl Guarded {
    fn new(size: TermSize) -> Self {
        let size = size.bounded();
        Self(
            Terminal::with_scrollback(size.cols.into(), size.rows.into(), Some(HISTORY))
                .expect("bounded sizes are not zero"),
        )
    }

    fn with<T: Default>(&mut self, size: TermSize, work: impl FnOnce(&mut Terminal) -> T) -> T {
        // What it leaves behind is replaced whole, so nobody sees it broken.
        catch_unwind(AssertUnwindSafe(|| work(&mut self.0))).unwrap_or_else(|_| {
            tracing::error!("the terminal emulator failed; its screen is empty now");
            *self = Self::new(size);
            T::default()
        })
    }
}

impl Screen {
    pub(super) fn new(size: TermSize) -> Self {
        let size = size.bounded();
        Self {
            terminal: Guarded::new(size),
            modes: Modes::default(),
            partial: Vec::new(),
            size,
        }
    }

    pub(super) fn size(&self) -> TermSize {
        self.size
    }

    /// Takes output of the program.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.modes.feed(bytes);
        let joined;
        let mut rest = if self.partial.is_empty() {
            bytes
        } else {
            joined = [&std::mem::take(&mut self.partial)[..], bytes].concat();
            &joined
        };
        while !rest.is_empty() {
            let (text, broken) = match std::str::from_utf8(rest) {
                Ok(text) => (text, 0),
                Err(error) => {
                    let good = error.valid_up_to();
                    let broken = error.error_len().unwrap_or_else(|| {
                        self.partial = rest[good..].to_vec();
                        0
                    });
                    (
                        std::str::from_utf8(&rest[..good]).unwrap_or_default(),
                        broken,
                    )
                }
            };
            self.terminal.with(self.size, |terminal| {
                terminal.feed(text);
                if broken > 0 {
                    terminal.feed(char::REPLACEMENT_CHARACTER);
                }
            });
            rest = &rest[text.len() + broken..];
            if rest.len() == self.partial.len() {
                break;
            }
        }
    }

    /// Answers to what the program asked its terminal since the last call.
    pub(super) fn answers(&mut self) -> String {
        let cursor = self.terminal.0.cursor();
        // Behind the last column: a character waits there to wrap.
        let col = (cursor.col + 1).min(self.size.cols.into());
        self.modes.answers((cursor.row + 1, col))
    }

    pub(super) fn resize(&mut self, size: TermSize) {
        self.size = size.bounded();
        let (cols, rows) = (self.size.cols.into(), self.size.rows.into());
        self.terminal
            .with(self.size, |terminal| terminal.resize(cols, rows));
    }

    /// Brings a terminal of the same size, whatever it shows, into the state of this one; what the program
    /// writes next can follow. `history`: the terminal also gets the lines above the screen, for its own
    /// scrollback.
    pub(super) fn restore(&mut self, history: bool) -> Vec<u8> {
        let mut out = String::new();
        reset(&mut out);
        if history {
            self.scroll_in(&mut out);
        }
        // The saved cursor is the one of a new terminal.
        out.push_str("\x1b[H\x1b[2J\x1b7");
        self.modes.write(&mut out);
        let dump = self.terminal.with(self.size, |terminal| terminal.dump());
        out.push_str(&paint::plain(&dump));
        let mut out = out.into_bytes();
        out.extend_from_slice(&self.partial);
        out
    }

    /// The history, and as many empty lines as bring it and what the terminal showed out of sight.
    fn scroll_in(&mut self, out: &mut String) {
        let _ = write!(out, "\x1b[{};1H\r\n", self.size.rows);
        let rows = usize::from(self.size.rows);
        let history = self.terminal.with(self.size, |terminal| {
            let mut text = String::new();
            let screen = terminal.primary_screen();
            let above = screen.all_lines().count().saturating_sub(rows);
            for line in screen.all_lines().take(above) {
                paint::line(line, &mut text);
                text.push_str("\r\n");
            }
            text
        });
        out.push_str(&history);
        for _ in 1..rows {
            out.push_str("\r\n");
        }
    }

    /// A picture of the screen, for a terminal that is at least as large. `first`: it showed something else
    /// before.
    pub(super) fn mirror(&mut self, first: bool) -> Vec<u8> {
        let mut out = String::new();
        if first {
            reset(&mut out);
            // So that what it showed is there again afterwards.
            out.push_str("\x1b[?1049h\x1b[2J");
        }
        // Shown at once, where the terminal can do that.
        out.push_str("\x1b[?2026h\x1b[?25l");
        self.modes.write_mirrored(&mut out);
        let picture = self.terminal.with(self.size, |terminal| {
            let mut text = String::new();
            let screen = terminal.screen();
            for (line, row) in screen.visible_lines().zip(1..) {
                let _ = write!(text, "\x1b[{row};1H\x1b[m\x1b[K");
                paint::line(line, &mut text);
            }
            let cursor = terminal.cursor();
            let _ = write!(text, "\x1b[{};{}H", cursor.row + 1, cursor.col + 1);
            if cursor.visible {
                text.push_str("\x1b[?25h");
            }
            text
        });
        out.push_str(&picture);
        out.push_str("\x1b[?2026l");
        out.into_bytes()
    }

    /// Makes a terminal usable again that leaves while the program goes on, or that it left in disorder.
    pub(super) fn leave(&self) -> Vec<u8> {
        let mut out = String::new();
        reset(&mut out);
        let _ = write!(out, "\x1b[{};1H\r\n", self.size.rows);
        out.into_bytes()
    }

    /// Whether the program left a terminal as it found it.
    pub(super) fn is_plain(&self) -> bool {
        self.modes.is_plain()
            && self.terminal.0.active_screen_kind() == ScreenKind::Primary
            && self.terminal.0.cursor().visible
    }
}

/// Ends whatever sequence a terminal is in the middle of and takes back what a program may have set.
fn reset(out: &mut String) {
    out.push_str("\x18\x1b\\");
    Modes::reset(out);
    // Margins, origin, wrap, insert, character sets, cursor, pen.
    out.push_str("\x1b[r\x1b[?6l\x1b[?7h\x1b[4l\x1b[20l\x0f\x1b(B\x1b)B\x1b[?25h\x1b[m");
}

#[cfg(test)]
mod tests;
