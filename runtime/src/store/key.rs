//! Names of token prefixes: what makes a stored state found, and only by the session it fits.
use std::fmt;

/// Tokens that share one step of the hash chain. Kept boundaries are found by the chain value of
/// the last full block before them.
pub const BLOCK: u64 = 128;

/// A blake3 hash: of an identity, or of an identity and a token prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; 32]);

impl Key {
    /// Reads the 64 hexadecimal digits that [`fmt::Display`] writes, and no other spelling of them: a
    /// file that is not named as the store names it is none of the store's.
    pub fn parse(text: &str) -> Option<Key> {
        let key = Key(*blake3::Hash::from_hex(text).ok()?.as_bytes());
        (key.to_string() == text).then_some(key)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// The keys of all prefixes of a token sequence, at one hash per [`BLOCK`] tokens.
///
/// `chain(0) = root`, `chain(i + 1) = blake3(chain(i), tokens of block i)`, and the key at
/// position p is `blake3(chain(p / 128), remaining tokens)`. The two inputs differ in length, so
/// no key is a chain value. How the sequence was cut into saves does not enter.
pub struct Chain<'a> {
    tokens: &'a [u32],
    blocks: Vec<Key>,
}

impl<'a> Chain<'a> {
    /// The chain of `tokens` under `root`, the key of a [`super::Layout`].
    pub fn new(root: Key, tokens: &'a [u32]) -> Chain<'a> {
        let full = tokens.chunks_exact(BLOCK as usize);
        let next = |last: &mut Key, block| {
            *last = hash(*last, block);
            Some(*last)
        };
        let blocks = std::iter::once(root).chain(full.scan(root, next)).collect();
        Chain { tokens, blocks }
    }

    /// The whole sequence.
    pub fn tokens(&self) -> &'a [u32] {
        self.tokens
    }

    /// Number of tokens.
    pub fn len(&self) -> u64 {
        self.tokens.len() as u64
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// The chain value of the full blocks before `position`.
    pub fn block(&self, position: u64) -> Key {
        self.blocks[(position / BLOCK) as usize]
    }

    /// The key of the first `position` tokens.
    pub fn key(&self, position: u64) -> Key {
        let start = position - position % BLOCK;
        hash(self.block(position), &self.tokens[start as usize..position as usize])
    }
}

fn hash(before: Key, tokens: &[u32]) -> Key {
    let mut bytes = Vec::with_capacity(32 + 4 * tokens.len());
    bytes.extend_from_slice(&before.0);
    super::bytes::put_tokens(&mut bytes, tokens);
    Key(*blake3::hash(&bytes).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_root_and_tokens_only() {
        let tokens: Vec<u32> = (0..700).collect();
        let root = Key([7; 32]);
        let long = Chain::new(root, &tokens);
        for p in [0, 1, 127, 128, 129, 255, 256, 699, 700] {
            assert_eq!(Chain::new(root, &tokens[..p as usize]).key(p), long.key(p), "{p}");
        }
        assert_ne!(Chain::new(Key([8; 32]), &tokens).key(700), long.key(700));
        let mut other = tokens.clone();
        other[130] = 0;
        assert_eq!(Chain::new(root, &other).key(130), long.key(130));
        assert_ne!(Chain::new(root, &other).key(131), long.key(131));
        let name = long.key(9).to_string();
        assert_eq!(Key::parse(&name), Some(long.key(9)));
        assert_eq!(Key::parse(&name.to_uppercase()), None);
    }
}
