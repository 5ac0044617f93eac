//! The other end of the transfers, on the host's loopback interface: a source and a sink.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Instant;

/// Bytes handed over at once.
const PIECE: usize = 128 * 1024;
/// Ends what is sent to the sink. The connection stays open both ways: passt may forget one that is closed one way.
const END: u8 = 0;

/// Ports of both.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    /// Sends until nobody reads.
    pub(crate) source: u16,
    /// Reads up to the first [`END`] and says how much, and in how many microseconds.
    pub(crate) sink: u16,
}

impl Ends {
    /// Starts both; they run as long as the process.
    pub(crate) fn start() -> Result<Self, String> {
        Ok(Self {
            source: serve(send)?,
            sink: serve(receive)?,
        })
    }
}

fn serve(each: fn(TcpStream) -> std::io::Result<()>) -> Result<u16, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| e.to_string())?;
    let port = listener.local_addr().map_err(|e| e.to_string())?.port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // The guest leaves as it likes.
            std::thread::spawn(move || each(stream));
        }
    });
    Ok(port)
}

fn send(mut stream: TcpStream) -> std::io::Result<()> {
    let piece = vec![7; PIECE];
    loop {
        stream.write_all(&piece)?;
    }
}

fn receive(mut stream: TcpStream) -> std::io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut got = stream.read(&mut piece)?;
    if got == 0 {
        return Ok(());
    }
    let started = Instant::now();
    let mut last = got;
    while piece[last - 1] != END {
        last = stream.read(&mut piece)?;
        if last == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        got += last;
    }
    writeln!(stream, "{got} {}", started.elapsed().as_micros())
}
