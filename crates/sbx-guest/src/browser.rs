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
const MAX_ANSWER: u64 = 8 << 10;
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
    match gateway().and_then(|gateway| ask(gateway, address.as_bytes())) {
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
fn ask(gateway: Ipv4Addr, address: &[u8]) -> io::Result<Option<String>> {
    let mut stream = TcpStream::connect((gateway, PROXY_PORT))?;
    stream.set_read_timeout(Some(LIMIT))?;
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: {gateway}:{PROXY_PORT}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        address.len()
    );
    stream.write_all(&[head.as_bytes(), address].concat())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, text) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let opened = head.split(' ').nth(1) == Some("200");
    Ok((!opened).then(|| text.trim().to_owned()))
}

fn say(text: &str) {
    // Whoever called may have closed it.
    let _ = writeln!(io::stderr(), "xdg-open: {text}");
}
