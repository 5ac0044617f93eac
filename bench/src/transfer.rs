//! Runs inside of a guest or a container: moves bytes over TCP and says how fast.
//!
//! Arguments: the processor to stay on, seconds, then pairs of `down` or `up` and `HOST:PORT`. One line a pair: MiB/s.
#![forbid(unsafe_code)]
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "figures are what this prints"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

/// Bytes handed over at once, as iperf3 does.
const PIECE: usize = 128 * 1024;
/// Ends what is sent; see the other end.
const END: u8 = 0;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [processor, seconds, jobs @ ..] = words.as_slice() else {
        return ExitCode::from(2);
    };
    let mut only = CpuSet::new();
    only.set(processor.parse().unwrap_or(0));
    if let Err(error) = sched_setaffinity(None, &only) {
        eprintln!("processor {processor}: {error}");
        return ExitCode::FAILURE;
    }
    let seconds = Duration::from_secs_f64(seconds.parse().unwrap_or(1.0));
    for job in jobs.chunks_exact(2) {
        let done = match job[0].as_str() {
            "down" => down(&job[1], seconds),
            _ => up(&job[1], seconds),
        };
        match done {
            Ok(speed) => println!("{speed:.3}"),
            Err(error) => {
                eprintln!("{} {}: {error}", job[0], job[1]);
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// Reads for so long; the clock starts with the first byte.
fn down(address: &str, seconds: Duration) -> std::io::Result<f64> {
    let mut stream = TcpStream::connect(address)?;
    let mut piece = vec![0; PIECE];
    let mut got = stream.read(&mut piece)? as u64;
    let started = Instant::now();
    while started.elapsed() < seconds {
        match stream.read(&mut piece)? {
            0 => break,
            length => got += length as u64,
        }
    }
    Ok(speed(got, started.elapsed()))
}

/// Writes for so long. The other side says how much came and in how many microseconds: what is still on its way here
/// does not count.
fn up(address: &str, seconds: Duration) -> std::io::Result<f64> {
    let mut stream = TcpStream::connect(address)?;
    let piece = vec![7; PIECE];
    let started = Instant::now();
    while started.elapsed() < seconds {
        stream.write_all(&piece)?;
    }
    stream.write_all(&[END])?;
    let mut said = String::new();
    BufReader::new(stream).read_line(&mut said)?;
    let mut numbers = said.split_whitespace().map(str::parse::<u64>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(bytes)), Some(Ok(micros))) => Ok(speed(bytes, Duration::from_micros(micros))),
        _ => Err(std::io::Error::other(format!("the sink said {said:?}"))),
    }
}

/// MiB a second.
#[expect(clippy::cast_precision_loss, reason = "bytes far below 2^53")]
fn speed(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / (1024.0 * 1024.0) / took.as_secs_f64()
}
