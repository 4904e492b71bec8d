//! How the slices of an import become parts.
//!
//! A part grows only at its end; offset 0 starts it over. The slice that came last may come again, because its answer
//! may have been lost: an import's name stands for one captured state, so the same place holds the same bytes.

use std::collections::BTreeMap;

use super::{ErrorBody, ErrorCode, MAX_INTEGER, MAX_PARTS, MAX_SLICE, PartName, PartSize};

/// What has come in of one import.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assembly {
    parts: BTreeMap<PartName, Progress>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    have: u64,
    last: u64,
}

/// Where a slice belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is the first of its part; whatever the part held is void.
    Start,
    /// It continues its part.
    Append,
    /// It is the one that came last, again: there is nothing to do.
    Again,
}

impl Assembly {
    /// Where a slice of `length` bytes at `offset` of `part` belongs. Changes nothing: once the bytes are stored, tell
    /// it with [`Assembly::stored`].
    ///
    /// # Errors
    /// `WrongOffset` with what the part has, when the slice neither continues the part nor starts it over; `TooLarge`
    /// for a slice above [`MAX_SLICE`] or one part more than [`MAX_PARTS`].
    pub fn place(&self, part: &PartName, offset: u64, length: usize) -> Result<Place, ErrorBody> {
        if length > MAX_SLICE {
            return Err(ErrorBody::new(
                ErrorCode::TooLarge,
                &format!(
                    "the slice has {length} bytes, at most {MAX_SLICE} are taken at once: send smaller slices"
                ),
            ));
        }
        let end = offset.saturating_add(length as u64);
        if end > MAX_INTEGER {
            return Err(ErrorBody::new(ErrorCode::BadRequest, "`offset` and length exceed 2^53 - 1"));
        }
        let progress = self.parts.get(part).copied();
        if progress.is_none() && self.parts.len() >= MAX_PARTS {
            return Err(ErrorBody::new(
                ErrorCode::TooLarge,
                &format!("an import has at most {MAX_PARTS} parts: use fewer parts"),
            ));
        }
        let Progress { have, last } = progress.unwrap_or_default();
        if offset == 0 {
            Ok(Place::Start)
        } else if offset == have {
            Ok(Place::Append)
        } else if offset == last && end == have {
            Ok(Place::Again)
        } else {
            let message =
                format!("part `{part}` has {have} bytes, the slice begins at {offset}: continue at `have`");
            Err(ErrorBody { have: Some(have), ..ErrorBody::new(ErrorCode::WrongOffset, &message) })
        }
    }

    /// The bytes of a slice are stored at the place that [`Assembly::place`] gave.
    pub fn stored(&mut self, part: &PartName, offset: u64, length: usize) {
        let progress = Progress { have: offset.saturating_add(length as u64), last: offset };
        self.parts.insert(part.clone(), progress);
    }

    /// A part can no longer be continued, because storing a slice failed half-way: it has to start over.
    pub fn lost(&mut self, part: &PartName) {
        self.parts.remove(part);
    }

    /// Whether what came in is exactly `expected`. A part of no bytes needs no slice.
    ///
    /// # Errors
    /// `Incomplete` with the first part that differs.
    pub fn complete(&self, expected: &[PartSize]) -> Result<(), ErrorBody> {
        let incomplete = |message: &str| Err(ErrorBody::new(ErrorCode::Incomplete, message));
        for part in expected {
            let have = self.parts.get(&part.name).map_or(0, |progress| progress.have);
            if have != part.bytes {
                let bytes = part.bytes;
                return incomplete(&format!(
                    "part `{}` has {have} of {bytes} bytes: upload it whole",
                    part.name
                ));
            }
        }
        match self.parts.keys().find(|name| expected.iter().all(|part| &part.name != *name)) {
            Some(name) => incomplete(&format!("part `{name}` was uploaded and `parts` does not name it")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> PartName {
        text.parse().unwrap()
    }

    fn put(assembly: &mut Assembly, part: &str, offset: u64, length: usize) -> Result<Place, ErrorBody> {
        let place = assembly.place(&name(part), offset, length)?;
        if place != Place::Again {
            assembly.stored(&name(part), offset, length);
        }
        Ok(place)
    }

    fn size(part: &str, bytes: u64) -> PartSize {
        PartSize { name: name(part), bytes }
    }

    #[test]
    fn slices_in_order_make_a_part() {
        let mut import = Assembly::default();
        assert_eq!(put(&mut import, "state", 0, 8), Ok(Place::Start));
        assert_eq!(put(&mut import, "state", 8, 4), Ok(Place::Append));
        assert_eq!(put(&mut import, "table.a", 0, 3), Ok(Place::Start));
        assert_eq!(import.complete(&[size("state", 12), size("table.a", 3)]), Ok(()));
    }

    #[test]
    fn a_gap_or_an_old_slice_is_told_where_to_go_on() {
        let mut import = Assembly::default();
        assert_eq!(put(&mut import, "state", 4, 4).unwrap_err().have, Some(0));
        put(&mut import, "state", 0, 8).unwrap();
        put(&mut import, "state", 8, 8).unwrap();
        for offset in [4, 12, 17] {
            let refusal = put(&mut import, "state", offset, 4).unwrap_err();
            assert_eq!((refusal.code, refusal.have), (ErrorCode::WrongOffset, Some(16)), "{offset}");
        }
    }

    #[test]
    fn the_last_slice_may_come_again() {
        let mut import = Assembly::default();
        put(&mut import, "state", 0, 8).unwrap();
        put(&mut import, "state", 8, 8).unwrap();
        assert_eq!(put(&mut import, "state", 8, 8), Ok(Place::Again));
        assert!(put(&mut import, "state", 8, 7).is_err());
        assert_eq!(put(&mut import, "state", 16, 1), Ok(Place::Append));
        assert!(put(&mut import, "state", 8, 8).is_err(), "only the last one");
    }

    #[test]
    fn offset_zero_starts_over() {
        let mut import = Assembly::default();
        put(&mut import, "state", 0, 8).unwrap();
        put(&mut import, "state", 8, 8).unwrap();
        assert_eq!(put(&mut import, "state", 0, 5), Ok(Place::Start));
        assert_eq!(import.complete(&[size("state", 5)]), Ok(()));
    }

    #[test]
    fn a_part_that_was_lost_starts_over() {
        let mut import = Assembly::default();
        put(&mut import, "state", 0, 8).unwrap();
        import.lost(&name("state"));
        assert_eq!(put(&mut import, "state", 8, 8).unwrap_err().have, Some(0));
    }

    #[test]
    fn only_exactly_the_announced_parts_are_complete() {
        let mut import = Assembly::default();
        put(&mut import, "state", 0, 8).unwrap();
        assert_eq!(import.complete(&[size("state", 8), size("empty", 0)]), Ok(()));
        for wrong in
            [vec![size("state", 9)], vec![size("state", 7)], vec![], vec![size("state", 8), size("b", 1)]]
        {
            assert_eq!(import.complete(&wrong).unwrap_err().code, ErrorCode::Incomplete, "{wrong:?}");
        }
        assert_eq!(Assembly::default().complete(&[]), Ok(()), "an empty state is a state");
    }

    #[test]
    fn slices_parts_and_offsets_are_bounded() {
        let mut import = Assembly::default();
        assert_eq!(put(&mut import, "state", 0, MAX_SLICE + 1).unwrap_err().code, ErrorCode::TooLarge);
        assert_eq!(put(&mut import, "state", MAX_INTEGER, 1).unwrap_err().code, ErrorCode::BadRequest);
        assert_eq!(put(&mut import, "state", u64::MAX, 1).unwrap_err().code, ErrorCode::BadRequest);
        for n in 0..MAX_PARTS {
            put(&mut import, &format!("p{n}"), 0, 1).unwrap();
        }
        assert_eq!(put(&mut import, "more", 0, 1).unwrap_err().code, ErrorCode::TooLarge);
        assert_eq!(put(&mut import, "p0", 1, 1), Ok(Place::Append));
    }
}
