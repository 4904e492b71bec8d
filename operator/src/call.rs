//! Calls to the API server: each with a time-out of its own, and with the outcomes that a decision rests on as variants.

use std::time::Duration;

use tokio::time::timeout;

/// How long one call to the API server may take. Longer than its own slowest healthy answer, shorter than the Lease.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a call did not give an answer that can be used. Nothing is known of its effect unless the variant says so.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No answer in time. It may have been done.
    #[error("{what}: no answer in time; it may have been done")]
    TimedOut {
        /// What was asked for.
        what: &'static str,
    },
    /// The version or the UID that it was conditional on is not the present one. Nothing was done.
    #[error("{what}: decided on an older version")]
    Conflict {
        /// What was asked for.
        what: &'static str,
    },
    /// There is no such object. Nothing was done.
    #[error("{what}: not found")]
    NotFound {
        /// What was asked for.
        what: &'static str,
    },
    /// An object of that name exists. Nothing was done.
    #[error("{what}: a name is taken")]
    Exists {
        /// What was asked for.
        what: &'static str,
    },
    /// The API server refused it. Nothing was done.
    #[error("{what}: {message}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Status code.
        code: u16,
        /// The API server's own words.
        message: String,
    },
    /// The way to the API server failed. It may have been done.
    #[error("{what}: {source}")]
    Transport {
        /// What was asked for.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// A sidecar did not do what it was asked.
    #[error(transparent)]
    Sidecar(#[from] crate::sidecar_client::SidecarError),
    /// The call was not made: something that it needs is missing.
    #[error("{what}: {missing}")]
    Missing {
        /// What was to be done.
        what: &'static str,
        /// What is missing, and the remedy if a person has one.
        missing: String,
    },
}

/// Makes one call to the API server.
///
/// # Errors
/// [`CallError`], named after `what`.
pub async fn api<T>(
    what: &'static str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallError> {
    match timeout(PATIENCE, call).await {
        Ok(answer) => answer.map_err(|error| classify(what, error)),
        Err(_) => Err(CallError::TimedOut { what }),
    }
}

fn classify(what: &'static str, error: kube::Error) -> CallError {
    match error {
        kube::Error::Api(status) if status.is_not_found() => CallError::NotFound { what },
        kube::Error::Api(status) if status.is_already_exists() => CallError::Exists { what },
        kube::Error::Api(status) if status.is_conflict() => CallError::Conflict { what },
        kube::Error::Api(status) => {
            CallError::Refused { what, code: status.code, message: status.message.clone() }
        }
        source => CallError::Transport { what, source: Box::new(source) },
    }
}

/// `None` where the object does not exist.
///
/// # Errors
/// All but [`CallError::NotFound`].
pub fn optional<T>(answer: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(CallError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
