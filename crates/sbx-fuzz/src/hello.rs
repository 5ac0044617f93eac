//! The first message of a TLS client.

use bytes::Bytes;
use sbx_gateway::adapter::hello::{Prefixed, read_hello};
use sbx_policy::Host;
use tokio::io::AsyncReadExt;

use crate::gateway::block_on;

/// A hello that is understood begins as one, its name is canonical, and nothing of it is lost for whoever goes on.
pub(crate) fn run(bytes: &[u8]) {
    let stream = tokio::io::join(bytes, tokio::io::sink());
    let read = block_on(read_hello(Prefixed::new(Bytes::new(), stream)));
    let Ok((hello, mut stream)) = read else {
        return;
    };
    assert_eq!(bytes[0], 0x16, "a handshake record");
    let mut again = hello.seen.to_vec();
    block_on(stream.read_to_end(&mut again)).expect("bytes in memory");
    assert_eq!(again, bytes, "nothing is lost");
    if let Some(name) = hello.server_name {
        assert_eq!(
            Host::parse(&name.to_string()),
            Ok(name.clone()),
            "canonical"
        );
    }
}
