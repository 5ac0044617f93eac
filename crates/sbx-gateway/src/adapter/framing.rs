//! Where a request over HTTP/1.1 begins and ends, said in one way only or refused (RFC 9112).
//!
//! The HTTP library that serves the guest mends what it can: it drops a `Content-Length` beside a
//! `Transfer-Encoding`, takes bare line feeds, joins folded lines. Whoever is asked next may mend it otherwise, and then
//! one request is two. So every byte passes here first: a head goes on only when it is complete and has one meaning, a
//! body only as far as its framing is without doubt. What goes on is read the same way by everybody; should the library
//! all the same see another message than this one, its number does not fit ([`super::guarded`]) and nothing is sent.

use memchr::{memchr, memchr2};

use super::chunks::Chunk;
use crate::limits;

/// Why a request is refused for its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A line feed or carriage return alone.
    #[error("a line does not end with CR LF")]
    LineEnd,
    /// Not `METHOD TARGET HTTP/1.x`.
    #[error("the request line is not METHOD TARGET HTTP/1.0 or HTTP/1.1")]
    RequestLine,
    /// A header that goes on in the next line.
    #[error("a header line is folded")]
    Folded,
    /// A header line without a name, or one that is not a token.
    #[error("a header line has no usable name")]
    HeaderLine,
    /// A control character in the request line or in a value.
    #[error("there is a control character in the head")]
    Control,
    /// None or two; HTTP/1.0 and `CONNECT` may have none.
    #[error("the request needs exactly one Host header")]
    Host,
    /// Both say where the body ends.
    #[error("the request has both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// Two, or not a plain number.
    #[error("Content-Length has to be there once, as a plain number")]
    Length,
    /// Anything but `chunked`, and anything at all in HTTP/1.0.
    #[error("the only transfer coding that is understood is chunked")]
    Coding,
    /// `CONNECT` or `Upgrade` with a body: what comes after it would be anybody's guess.
    #[error("a request that changes the protocol has no body")]
    SwitchWithBody,
    /// Longer than [`limits::REQUEST_HEAD_BYTES`], or more lines than [`limits::HEADERS`].
    #[error("the request head is too long")]
    HeadTooLong,
    /// Not hexadecimal digits, or more than a number of 64 bits has.
    #[error("a chunk's size is not a number in hexadecimal")]
    ChunkSize,
    /// More than [`limits::CHUNK_EXTENSIONS`] in one body, or a control character in it.
    #[error("the chunk extensions are too long")]
    ChunkExtension,
    /// A chunk is not as long as it said.
    #[error("a chunk does not end where it should")]
    ChunkEnd,
    /// Not headers, or more than [`limits::TRAILER_BYTES`] or [`limits::TRAILERS`].
    #[error("the trailers are not usable")]
    Trailer,
}

/// What becomes of the bytes that were shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// So many of them, at least one, may go on. They belong to one message.
    Pass(usize),
    /// The head is not complete. To be shown again, from its beginning, with more behind it.
    More,
    /// Not before it is known what the answer makes of the connection: see [`Framing::resume`].
    Wait,
    /// Never.
    Refuse(Fault),
}

/// What a stream is after a request that asked to change the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// HTTP/1.1 as before.
    Http,
    /// Something else, which is not looked at.
    Other,
}

/// Follows one stream of requests.
#[derive(Debug)]
pub struct Framing {
    state: State,
    messages: u64,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Head(Head),
    Sized(u64),
    Chunked(Chunk),
    Waiting,
    Opaque,
    Refused { fault: Fault, head: bool },
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            state: State::Head(Head::default()),
            messages: 0,
        }
    }
}

impl Framing {
    /// Messages whose head has gone on.
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// Whether the next byte begins a message.
    pub fn is_between(&self) -> bool {
        matches!(self.state, State::Head(head) if head.seen == 0)
    }

    /// Whether it is known only with the answer what follows.
    pub fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting)
    }

    /// Whether nothing more goes on.
    pub fn has_refused(&self) -> bool {
        matches!(self.state, State::Refused { .. })
    }

    /// Whether it was a head that was refused.
    pub fn has_refused_head(&self) -> bool {
        matches!(self.state, State::Refused { head: true, .. })
    }

    /// Whether nothing is looked at any more.
    pub fn is_opaque(&self) -> bool {
        matches!(self.state, State::Opaque)
    }

    /// After [`Progress::Wait`]: the answer is known.
    pub fn resume(&mut self, after: After) {
        if let State::Waiting = self.state {
            self.state = match after {
                After::Http => State::Head(Head::default()),
                After::Other => State::Opaque,
            };
        }
    }

    /// Looks at the bytes that have not gone on yet; at least one.
    pub fn advance(&mut self, bytes: &[u8]) -> Progress {
        let progress = match &mut self.state {
            State::Head(head) => match head.read(bytes) {
                Ok(HeadRead::More) => return Progress::More,
                Ok(HeadRead::EmptyLine) => return Progress::Pass(2),
                Ok(HeadRead::End { length, next }) => {
                    self.state = next;
                    self.messages += 1;
                    Ok(length)
                }
                Err(fault) => Err(fault),
            },
            State::Sized(left) => {
                let passed = bytes
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= passed as u64;
                Ok(passed)
            }
            State::Chunked(chunk) => chunk.read(bytes),
            State::Waiting => return Progress::Wait,
            State::Opaque => return Progress::Pass(bytes.len()),
            State::Refused { fault, .. } => return Progress::Refuse(*fault),
        };
        match progress {
            Ok(passed) => {
                let ended = match self.state {
                    State::Sized(left) => left == 0,
                    State::Chunked(chunk) => chunk.is_over(),
                    _ => false,
                };
                if ended {
                    self.state = State::Head(Head::default());
                }
                Progress::Pass(passed)
            }
            Err(fault) => {
                let head = matches!(self.state, State::Head(_));
                self.state = State::Refused { fault, head };
                Progress::Refuse(fault)
            }
        }
    }
}

/// What was read of a head so far.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    /// Bytes that were looked at; in whole lines, or up to a carriage return.
    seen: usize,
    /// Where the current line begins.
    line: usize,
    /// Lines so far.
    lines: usize,
    http_11: bool,
    connect: bool,
    websocket: bool,
    upgrade: bool,
    host: bool,
    length: Option<u64>,
    chunked: bool,
}

enum HeadRead {
    More,
    /// Before a request; some clients end a body with one (RFC 9112, section 2.2).
    EmptyLine,
    End {
        length: usize,
        next: State,
    },
}

impl Head {
    fn read(&mut self, bytes: &[u8]) -> Result<HeadRead, Fault> {
        loop {
            let Some(at) = memchr2(b'\r', b'\n', &bytes[self.seen..]) else {
                self.seen = bytes.len();
                break;
            };
            let end = self.seen + at;
            match (bytes[end], bytes.get(end + 1)) {
                (b'\r', Some(b'\n')) => {}
                (b'\r', None) => {
                    self.seen = end;
                    break;
                }
                _ => return Err(Fault::LineEnd),
            }
            let line = &bytes[self.line..end];
            (self.seen, self.line) = (end + 2, end + 2);
            if self.seen > limits::REQUEST_HEAD_BYTES {
                return Err(Fault::HeadTooLong);
            }
            match (line, self.lines) {
                ([], 0) => {
                    *self = Self::default();
                    return Ok(HeadRead::EmptyLine);
                }
                ([], _) => {
                    let (length, next) = (self.seen, self.end()?);
                    return Ok(HeadRead::End { length, next });
                }
                (line, 0) => self.request_line(line)?,
                (line, _) => self.header(line)?,
            }
            self.lines += 1;
            if self.lines > limits::HEADERS + 1 {
                return Err(Fault::HeadTooLong);
            }
        }
        if bytes.len() > limits::REQUEST_HEAD_BYTES {
            return Err(Fault::HeadTooLong);
        }
        Ok(HeadRead::More)
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Fault> {
        if line.iter().any(u8::is_ascii_control) {
            return Err(Fault::Control);
        }
        let mut words = line.split(|byte| *byte == b' ');
        let (method, target, version) = (words.next(), words.next(), words.next());
        let (Some(method), Some(_), Some(version), None) = (method, target, version, words.next())
        else {
            return Err(Fault::RequestLine);
        };
        self.http_11 = match version {
            b"HTTP/1.1" => true,
            b"HTTP/1.0" => false,
            _ => return Err(Fault::RequestLine),
        };
        self.connect = method == b"CONNECT";
        Ok(())
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Fault> {
        if matches!(line[0], b' ' | b'\t') {
            return Err(Fault::Folded);
        }
        let colon = memchr(b':', line).filter(|colon| *colon > 0);
        let (name, value) = line.split_at(colon.ok_or(Fault::HeaderLine)?);
        if !name.iter().copied().all(is_token) {
            return Err(Fault::HeaderLine);
        }
        if value
            .iter()
            .any(|byte| byte.is_ascii_control() && *byte != b'\t')
        {
            return Err(Fault::Control);
        }
        // The lengths of the names that matter; all others are not looked at.
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is(b"host") => {
                if self.host {
                    return Err(Fault::Host);
                }
                self.host = true;
            }
            7 if is(b"upgrade") => {
                // The first one counts, as for the relay.
                if !self.upgrade {
                    self.websocket = text(value).eq_ignore_ascii_case(b"websocket");
                }
                self.upgrade = true;
            }
            14 if is(b"content-length") => {
                if self.length.is_some() {
                    return Err(Fault::Length);
                }
                self.length = Some(number(text(value)).ok_or(Fault::Length)?);
            }
            17 if is(b"transfer-encoding") => {
                let chunked = text(value).eq_ignore_ascii_case(b"chunked");
                if self.chunked || !chunked || !self.http_11 {
                    return Err(Fault::Coding);
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    /// What follows the head.
    fn end(&self) -> Result<State, Fault> {
        if self.http_11 && !self.host && !self.connect {
            return Err(Fault::Host);
        }
        // As the relay sees it: only HTTP/1.1 can switch, and only to WebSocket.
        let switches = self.connect || (self.websocket && self.http_11);
        match (self.length, self.chunked) {
            (Some(_), true) => Err(Fault::LengthAndCoding),
            (Some(_), false) | (None, true) if self.connect => Err(Fault::SwitchWithBody),
            (Some(1..), _) | (None, true) if switches => Err(Fault::SwitchWithBody),
            _ if switches => Ok(State::Waiting),
            (Some(length), false) => Ok(State::Sized(length)),
            (None, true) => Ok(State::Chunked(Chunk::default())),
            (None, false) => Ok(State::Sized(0)),
        }
    }
}

/// What names are made of (RFC 9110, section 5.6.2).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The value behind the colon, without the white space around it.
fn text(value: &[u8]) -> &[u8] {
    let blank = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let value = &value[1..];
    let start = value.iter().position(blank).unwrap_or(value.len());
    let end = value.iter().rposition(blank).map_or(start, |last| last + 1);
    &value[start..end]
}

/// Digits and nothing else, no zero in front, at most 18 of them: nobody's number overflows.
fn number(digits: &[u8]) -> Option<u64> {
    let plain = matches!(digits, [b'0'] | [b'1'..=b'9', ..]) && digits.len() <= 18;
    if !plain {
        return None;
    }
    digits.iter().try_fold(0, |value, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        Some(value * 10 + u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths of the messages, and why it ended if it did. Shown in pieces of `step` bytes.
    fn messages(stream: &[u8], step: usize) -> (Vec<usize>, Option<Fault>) {
        let (mut framing, mut lengths, mut length) = (Framing::default(), Vec::new(), 0);
        let (mut from, mut to) = (0, 0);
        while from < stream.len() {
            if from == to {
                to = (to + step).min(stream.len());
            }
            match framing.advance(&stream[from..to]) {
                Progress::Pass(passed) => {
                    assert!((1..=to - from).contains(&passed));
                    from += passed;
                    length += passed;
                    if framing.is_between() {
                        lengths.push(std::mem::take(&mut length));
                    }
                }
                Progress::More if to < stream.len() => to = (to + step).min(stream.len()),
                Progress::More | Progress::Wait => break,
                Progress::Refuse(fault) => return (lengths, Some(fault)),
            }
        }
        (lengths, None)
    }

    /// The same, whatever the pieces.
    fn all_ways(stream: &str) -> (Vec<usize>, Option<Fault>) {
        let whole = messages(stream.as_bytes(), stream.len());
        for step in 1..8 {
            assert_eq!(
                messages(stream.as_bytes(), step),
                whole,
                "{stream:?} by {step}"
            );
        }
        whole
    }

    fn fault(head: &str) -> Option<Fault> {
        all_ways(&format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        ))
        .1
    }

    #[test]
    fn messages_end_where_they_say_and_the_next_one_begins_there() {
        let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let sized = "PUT /x HTTP/1.1\r\nhost: a\r\ncontent-length:\t5 \r\n\r\nhello";
        let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n\
                       5;x=\"y\"\r\nhello\r\n00A\r\n0123456789\r\n0\r\nx-sum: 1\r\ny:\r\n\r\n";
        let old = "GET / HTTP/1.0\r\n\r\n";
        let stream = [get, sized, chunked, old, get].concat();
        let lengths = [get, sized, chunked, old, get].map(str::len).to_vec();
        assert_eq!(all_ways(&stream), (lengths, None));
        let empty_line = format!("{get}\r\n{get}");
        assert_eq!(all_ways(&empty_line), (vec![get.len(), 2, get.len()], None));
    }

    #[test]
    fn heads_with_more_than_one_meaning_are_refused() {
        for (head, why) in [
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked",
                Fault::LengthAndCoding,
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 5",
                Fault::LengthAndCoding,
            ),
            ("Content-Length: 5\r\nContent-Length: 5", Fault::Length),
            ("Content-Length: 5\r\nContent-Length: x", Fault::Length),
            ("Content-Length: +5", Fault::Length),
            ("Content-Length: 5,5", Fault::Length),
            ("Content-Length: 05", Fault::Length),
            ("Content-Length: 0x5", Fault::Length),
            ("Content-Length: 1000000000000000000", Fault::Length),
            ("Content-Length:", Fault::Length),
            ("Transfer-Encoding: xchunked", Fault::Coding),
            ("Transfer-Encoding: chunked, identity", Fault::Coding),
            ("Transfer-Encoding: gzip, chunked", Fault::Coding),
            ("Transfer-Encoding: identity", Fault::Coding),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                Fault::Coding,
            ),
            ("Transfer-Encoding: \x0bchunked", Fault::Control),
            ("X: a\0b", Fault::Control),
            ("Transfer-Encoding : chunked", Fault::HeaderLine),
            ("X\x01: a", Fault::HeaderLine),
            ("X: a\r\n b", Fault::Folded),
            ("X: a\r\n\tContent-Length: 5", Fault::Folded),
            ("X: a\nContent-Length: 5", Fault::LineEnd),
            ("X: a\rContent-Length: 5", Fault::LineEnd),
            ("X", Fault::HeaderLine),
            (": x", Fault::HeaderLine),
            ("host: b", Fault::Host),
            (
                "Upgrade: websocket\r\nTransfer-Encoding: chunked",
                Fault::SwitchWithBody,
            ),
            (
                "Upgrade: websocket\r\nContent-Length: 5",
                Fault::SwitchWithBody,
            ),
        ] {
            assert_eq!(fault(head), Some(why), "{head:?}");
        }
        for (stream, why) in [
            ("GET / HTTP/1.1\nHost: a\n\n", Fault::LineEnd),
            ("GET / HTTP/1.1\rHost: a\r\r", Fault::LineEnd),
            ("GET / HTTP/1.1\r\n\r\n", Fault::Host),
            ("GET /\r\n\r\n", Fault::RequestLine),
            ("GET / a HTTP/1.1\r\n", Fault::RequestLine),
            ("GET  / HTTP/1.1\r\n", Fault::RequestLine),
            ("GET / HTTP/1.2\r\n", Fault::RequestLine),
            ("GET /\0 HTTP/1.1\r\n", Fault::Control),
            ("GET\t/ HTTP/1.1\r\n", Fault::Control),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Fault::RequestLine),
            (
                "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
                Fault::Coding,
            ),
            (
                "CONNECT a:1 HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
                Fault::SwitchWithBody,
            ),
        ] {
            assert_eq!(all_ways(stream), (Vec::new(), Some(why)), "{stream:?}");
        }
    }

    #[test]
    fn chunks_with_more_than_one_meaning_are_refused() {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let flood = format!("5;{}\r\nhello", "x".repeat(limits::CHUNK_EXTENSIONS + 1));
        let many = format!("0\r\n{}\r\n", "x-a: 1\r\n".repeat(limits::TRAILERS + 1));
        let long = format!("0\r\nx: {}\r\n", "y".repeat(limits::TRAILER_BYTES));
        for (body, why) in [
            ("\r\n", Fault::ChunkSize),
            ("+5\r\nhello", Fault::ChunkSize),
            ("0x5\r\nhello", Fault::ChunkSize),
            ("5 \r\nhello", Fault::ChunkSize),
            ("10000000000000005\r\nhello", Fault::ChunkSize),
            ("ffffffffffffffffff\r\n", Fault::ChunkSize),
            ("5\nhello", Fault::ChunkSize),
            ("5\rxhello", Fault::LineEnd),
            ("5;a\nb\r\nhello", Fault::ChunkExtension),
            (&flood, Fault::ChunkExtension),
            ("5\r\nhelloo\r\n", Fault::ChunkEnd),
            ("5\r\nhello\n0\r\n\r\n", Fault::ChunkEnd),
            ("0\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::Trailer),
            ("0\r\nx: 1\r\n y\r\n\r\n", Fault::Trailer),
            ("0\r\nx: 1\n\r\n", Fault::Trailer),
            ("0\r\n: 1\r\n\r\n", Fault::Trailer),
            (&many, Fault::Trailer),
            (&long, Fault::Trailer),
            ("0\r\n\n", Fault::Trailer),
        ] {
            let (_, fault) = all_ways(&format!("{head}{body}"));
            assert_eq!(fault, Some(why), "{body:?}");
        }
    }

    #[test]
    fn heads_are_bounded_in_length_and_lines() {
        let long = format!(
            "GET /{} HTTP/1.1\r\n",
            "a".repeat(limits::REQUEST_HEAD_BYTES)
        );
        assert_eq!(messages(long.as_bytes(), 4096).1, Some(Fault::HeadTooLong));
        let line = format!(
            "GET / HTTP/1.1\r\nHost: a\r\n{}",
            "x: y\r\n".repeat(limits::HEADERS)
        );
        assert_eq!(messages(line.as_bytes(), 4096).1, Some(Fault::HeadTooLong));
    }

    #[test]
    fn after_a_request_to_switch_nothing_goes_on_until_the_answer_is_known() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\n\r\n";
        for (after, next) in [
            (After::Http, Progress::Refuse(Fault::LineEnd)),
            (After::Other, Progress::Pass(2)),
        ] {
            let mut framing = Framing::default();
            assert_eq!(framing.advance(head), Progress::Pass(head.len()));
            assert_eq!(framing.advance(b"\n\n"), Progress::Wait);
            framing.resume(after);
            assert_eq!(framing.advance(b"\n\n"), next);
        }
    }
}
