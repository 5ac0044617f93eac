//! Drives a booted guest from the command line, for trying things out: connects to QEMU's socket of the
//! guest channel, personalises, runs shell lines, prints what happened and when.
//!
//! `drive SOCKET [--docker] [--mount TAG=PATH]... [--user USER] [--tty] [--wait-docker] [--shutdown] LINE...`
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a development tool"
)]

#[path = "../tests/it/client.rs"]
mod client;

use client::{Client, plain, shell, terminal};
use sbx_wire::guest::{DockerState, FromGuest, Mount, ToGuest};
use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

fn main() -> io::Result<()> {
    let begun = Instant::now();
    let at = || begun.elapsed().as_millis();
    let mut args = std::env::args().skip(1);
    let socket = args
        .next()
        .ok_or_else(|| io::Error::other("which socket?"))?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(io::Error::other)?;
    let mut request = plain();
    request.unix_ns = u64::try_from(now.as_nanos()).map_err(io::Error::other)?;
    let (mut lines, mut user) = (Vec::new(), None);
    let (mut wait_docker, mut shutdown, mut tty) = (false, false, false);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--docker" => request.docker = true,
            "--wait-docker" => wait_docker = true,
            "--shutdown" => shutdown = true,
            "--tty" => tty = true,
            "--user" => user = args.next(),
            "--ca" => request.ca_pem = std::fs::read_to_string(args.next().unwrap_or_default())?,
            "--mount" => {
                let mount = args.next().unwrap_or_default();
                let (tag, path) = mount.split_once('=').unwrap_or_default();
                request.mounts.push(Mount {
                    tag: tag.into(),
                    path: path.into(),
                    read_only: false,
                });
            }
            _ => lines.push(arg),
        }
    }
    let stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(_) => std::thread::park_timeout(std::time::Duration::from_millis(10)),
        }
    };
    let epoch = u32::try_from(now.as_secs() % 1_000_000).map_err(io::Error::other)?;
    let mut client = Client::open(stream, epoch)?;
    println!("[{} ms] channel open", at());
    let result = client.personalise(request)?;
    println!("[{} ms] personalised: {result:?} {:?}", at(), client.log);
    for line in lines {
        let mut request = if tty { terminal(&line) } else { shell(&line) };
        request.user.clone_from(&user);
        let started = Instant::now();
        let outcome = client.exec(request, b"")?;
        println!(
            "[{} ms] {line} -> {:?} in {} ms\n{}{}",
            at(),
            outcome.code(),
            started.elapsed().as_millis(),
            outcome.text(),
            String::from_utf8_lossy(&outcome.stderr)
        );
    }
    let over = |message: &FromGuest| match message {
        FromGuest::Docker(DockerState::Starting) => None,
        FromGuest::Docker(state) => Some(state.clone()),
        _ => None,
    };
    if wait_docker {
        let seen = client.log.iter().find_map(over);
        let state = seen.map_or_else(|| client.until(over), Ok)?;
        println!("[{} ms] docker: {state:?}", at());
    }
    println!("log: {:?}", client.log);
    if shutdown {
        client.send(&ToGuest::Shutdown { grace_ms: 3000 })?;
        let end = client.until(|_| None::<()>);
        println!("[{} ms] channel ended: {end:?}", at());
    }
    Ok(())
}
