//! A client for bringing machines up by hand: `attach SOCKET status|watch|stop|exec ARGS…`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example for people"
)]

use sbx_wire::frame::{self, Decoder};
use sbx_wire::guest::{ExecRequest, Stream};
use sbx_wire::session::{FromClient, Reply, Request, ToClient};
use std::error::Error;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [socket, verb, rest @ ..] = args.as_slice() else {
        return Err("SOCKET VERB".into());
    };
    let mut stream = UnixStream::connect(socket)?;
    match verb.as_str() {
        "exec" | "exec-stdin" => return exec(stream, rest, verb == "exec-stdin"),
        "status" => stream.write_all(&frame::encode(0, &Request::Status)?)?,
        "watch" => stream.write_all(&frame::encode(0, &Request::Watch)?)?,
        "stop" => stream.write_all(&frame::encode(0, &Request::Stop { grace_ms: 10_000 })?)?,
        other => return Err(format!("{other}?").into()),
    }
    let mut decoder = Decoder::new(0);
    while let Some(reply) = next::<Reply>(&mut stream, &mut decoder)? {
        println!("{reply:?}");
    }
    Ok(ExitCode::SUCCESS)
}

fn next<T: serde::de::DeserializeOwned>(
    stream: &mut UnixStream,
    decoder: &mut Decoder,
) -> Result<Option<T>, Box<dyn Error>> {
    loop {
        if let Some(message) = decoder.next()? {
            return Ok(Some(message));
        }
        let mut piece = vec![0; 64 << 10];
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Ok(None);
        }
        decoder.push(&piece[..count]);
    }
}

fn exec(mut stream: UnixStream, argv: &[String], stdin: bool) -> Result<ExitCode, Box<dyn Error>> {
    let request = ExecRequest {
        argv: argv.iter().map(|arg| arg.clone().into_bytes()).collect(),
        env: Vec::new(),
        workdir: None,
        user: None,
        terminal: None,
        stdin,
    };
    stream.write_all(&frame::encode(0, &Request::Exec(request))?)?;
    if stdin {
        let mut copy = stream.try_clone()?;
        std::thread::spawn(move || -> std::io::Result<()> {
            let mut piece = vec![0; frame::CHUNK];
            loop {
                let count = std::io::stdin().read(&mut piece)?;
                let message = match count {
                    0 => FromClient::StdinEof,
                    count => FromClient::Stdin(piece[..count].to_vec()),
                };
                let bytes = frame::encode(0, &message).map_err(std::io::Error::other)?;
                copy.write_all(&bytes)?;
                if count == 0 {
                    return Ok(());
                }
            }
        });
    }
    let mut decoder = Decoder::new(0);
    loop {
        match next::<ToClient>(&mut stream, &mut decoder)? {
            Some(ToClient::Started) => {}
            Some(ToClient::Output(Stream::Stdout, data)) => std::io::stdout().write_all(&data)?,
            Some(ToClient::Output(Stream::Stderr, data)) => std::io::stderr().write_all(&data)?,
            Some(ToClient::Exited(status)) => return Ok(status.code().into()),
            Some(other) => {
                eprintln!("{other:?}");
                return Ok(125.into());
            }
            None => return Err("the supervisor closed the connection".into()),
        }
    }
}
