//! An upstream that keeps every byte it receives and answers what it was told, whatever it is asked: what servers make
//! of a message is not the question, what reaches them is.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A running tape. Its thread ends with the process.
pub(crate) struct Tape {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Tape {
    /// Answers each message that ends with an empty line, in chunks with the last of them, by the next of `answers`; the last one is repeated.
    pub(crate) fn answering(answers: &'static [&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::<Mutex<Vec<u8>>>::default();
        let shared = heard.clone();
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let shared = shared.clone();
                std::thread::spawn(move || play(stream, &shared, answers));
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
        let heard = std::mem::take(&mut *self.heard.lock().unwrap());
        String::from_utf8_lossy(&heard).into_owned()
    }
}

fn play(mut stream: TcpStream, heard: &Mutex<Vec<u8>>, answers: &[&str]) {
    let mut answers = answers.iter().copied();
    let mut last = "";
    let mut message = Vec::new();
    let mut chunk = [0; 16 * 1024];
    while let Ok(length @ 1..) = stream.read(&mut chunk) {
        heard.lock().unwrap().extend_from_slice(&chunk[..length]);
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
