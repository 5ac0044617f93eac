//! The opening of the channel: the host's preamble, and the guest's answer to exactly this one.

use super::GuestError;
use sbx_wire::guest::{OLDEST_VERSION, Preamble, VERSION};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// Sends the preamble and reads up to the guest's answer; whatever comes before it is stale. Returns the bytes
/// that followed it. Takes as long as the guest takes to boot: the caller sets the limit.
pub(super) async fn open(
    stream: &mut UnixStream,
    epoch: u32,
    nonce: [u8; 16],
) -> Result<Vec<u8>, GuestError> {
    let ours = Preamble {
        version: VERSION,
        epoch,
        nonce,
    };
    stream.write_all(&ours.encode_host()).await?;
    let mut pending = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let count = stream.read(&mut piece).await?;
        if count == 0 {
            return Err(GuestError::Closed);
        }
        pending.extend_from_slice(&piece[..count]);
        if let Some((answer, end)) = ours.find_answer(&pending) {
            if !(OLDEST_VERSION..=VERSION).contains(&answer.version) {
                return Err(GuestError::Version(answer.version));
            }
            return Ok(pending.split_off(end));
        }
        // What cannot be part of an answer any more is forgotten: a guest may send junk as long as it likes.
        let stale = pending.len().saturating_sub(Preamble::LEN - 1);
        pending.drain(..stale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answer_is_found_behind_junk_in_any_split_and_what_follows_is_kept() {
        let (mut host, mut guest) = UnixStream::pair().unwrap();
        let peer = async {
            let mut hello = [0; Preamble::LEN];
            guest.read_exact(&mut hello).await.unwrap();
            let (seen, _) = Preamble::find_host(&hello).unwrap();
            guest.write_all(&[0; 10_000]).await.unwrap();
            let stale = Preamble {
                nonce: [1; 16],
                ..seen
            };
            guest.write_all(&stale.encode_guest()).await.unwrap();
            for byte in seen.encode_guest() {
                guest.write_all(&[byte]).await.unwrap();
            }
            guest.write_all(b"frames").await.unwrap();
            guest
        };
        let (opened, _guest) = tokio::join!(open(&mut host, 3, [9; 16]), peer);
        let mut rest = opened.unwrap();
        while rest.len() < 6 {
            let mut more = [0; 6];
            let count = host.read(&mut more).await.unwrap();
            rest.extend_from_slice(&more[..count]);
        }
        assert_eq!(rest, b"frames");
    }

    #[tokio::test]
    async fn guest_of_a_future_version_is_refused() {
        let (mut host, mut guest) = UnixStream::pair().unwrap();
        let answer = Preamble {
            version: VERSION + 1,
            epoch: 3,
            nonce: [9; 16],
        }
        .encode_guest();
        guest.write_all(&answer).await.unwrap();
        let opened = open(&mut host, 3, [9; 16]).await;
        assert!(matches!(opened, Err(GuestError::Version(_))));
    }
}
