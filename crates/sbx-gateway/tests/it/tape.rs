//! An upstream that keeps every byte it receives and answers what it was told, whatever it is asked: what servers make
//! of a message is not the question, what reaches them is.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A running tape. Its thread ends with the process.
pub(crate) struct Tape {
    pub(crate) address: SocketAddr,
    /// What each connection sent, in the order in which they were accepted.
    heard: Arc<Mutex<Vec<Heard>>>,
}

/// What one connection sent.
#[derive(Default)]
struct Heard {
    bytes: Vec<u8>,
    /// How much of it [`Tape::take`] has shown.
    taken: usize,
}

impl Tape {
    /// Answers each message that ends with an empty line, in chunks with the last of them, by the next of `answers`; the last one is repeated.
    pub(crate) fn answering(answers: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::<Mutex<Vec<Heard>>>::default();
        let shared = heard.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let shared = shared.clone();
                let index = {
                    let mut heard = shared.lock().unwrap();
                    heard.push(Heard::default());
                    heard.len() - 1
                };
                std::thread::spawn(move || play(stream, &shared, index, answers));
            }
        });
        Self { address, heard }
    }

    /// Answers with an empty 200.
    pub(crate) fn start() -> Self {
        Self::answering(&["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
    }

    /// What came since the last call, as text.
    pub(crate) fn take(&self) -> String {
        let mut text = String::new();
        for heard in &mut *self.heard.lock().unwrap() {
            text += &String::from_utf8_lossy(&heard.bytes[heard.taken..]);
            heard.taken = heard.bytes.len();
        }
        text
    }

    /// All that each connection sent so far, whether [`take`](Self::take) has shown it or not: what arrives late
    /// stays with its own connection.
    pub(crate) fn connections(&self) -> Vec<String> {
        let heard = self.heard.lock().unwrap();
        heard
            .iter()
            .map(|heard| String::from_utf8_lossy(&heard.bytes).into_owned())
            .collect()
    }
}

fn play(mut stream: TcpStream, heard: &Mutex<Vec<Heard>>, index: usize, answers: &[&str]) {
    let mut answers = answers.iter().copied();
    let mut last = "";
    let mut message = Vec::new();
    let mut chunk = [0; 16 * 1024];
    while let Ok(length @ 1..) = stream.read(&mut chunk) {
        heard.lock().unwrap()[index]
            .bytes
            .extend_from_slice(&chunk[..length]);
        message.extend_from_slice(&chunk[..length]);
        if is_over(&message) {
            message.clear();
            last = answers.next().unwrap_or(last);
            if stream.write_all(last.as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn is_over(message: &[u8]) -> bool {
    let text = String::from_utf8_lossy(message).to_ascii_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let chunked = head.contains("transfer-encoding: chunked");
    text.ends_with("\r\n\r\n") && (!chunked || body.contains("\r\n0\r\n"))
}
