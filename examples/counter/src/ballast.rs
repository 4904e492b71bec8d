//! Bytes that do nothing but weigh: they make a state as large as a test wants it, and show when it was damaged.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes that are made and held at a time.
const PIECE: usize = 1 << 20;

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

/// `size` bytes that depend on `seed`, and that no compressor makes smaller.
#[must_use]
pub fn make(seed: &str, size: u64) -> Vec<Bytes> {
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
    pieces
}

/// Looks at every byte of a ballast that had the digest `made_as` when the process began.
#[must_use]
pub fn weigh(pieces: &[Bytes], made_as: u64) -> Weight {
    let digest = digest(pieces);
    Weight {
        bytes: pieces.iter().map(|piece| piece.len() as u64).sum(),
        digest: format!("{digest:016x}"),
        intact: digest == made_as,
    }
}

/// Of the bytes, however they are cut.
#[must_use]
pub fn digest(pieces: &[Bytes]) -> u64 {
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
            let pieces = make("a", size);
            let weight = weigh(&pieces, digest(&pieces));
            assert_eq!((weight.bytes, weight.intact), (size, true));
        }
    }

    #[test]
    fn differs_from_process_to_process() {
        assert_ne!(digest(&make("a", 100)), digest(&make("b", 100)));
    }

    #[test]
    fn shows_a_missing_or_changed_byte_and_not_how_it_was_cut() {
        let pieces = make("a", 100);
        let (whole, made_as) = (pieces.concat(), digest(&pieces));
        let intact = |pieces: &[Bytes]| weigh(pieces, made_as).intact;
        assert!(intact(&[Bytes::copy_from_slice(&whole[..3]), Bytes::copy_from_slice(&whole[3..])]));
        assert!(!intact(&[Bytes::copy_from_slice(&whole[1..])]));
        let mut changed = whole;
        changed[50] ^= 1;
        assert!(!intact(&[Bytes::from(changed)]));
    }
}
