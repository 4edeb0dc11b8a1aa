//! Token ids to text as they come, never half a character.
use super::Tokenizer;

/// Turns bytes that arrive in pieces into text.
///
/// The concatenation of everything returned equals `String::from_utf8_lossy` of all bytes.
#[derive(Clone, Debug, Default)]
pub struct Utf8Stream {
    pending: Vec<u8>,
}

impl Utf8Stream {
    /// Takes `bytes` and returns the text that is complete by now.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut start = 0;
        loop {
            let rest = &self.pending[start..];
            let (valid, bad) = match std::str::from_utf8(rest) {
                Ok(all) => (all.len(), None),
                Err(error) => (error.valid_up_to(), error.error_len()),
            };
            text.push_str(std::str::from_utf8(&rest[..valid]).expect("checked just above"));
            start += valid;
            let Some(bad) = bad else { break };
            text.push(char::REPLACEMENT_CHARACTER);
            start += bad;
        }
        self.pending.drain(..start);
        text
    }

    /// Ends the stream: an unfinished character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let rest = std::mem::take(&mut self.pending);
        String::from_utf8_lossy(&rest).into_owned()
    }
}

/// Decodes one sequence of ids.
#[derive(Clone, Debug)]
pub struct Decoder<'a> {
    tokenizer: &'a Tokenizer,
    stream: Utf8Stream,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer) -> Decoder<'a> {
        Decoder { tokenizer, stream: Utf8Stream::default() }
    }

    /// Takes the next id and returns the text that is complete by now, often empty.
    ///
    /// Control tokens give their spelling; an id outside the vocabulary gives U+FFFD.
    pub fn push(&mut self, id: u32) -> String {
        self.stream.push(self.tokenizer.piece(id).unwrap_or("\u{fffd}".as_bytes()))
    }

    /// Ends the sequence: an unfinished character becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        self.stream.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_split_gives_the_lossy_text() {
        let bytes = [b"a\xc3\xa9\xf0\x9f\x99".as_slice(), b"b\xff\xe6\x97\xa5\xe6\x97"].concat();
        let whole = String::from_utf8_lossy(&bytes).into_owned();
        for a in 0..=bytes.len() {
            for b in a..=bytes.len() {
                let mut stream = Utf8Stream::default();
                let mut text = stream.push(&bytes[..a]);
                text += &stream.push(&bytes[a..b]);
                text += &stream.push(&bytes[b..]);
                text += &stream.finish();
                assert_eq!(text, whole, "split at {a} and {b}");
            }
        }
    }

    #[test]
    fn half_a_character_waits() {
        let mut stream = Utf8Stream::default();
        assert_eq!(stream.push(b"x\xf0\x9f\x99"), "x");
        assert_eq!(stream.push(b"\x82"), "🙂");
        assert_eq!(stream.finish(), "");
    }
}
