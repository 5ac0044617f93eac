//! The role of `xdg-open`: asks the host to open a page in its browser. The host judges the address; here it is
//! only carried there.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use sbx_wire::browser::PATH;
use sbx_wire::gateway::PROXY_PORT;

/// Address of the gateway, as text.
pub(crate) const GATEWAY: &str = "/run/sbx/gateway";
/// Names under which programs look for a browser.
pub const NAMES: [&str; 4] = [
    "xdg-open",
    "sensible-browser",
    "x-www-browser",
    "www-browser",
];
/// The host may take a moment to decide.
const LIMIT: Duration = Duration::from_secs(30);
/// Longest answer that is looked at, bytes.
const MAX_ANSWER: usize = 8 << 10;
/// Exit codes of xdg-open(1): an error in the command line, and the action failed.
const WRONG_USAGE: u8 = 1;
const FAILED: u8 = 4;

/// Asks for the first argument that is no option. The exit code.
pub fn run(args: impl Iterator<Item = OsString>) -> u8 {
    let mut args = args.filter(|arg| !arg.as_bytes().starts_with(b"-"));
    let Some(address) = args.next() else {
        say("usage: xdg-open http(s)://ADDRESS: opens a page in the host's browser");
        return WRONG_USAGE;
    };
    match ask(address.as_bytes()) {
        Ok(None) => 0,
        Ok(Some(problem)) => {
            say(&format!(
                "not opened: {problem}\nOpen it yourself: {}",
                address.display()
            ));
            FAILED
        }
        Err(error) => {
            say(&format!(
                "not opened: {error}\nOpen it yourself: {}",
                address.display()
            ));
            FAILED
        }
    }
}

fn gateway() -> io::Result<Ipv4Addr> {
    let text = fs::read_to_string(GATEWAY)?;
    text.trim().parse().map_err(io::Error::other)
}

/// `None`: it is open.
fn ask(address: &[u8]) -> io::Result<Option<String>> {
    let (status, text) = post(PATH, address, LIMIT, MAX_ANSWER)?;
    let text = String::from_utf8_lossy(&text);
    Ok((status != 200).then(|| text.trim().to_owned()))
}

/// Asks the gateway itself; status and body of its answer, which is cut off at `longest` bytes with its head.
pub(crate) fn post(
    path: &str,
    body: &[u8],
    limit: Duration,
    longest: usize,
) -> io::Result<(u16, Vec<u8>)> {
    let gateway = gateway()?;
    let mut stream = TcpStream::connect((gateway, PROXY_PORT))?;
    stream.set_read_timeout(Some(limit))?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {gateway}:{PROXY_PORT}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.as_bytes(), body].concat())?;
    let mut answer = Vec::new();
    stream.take(longest as u64).read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let (head, body) = answer.split_at(end.map_or(answer.len(), |at| at + 4));
    let status = std::str::from_utf8(head)
        .ok()
        .and_then(|head| head.split(' ').nth(1));
    let status = status.and_then(|status| status.parse().ok());
    Ok((status.unwrap_or_default(), body.to_vec()))
}

fn say(text: &str) {
    // Whoever called may have closed it.
    let _ = writeln!(io::stderr(), "xdg-open: {text}");
}
