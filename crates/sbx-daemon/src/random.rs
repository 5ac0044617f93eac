//! Random identifiers, from the kernel.

use rustix::rand::{GetRandomFlags, getrandom};
use sbx_wire::report::Report;

/// Fills `bytes`.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), Report> {
    let mut done = 0;
    while done < bytes.len() {
        match getrandom(&mut bytes[done..], GetRandomFlags::empty()) {
            Ok(count) => done += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                return Err(Report::environment(
                    "random",
                    format!("the kernel gives no random bytes: {error}"),
                    "use a kernel with getrandom (Linux 3.17 or newer)",
                ));
            }
        }
    }
    Ok(())
}

/// So many lower-case hex digits.
pub(crate) fn hex(digits: usize) -> Result<String, Report> {
    let mut bytes = vec![0; digits.div_ceil(2)];
    fill(&mut bytes)?;
    let mut text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(digits);
    Ok(text)
}

/// A version 4 UUID (RFC 9562, 5.4).
pub(crate) fn uuid() -> Result<String, Report> {
    let mut bytes = [0; 16];
    fill(&mut bytes)?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    Ok(parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_have_their_form_and_differ() {
        let uuid = uuid().unwrap();
        assert_eq!(uuid.len(), 36);
        assert_eq!(&uuid[14..15], "4");
        assert_ne!(uuid, super::uuid().unwrap());
        assert_eq!(hex(12).unwrap().len(), 12);
    }
}
