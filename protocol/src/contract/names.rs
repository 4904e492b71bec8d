//! Names that travel in paths and bodies of the contract. They are checked once, where they come in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Not a [`PartName`].
    #[error("a part's name has 1 to 63 characters of a-z, 0-9, '.', '_' and '-'")]
    Part,
    /// Not a [`Name`].
    #[error("the name of a capture or import has 1 to 64 characters of A-Z, a-z, 0-9, '_' and '-'")]
    Name,
}

/// Name of one part of a state: `state`, `dictionary`, `table.<name>` or any other `[a-z0-9._-]{1,63}`, except `.`
/// and `..`, which would not survive as a segment of a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PartName(String);

/// Name of a capture (chosen by the worker) or of an import (chosen by the sidecar): `[A-Za-z0-9_-]{1,64}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl PartName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PartName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
        let sound =
            (1..=63).contains(&text.len()) && text.bytes().all(allowed) && text != "." && text != "..";
        if sound { Ok(Self(text.to_owned())) } else { Err(BadName::Part) }
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let sound = (1..=64).contains(&text.len()) && text.bytes().all(allowed);
        if sound { Ok(Self(text.to_owned())) } else { Err(BadName::Name) }
    }
}

macro_rules! text_form {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = BadName;

            fn try_from(text: String) -> Result<Self, BadName> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_form!(PartName);
text_form!(Name);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_names_keep_to_their_alphabet_and_length() {
        for good in ["state", "dictionary", "table.orders", "a", "0-_.", &"x".repeat(63)] {
            assert!(good.parse::<PartName>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "State", "a/b", "a b", "é", "a\n", &"x".repeat(64)] {
            assert_eq!(bad.parse::<PartName>(), Err(BadName::Part), "{bad:?}");
        }
    }

    #[test]
    fn names_of_captures_and_imports_are_one_path_segment() {
        assert!("h-3_Ab9".parse::<Name>().is_ok());
        for bad in ["", "a.b", "a/b", "..", "a%2f", &"x".repeat(65)] {
            assert_eq!(bad.parse::<Name>(), Err(BadName::Name), "{bad:?}");
        }
    }

    #[test]
    fn a_bad_name_in_a_body_is_refused_while_reading() {
        assert!(serde_json::from_str::<PartName>("\"table.a\"").is_ok());
        assert!(serde_json::from_str::<PartName>("\"../etc\"").is_err());
        assert!(serde_json::from_str::<Name>("\"\"").is_err());
    }
}
