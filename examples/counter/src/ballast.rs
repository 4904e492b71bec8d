//! Bytes that do nothing but weigh: they make a state as large as a test wants it, and show when it was damaged.

use bytes::Bytes;
use processhub_sdk::{PartSource, Pieces};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes that are made and held at a time.
const PIECE: usize = 1 << 20;

/// The bytes, with the digest that they had when they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ballast {
    pieces: Vec<Bytes>,
    made_as: u64,
}

/// What a ballast is and was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weight {
    /// How many bytes there are.
    pub bytes: u64,
    /// Their digest now.
    pub digest: String,
    /// Whether that is the digest that they had when the process began.
    pub intact: bool,
}

impl Ballast {
    /// `size` bytes that depend on `seed`, and that no compressor makes smaller.
    #[must_use]
    pub fn make(seed: &str, size: u64) -> Self {
        let mut state = xxh3_64(seed.as_bytes()) | 1;
        let mut next = || {
            // xorshift64: cheap, and never the same block twice.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        let mut pieces = Vec::new();
        let mut rest = size;
        while rest > 0 {
            let length = usize::try_from(rest).unwrap_or(PIECE).min(PIECE);
            let mut piece = Vec::with_capacity(length + 8);
            while piece.len() < length {
                piece.extend_from_slice(&next());
            }
            piece.truncate(length);
            pieces.push(Bytes::from(piece));
            rest -= length as u64;
        }
        let made_as = digest(&pieces);
        Self { pieces, made_as }
    }

    /// Bytes that came in, with the digest that they are said to have had.
    #[must_use]
    pub fn received(pieces: Vec<Bytes>, made_as: u64) -> Self {
        Self { pieces, made_as }
    }

    /// The digest that the bytes had when they were made.
    #[must_use]
    pub fn made_as(&self) -> u64 {
        self.made_as
    }

    /// Looks at every byte.
    #[must_use]
    pub fn weigh(&self) -> Weight {
        let digest = digest(&self.pieces);
        Weight {
            bytes: self.pieces.size().unwrap_or_default(),
            digest: format!("{digest:016x}"),
            intact: digest == self.made_as,
        }
    }
}

impl PartSource for Ballast {
    fn size(&self) -> Option<u64> {
        self.pieces.size()
    }

    fn pieces(&self) -> Pieces {
        self.pieces.pieces()
    }
}

/// Of the bytes, however they are cut.
fn digest(pieces: &[Bytes]) -> u64 {
    let mut digest = Xxh3::new();
    for piece in pieces {
        digest.update(piece);
    }
    digest.digest()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_size_that_was_asked_for() {
        for size in [0, 1, 7, 1 << 20, (1 << 20) + 1] {
            let weight = Ballast::make("a", size).weigh();
            assert_eq!((weight.bytes, weight.intact), (size, true));
        }
    }

    #[test]
    fn differs_from_process_to_process() {
        assert_ne!(Ballast::make("a", 100).weigh().digest, Ballast::make("b", 100).weigh().digest);
    }

    #[test]
    fn shows_a_missing_or_changed_byte_and_not_how_it_was_cut() {
        let ballast = Ballast::make("a", 100);
        let whole = ballast.pieces.concat();
        let again = |bytes: Vec<Bytes>| Ballast::received(bytes, ballast.made_as()).weigh().intact;
        assert!(again(vec![Bytes::copy_from_slice(&whole[..3]), Bytes::copy_from_slice(&whole[3..])]));
        assert!(!again(vec![Bytes::copy_from_slice(&whole[1..])]));
        let mut changed = whole;
        changed[50] ^= 1;
        assert!(!again(vec![Bytes::from(changed)]));
    }
}
