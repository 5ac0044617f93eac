//! Frames of a WebSocket (RFC 6455, section 5), read as they come: a head is judged as soon as it is whole, a payload goes
//! on in whatever pieces it arrives, and of a message nothing is kept but where it stands.
//!
//! No extension is ever negotiated on a connection that is read, so reserved bits mean nothing and are refused. What comes
//! out is framed anew ([`Writer`]), as whoever stands between two ends may do without extensions (section 5.4): so a piece
//! that was changed or held back has the length that its frame says.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::NoRandomness;

/// Longest payload of a control frame, in bytes (section 5.5).
pub const CONTROL: usize = 125;
/// Largest length of a frame: the highest bit is none of it (section 5.2).
const LARGEST: u64 = u64::MAX >> 1;

const LAST: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
/// In the place of a short length: one of two bytes follows, or one of eight.
const MEDIUM: u8 = 126;
const LONG: u8 = 127;

/// Whose frames they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Masks what it sends.
    Client,
    /// Does not.
    Server,
}

/// What a message holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8.
    Text = 1,
    /// Anything.
    Binary = 2,
}

/// A control frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// The end.
    Close = 8,
    /// A question.
    Ping = 9,
    /// Its answer.
    Pong = 10,
}

/// What comes out of frames, unmasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The next piece of a message. It is empty only as the last one.
    Message {
        /// What the message holds.
        kind: Kind,
        /// The piece.
        text: Bytes,
        /// Whether it ends the message.
        last: bool,
    },
    /// A control frame, which can stand between two pieces of a message.
    Control {
        /// Which one.
        control: Control,
        /// Its payload, at most [`CONTROL`].
        text: Bytes,
    },
}

/// Frames that are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Only an extension could give it a meaning.
    #[error("a frame has a reserved bit")]
    Reserved,
    /// 3 to 7 and 11 to 15 have no meaning.
    #[error("a frame has an unknown opcode")]
    Opcode,
    /// Whoever is asked must not take it.
    #[error("a frame of the client is not masked")]
    Unmasked,
    /// Whoever asks must not take it.
    #[error("a frame of the server is masked")]
    Masked,
    /// Longer than [`CONTROL`], or in fragments.
    #[error("a control frame is too long or in fragments")]
    Control,
    /// Not in the shortest form, or with the highest bit.
    #[error("a frame has a length that is not in its one form")]
    Length,
    /// No message has begun.
    #[error("a fragment continues no message")]
    Continuation,
    /// The one before has not ended.
    #[error("a message begins inside of another one")]
    Inside,
    /// A code has two bytes (section 5.5.1).
    #[error("a close frame has half a code")]
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opcode {
    Continuation,
    Message(Kind),
    Control(Control),
}

impl Opcode {
    fn of(bits: u8) -> Result<Self, Violation> {
        Ok(match bits {
            0 => Self::Continuation,
            1 => Self::Message(Kind::Text),
            2 => Self::Message(Kind::Binary),
            8 => Self::Control(Control::Close),
            9 => Self::Control(Control::Ping),
            10 => Self::Control(Control::Pong),
            _ => return Err(Violation::Opcode),
        })
    }
}

/// The head of a frame, beyond doubt.
#[derive(Debug, Clone, Copy)]
struct Head {
    last: bool,
    opcode: Opcode,
    length: u64,
    mask: [u8; 4],
    /// Bytes of the head itself.
    size: usize,
}

impl Head {
    /// `None`: it is not whole yet.
    fn read(bytes: &[u8], from: Side) -> Result<Option<Self>, Violation> {
        let [first, second, rest @ ..] = bytes else {
            return Ok(None);
        };
        if first & RESERVED != 0 {
            return Err(Violation::Reserved);
        }
        let last = first & LAST != 0;
        let opcode = Opcode::of(first & OPCODE)?;
        let masked = second & MASKED != 0;
        match from {
            Side::Client if !masked => return Err(Violation::Unmasked),
            Side::Server if masked => return Err(Violation::Masked),
            Side::Client | Side::Server => {}
        }
        let short = second & !MASKED;
        if matches!(opcode, Opcode::Control(_)) && (!last || usize::from(short) > CONTROL) {
            return Err(Violation::Control);
        }
        let (length, shortest, rest) = match short {
            MEDIUM => match rest.split_first_chunk() {
                Some((long, rest)) => (u64::from(u16::from_be_bytes(*long)), 126, rest),
                None => return Ok(None),
            },
            LONG => match rest.split_first_chunk() {
                Some((long, rest)) => (u64::from_be_bytes(*long), 1 << 16, rest),
                None => return Ok(None),
            },
            short => (u64::from(short), 0, rest),
        };
        if !(shortest..=LARGEST).contains(&length) {
            return Err(Violation::Length);
        }
        let (mask, rest) = match rest.split_first_chunk() {
            _ if !masked => ([0; 4], rest),
            Some((mask, rest)) => (*mask, rest),
            None => return Ok(None),
        };
        Ok(Some(Self {
            last,
            opcode,
            length,
            mask,
            size: bytes.len() - rest.len(),
        }))
    }
}

/// A frame of a message whose payload is coming.
#[derive(Debug)]
struct Open {
    kind: Kind,
    last: bool,
    left: u64,
    /// Turned to where the next byte stands.
    mask: [u8; 4],
}

/// Reads the frames of one side.
#[derive(Debug)]
pub struct Frames {
    from: Side,
    /// The message that has begun and not ended.
    message: Option<Kind>,
    open: Option<Open>,
}

impl Frames {
    /// At the beginning of what this side sends.
    pub fn new(from: Side) -> Self {
        Self {
            from,
            message: None,
            open: None,
        }
    }

    /// Takes the next part out of what came. `None`: more has to come first, and what is left is shorter than a head and a
    /// control frame.
    pub fn next(&mut self, bytes: &mut BytesMut) -> Result<Option<Part>, Violation> {
        loop {
            if let Some(open) = self.open.take() {
                match self.piece(open, bytes) {
                    // An empty fragment in the middle says nothing.
                    Some((_, text, false)) if text.is_empty() => {}
                    Some((kind, text, last)) => {
                        return Ok(Some(Part::Message { kind, text, last }));
                    }
                    None => return Ok(None),
                }
            }
            let Some(head) = Head::read(bytes, self.from)? else {
                return Ok(None);
            };
            let kind = match (head.opcode, self.message) {
                (Opcode::Control(control), _) => return control_frame(control, &head, bytes),
                (Opcode::Message(kind), None) | (Opcode::Continuation, Some(kind)) => kind,
                (Opcode::Message(_), Some(_)) => return Err(Violation::Inside),
                (Opcode::Continuation, None) => return Err(Violation::Continuation),
            };
            bytes.advance(head.size);
            self.message = (!head.last).then_some(kind);
            self.open = Some(Open {
                kind,
                last: head.last,
                left: head.length,
                mask: head.mask,
            });
        }
    }

    /// What has come of a frame, and whether it ends the message.
    fn piece(&mut self, mut open: Open, bytes: &mut BytesMut) -> Option<(Kind, Bytes, bool)> {
        let left = usize::try_from(open.left).unwrap_or(usize::MAX);
        let mut text = bytes.split_to(left.min(bytes.len()));
        let ends = text.len() == left;
        let (kind, last) = (open.kind, open.last && ends);
        turn(&mut text, open.mask);
        if !ends {
            open.left -= text.len() as u64;
            open.mask.rotate_left(text.len() % 4);
            self.open = Some(open);
            if text.is_empty() {
                return None;
            }
        }
        Some((kind, text.freeze(), last))
    }
}

/// Takes a control frame once it is whole.
fn control_frame(
    control: Control,
    head: &Head,
    bytes: &mut BytesMut,
) -> Result<Option<Part>, Violation> {
    if control == Control::Close && head.length == 1 {
        return Err(Violation::Close);
    }
    let length = usize::try_from(head.length).map_err(|_| Violation::Length)?;
    if bytes.len() < head.size + length {
        return Ok(None);
    }
    bytes.advance(head.size);
    let mut text = bytes.split_to(length);
    turn(&mut text, head.mask);
    let text = text.freeze();
    Ok(Some(Part::Control { control, text }))
}

/// Masks or unmasks (section 5.3).
fn turn(text: &mut [u8], mask: [u8; 4]) {
    let word = u32::from_ne_bytes(mask);
    let (words, rest) = text.as_chunks_mut::<4>();
    for bytes in words {
        *bytes = (u32::from_ne_bytes(*bytes) ^ word).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask) {
        *byte ^= key;
    }
}

/// Writes the frames of one side.
#[derive(Debug)]
pub struct Writer {
    side: Side,
    /// A message has begun.
    begun: bool,
}

impl Writer {
    /// Writes as this side.
    pub fn new(side: Side) -> Self {
        Self { side, begun: false }
    }

    /// Writes the next piece of a message as a frame. A piece without a byte is no frame, unless it is the last one.
    pub fn message(
        &mut self,
        out: &mut BytesMut,
        kind: Kind,
        text: &[u8],
        last: bool,
    ) -> Result<(), NoRandomness> {
        if text.is_empty() && !last {
            return Ok(());
        }
        let opcode = if self.begun { 0 } else { kind as u8 };
        self.begun = !last;
        self.frame(out, if last { LAST | opcode } else { opcode }, text)
    }

    /// Writes a control frame. What is longer than [`CONTROL`] is cut.
    pub fn control(
        &self,
        out: &mut BytesMut,
        control: Control,
        text: &[u8],
    ) -> Result<(), NoRandomness> {
        let text = &text[..text.len().min(CONTROL)];
        self.frame(out, LAST | control as u8, text)
    }

    /// Writes a close frame with a reason, of which so much stays as there is room for.
    pub fn close(&self, out: &mut BytesMut, code: u16, reason: &str) -> Result<(), NoRandomness> {
        let reason = &reason[..reason.floor_char_boundary(CONTROL - 2)];
        let text = [&code.to_be_bytes(), reason.as_bytes()].concat();
        self.control(out, Control::Close, &text)
    }

    fn frame(&self, out: &mut BytesMut, first: u8, text: &[u8]) -> Result<(), NoRandomness> {
        let mut mask = [0; 4];
        let masked = match self.side {
            Side::Client => {
                // A new one for each frame, which nobody can foresee (section 5.3).
                crate::random(&mut mask)?;
                MASKED
            }
            Side::Server => 0,
        };
        out.put_u8(first);
        match (u8::try_from(text.len()), u16::try_from(text.len())) {
            (Ok(short @ ..=125), _) => out.put_u8(masked | short),
            (_, Ok(medium)) => {
                out.put_u8(masked | MEDIUM);
                out.put_u16(medium);
            }
            _ => {
                out.put_u8(masked | LONG);
                out.put_u64(text.len() as u64);
            }
        }
        if self.side == Side::Client {
            out.put_slice(&mask);
        }
        let at = out.len();
        out.put_slice(text);
        turn(&mut out[at..], mask);
        Ok(())
    }
}

#[cfg(test)]
#[path = "websocket_tests.rs"]
mod tests;
