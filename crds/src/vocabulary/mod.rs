//! Every word that ProcessHub writes on objects, as closed enums with a stable text form.
//!
//! People and tools match on these texts, so that a text is never changed or given a second meaning.

mod events;
mod keys;
mod reasons;
mod types;

pub use events::EventReason;
pub use keys::{annotation, finalizer, label};
pub use reasons::{HubReason, LossReason, MoveReason, ProcessReason};
pub use types::{HubCondition, ProcessCondition, Status};

/// A text that is not a word of the vocabulary it was parsed as.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {vocabulary}")]
pub struct UnknownWord {
    /// The text as it was found.
    pub text: String,
    /// The name of the vocabulary.
    pub vocabulary: &'static str,
}

/// Defines a closed vocabulary: an enum whose text form is the same in JSON, in `Display` and in `FromStr`.
macro_rules! vocabulary {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize, schemars::JsonSchema,
        )]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)+
        }

        impl $name {
            /// Every word, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The stable text of the word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::vocabulary::UnknownWord;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|word| word.as_str() == text).ok_or_else(|| {
                    $crate::vocabulary::UnknownWord { text: text.to_owned(), vocabulary: stringify!($name) }
                })
            }
        }
    };
}
pub(crate) use vocabulary;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// The API server checks the reason of a condition against
    /// `^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$` and at most 1024 characters; an event's reason is at most 128.
    fn is_reason(text: &str) -> bool {
        text.len() <= 128
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    }

    fn texts<T: Copy>(all: &[T], as_str: fn(T) -> &'static str) -> Vec<&'static str> {
        all.iter().map(|word| as_str(*word)).collect()
    }

    #[test]
    fn every_word_is_distinct_and_accepted_by_the_api_server_as_a_reason() {
        for words in [
            texts(HubReason::ALL, HubReason::as_str),
            texts(ProcessReason::ALL, ProcessReason::as_str),
            texts(MoveReason::ALL, MoveReason::as_str),
            texts(LossReason::ALL, LossReason::as_str),
            texts(EventReason::ALL, EventReason::as_str),
            texts(HubCondition::ALL, HubCondition::as_str),
            texts(ProcessCondition::ALL, ProcessCondition::as_str),
        ] {
            let distinct: BTreeSet<_> = words.iter().collect();
            assert_eq!(distinct.len(), words.len(), "{words:?}");
            for word in words {
                assert!(is_reason(word), "{word}");
            }
        }
    }

    #[test]
    fn a_word_reads_back_from_its_text_and_from_json() {
        for word in ProcessReason::ALL {
            assert_eq!(word.as_str().parse(), Ok(*word));
            let json = serde_json::to_value(word).unwrap();
            assert_eq!(json, word.as_str());
            assert_eq!(serde_json::from_value::<ProcessReason>(json).unwrap(), *word);
        }
    }

    #[test]
    fn an_unknown_word_is_named_together_with_its_vocabulary() {
        let error = "Sleeping".parse::<ProcessReason>().unwrap_err();
        assert_eq!(error.to_string(), "\"Sleeping\" is not a ProcessReason");
    }

    #[test]
    fn the_seeds_words_keep_their_spelling() {
        assert_eq!(ProcessReason::NotAMember.as_str(), "not_a_member");
        assert_eq!(ProcessReason::NoTargetNodes.as_str(), "no_target_nodes");
        assert_eq!(ProcessReason::Draining.as_str(), "draining");
        assert_eq!(HubReason::AlreadyStarted.as_str(), "already_started");
    }
}
