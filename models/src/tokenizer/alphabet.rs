//! The printable alphabet of byte-level BPE: each of the 256 bytes has one character, and back.
//!
//! Bytes that are printable in Latin-1 stand for themselves; the others follow from U+0100 on, in
//! order (spec 5.1, the GPT-2 alphabet).

/// True for bytes that stand for the character of the same number.
fn is_printable(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

/// The character of every byte, in byte order.
pub(crate) fn chars() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        let byte = byte as u8;
        if is_printable(byte) {
            return char::from(byte);
        }
        let c = char::from_u32(next).expect("U+0100 to U+0143 are characters");
        next += 1;
        c
    })
}

/// The byte that `c` stands for, or `None` outside the alphabet.
fn byte(c: char) -> Option<u8> {
    let code = c as u32;
    match code {
        0..=0xff => is_printable(code as u8).then_some(code as u8),
        0x100..=0x143 => (0..=255u8).filter(|&b| !is_printable(b)).nth(code as usize - 0x100),
        _ => None,
    }
}

/// The bytes a token's text stands for: mapped back where every character belongs to the alphabet,
/// else its UTF-8.
pub(crate) fn bytes(token: &str) -> Vec<u8> {
    token.chars().map(byte).collect::<Option<Vec<u8>>>().unwrap_or_else(|| token.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_comes_back() {
        for (b, c) in chars().into_iter().enumerate() {
            assert_eq!(byte(c), Some(b as u8), "{c:?}");
        }
    }

    #[test]
    fn known_characters() {
        let chars = chars();
        assert_eq!((chars[0x20], chars[0x0a], chars[0xad], chars[0x41]), ('Ġ', 'Ċ', 'Ń', 'A'));
        assert_eq!(bytes("Ġhi"), b" hi");
        assert_eq!(bytes("｜"), "｜".as_bytes());
    }
}
