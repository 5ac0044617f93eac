//! The host's side of the guest protocol, small and blocking: for the tests and for `examples/drive.rs`.
#![allow(dead_code, reason = "each user needs a part of it")]

use sbx_wire::frame::{CHUNK, Decoder, encode};
use sbx_wire::guest::{
    ExecError, ExecRequest, ExitStatus, FromGuest, NetworkIdentity, Personalise, Preamble, Stream,
    TermSize, ToGuest, VERSION,
};
use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;

/// One life of a channel.
pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    pub(crate) epoch: u32,
    decoder: Decoder,
    next: u32,
    pub(crate) log: Vec<FromGuest>,
}

/// Everything a program did.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) status: Option<ExitStatus>,
    pub(crate) error: Option<ExecError>,
}

impl Outcome {
    pub(crate) fn code(&self) -> Option<u8> {
        self.status
            .map(ExitStatus::code)
            .or(self.error.as_ref().map(ExecError::code))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

pub(crate) fn preamble(epoch: u32) -> Preamble {
    Preamble {
        version: VERSION,
        epoch,
        nonce: [u8::try_from(epoch % 251).unwrap_or(0) + 1; 16],
    }
}

impl Client {
    /// Opens a life: sends the preamble, discards everything in front of the answer.
    pub(crate) fn open(mut stream: UnixStream, epoch: u32) -> io::Result<Self> {
        let ours = preamble(epoch);
        stream.write_all(&ours.encode_host())?;
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            seen.extend_from_slice(&buffer[..count]);
            if let Some((_, end)) = ours.find_answer(&seen) {
                let mut decoder = Decoder::new(epoch);
                decoder.push(&seen[end..]);
                return Ok(Self {
                    stream,
                    epoch,
                    decoder,
                    next: 1,
                    log: Vec::new(),
                });
            }
        }
    }

    pub(crate) fn send(&mut self, message: &ToGuest) -> io::Result<()> {
        let frame = encode(self.epoch, message).map_err(io::Error::other)?;
        self.stream.write_all(&frame)
    }

    pub(crate) fn receive(&mut self) -> io::Result<FromGuest> {
        let mut buffer = vec![0; CHUNK];
        loop {
            if let Some(message) = self.decoder.next().map_err(io::Error::other)? {
                return Ok(message);
            }
            let count = self.stream.read(&mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.decoder.push(&buffer[..count]);
        }
    }

    /// Receives until `pick` takes a message; the others go to the log.
    pub(crate) fn until<T>(
        &mut self,
        mut pick: impl FnMut(&FromGuest) -> Option<T>,
    ) -> io::Result<T> {
        loop {
            let message = self.receive()?;
            if let Some(picked) = pick(&message) {
                return Ok(picked);
            }
            self.log.push(message);
        }
    }

    pub(crate) fn personalise(&mut self, request: Personalise) -> io::Result<Result<(), String>> {
        self.send(&ToGuest::Personalise(Box::new(request)))?;
        self.until(|message| match message {
            FromGuest::Personalised(result) => Some(result.clone()),
            _ => None,
        })
    }

    /// Sends a request; returns its session number.
    pub(crate) fn begin(&mut self, request: ExecRequest) -> io::Result<u32> {
        let session = self.next;
        self.next += 1;
        self.send(&ToGuest::Exec { session, request })?;
        Ok(session)
    }

    /// Runs one program to its end with this input.
    pub(crate) fn exec(&mut self, request: ExecRequest, input: &[u8]) -> io::Result<Outcome> {
        let session = self.begin(request)?;
        let mut all = self.drive(&[(session, input)])?;
        Ok(all.remove(&session).unwrap_or_default())
    }

    /// Drives sessions to their ends, feeding each its input within the window and granting all output.
    pub(crate) fn drive(&mut self, inputs: &[(u32, &[u8])]) -> io::Result<BTreeMap<u32, Outcome>> {
        let mut outcomes: BTreeMap<u32, Outcome> = BTreeMap::new();
        let mut feeds: BTreeMap<u32, Feed<'_>> = BTreeMap::new();
        for (session, input) in inputs {
            outcomes.insert(*session, Outcome::default());
            feeds.insert(
                *session,
                Feed {
                    left: input,
                    window: sbx_wire::guest::WINDOW as usize,
                    ended: false,
                },
            );
            self.feed(*session, feeds.get_mut(session))?;
        }
        while outcomes
            .values()
            .any(|outcome| outcome.status.is_none() && outcome.error.is_none())
        {
            match self.receive()? {
                FromGuest::Output {
                    session,
                    stream,
                    data,
                } => {
                    let bytes = u32::try_from(data.len()).map_err(io::Error::other)?;
                    let outcome = outcomes.entry(session).or_default();
                    match stream {
                        Stream::Stdout => outcome.stdout.extend(data),
                        Stream::Stderr => outcome.stderr.extend(data),
                    }
                    self.send(&ToGuest::Credit {
                        session,
                        stream,
                        bytes,
                    })?;
                }
                FromGuest::StdinCredit { session, bytes } => {
                    if let Some(feed) = feeds.get_mut(&session) {
                        feed.window += bytes as usize;
                    }
                    self.feed(session, feeds.get_mut(&session))?;
                }
                FromGuest::Exited { session, status } => {
                    outcomes.entry(session).or_default().status = Some(status);
                }
                FromGuest::ExecFailed { session, error } => {
                    outcomes.entry(session).or_default().error = Some(error);
                }
                other => self.log.push(other),
            }
        }
        Ok(outcomes)
    }

    fn feed(&mut self, session: u32, feed: Option<&mut Feed<'_>>) -> io::Result<()> {
        let Some(feed) = feed else { return Ok(()) };
        while !feed.left.is_empty() && feed.window > 0 {
            let (piece, left) = feed
                .left
                .split_at(feed.left.len().min(feed.window).min(CHUNK));
            feed.left = left;
            feed.window -= piece.len();
            self.send(&ToGuest::Stdin {
                session,
                data: piece.to_vec(),
            })?;
        }
        if feed.left.is_empty() && !std::mem::replace(&mut feed.ended, true) {
            self.send(&ToGuest::StdinEof { session })?;
        }
        Ok(())
    }
}

struct Feed<'a> {
    left: &'a [u8],
    window: usize,
    ended: bool,
}

/// A request for a program without a terminal, its input forwarded.
pub(crate) fn request(argv: &[&str]) -> ExecRequest {
    ExecRequest {
        argv: argv.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
        env: Vec::new(),
        workdir: None,
        user: None,
        terminal: None,
        stdin: true,
    }
}

pub(crate) fn shell(script: &str) -> ExecRequest {
    request(&["/bin/sh", "-c", script])
}

pub(crate) fn terminal(script: &str) -> ExecRequest {
    ExecRequest {
        terminal: Some(TermSize { rows: 24, cols: 80 }),
        ..shell(script)
    }
}

/// A personalisation that changes nothing of note.
pub(crate) fn plain() -> Personalise {
    Personalise {
        hostname: "drive".into(),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        entropy: vec![7; 64],
        unix_ns: 1_800_000_000_000_000_000,
        network: NetworkIdentity {
            address: Ipv4Addr::new(192, 0, 2, 2),
            prefix: 24,
            gateway: Ipv4Addr::new(192, 0, 2, 1),
            mtu: 1500,
            hosts: vec![(
                Ipv4Addr::new(192, 0, 2, 1),
                "gateway.docker.internal".into(),
            )],
        },
        ca_pem: String::new(),
        mounts: Vec::new(),
        env: vec![("SANDBOX".into(), "yes".into())],
        files: Vec::new(),
        workdir: String::new(),
        docker: false,
    }
}
