//! What placeholders look like: as the keys that clients accept, random for each sandbox.

/// Characters of a random part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alphabet {
    /// Letters, digits, `-` and `_`.
    UrlSafe,
    /// Digits and letters.
    Base62,
    /// Capital letters and 2 to 7 (RFC 4648, section 6).
    Base32,
    /// Lower-case hexadecimal digits.
    Hex,
}

/// A part of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// The same in every key.
    Text(&'static str),
    /// So many characters that differ from key to key.
    Random(Alphabet, usize),
    /// What GitHub puts behind the random part: its CRC-32 as six digits in base 62, which clients verify without asking.
    GithubChecksum,
}

/// All parts of a key, in order.
pub type Shape = &'static [Piece];

impl Alphabet {
    const fn characters(self) -> &'static [u8] {
        match self {
            Self::UrlSafe => b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
            Self::Base62 => BASE62,
            Self::Base32 => b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567",
            Self::Hex => b"0123456789abcdef",
        }
    }
}

const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A new text of this shape. `fill` gives random bytes.
///
/// # Errors
/// That of `fill`.
pub fn render<E>(
    shape: Shape,
    mut fill: impl FnMut(&mut [u8]) -> Result<(), E>,
) -> Result<String, E> {
    let mut text = String::new();
    let mut last_random = String::new();
    for piece in shape {
        match piece {
            Piece::Text(fixed) => text.push_str(fixed),
            Piece::Random(alphabet, length) => {
                last_random = random(*alphabet, *length, &mut fill)?;
                text.push_str(&last_random);
            }
            Piece::GithubChecksum => text.push_str(&checksum(&last_random)),
        }
    }
    Ok(text)
}

/// So many random characters. `fill` gives random bytes. With 62 characters the first eight come a little more often,
/// which takes less than a hundredth of a bit from each.
///
/// # Errors
/// That of `fill`.
pub fn random<E>(
    alphabet: Alphabet,
    length: usize,
    mut fill: impl FnMut(&mut [u8]) -> Result<(), E>,
) -> Result<String, E> {
    let characters = alphabet.characters();
    let mut bytes = vec![0; length];
    fill(&mut bytes)?;
    Ok(bytes
        .iter()
        .map(|byte| char::from(characters[usize::from(*byte) % characters.len()]))
        .collect())
}

fn checksum(text: &str) -> String {
    let mut number = crc32(text.as_bytes());
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(number % 62) as usize];
        number /= 62;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// CRC-32 as in ISO/IEC 3309 (reflected, polynomial 0xedb88320).
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_github() {
        // From the text that announced the format, and the check value of CRC-32.
        assert_eq!(checksum("zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ"), "0mLq17");
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn pieces_come_in_order_and_the_checksum_is_of_the_random_part() {
        let shape: Shape = &[
            Piece::Text("a_"),
            Piece::Random(Alphabet::Hex, 4),
            Piece::GithubChecksum,
        ];
        let text = render(shape, |bytes| {
            bytes.fill(0x1f);
            Ok::<_, ()>(())
        });
        let text = text.unwrap_or_default();
        assert_eq!(text, format!("a_ffff{}", checksum("ffff")));
        assert!(render(shape, |_| Err(())).is_err());
    }
}
