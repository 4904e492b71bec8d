//! Waiting for something to become true, with a bound and with words when it does not.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Looks every 100 ms until `look` gives a value, at most `bound`. `look` answers with what it is waiting for.
///
/// # Errors
/// When the bound passes: what was waited for, and what was seen last. Errors of `look` count as not yet.
pub async fn until<T, F, Fut>(what: &str, bound: Duration, mut look: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<Seen<T>>>,
{
    let end = Instant::now() + bound;
    loop {
        let last = match look().await {
            Ok(Seen::Yes(value)) => return Ok(value),
            Ok(Seen::NotYet(last)) => last,
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() >= end {
            bail!("waited {} s for {what}; last seen: {last}", bound.as_secs());
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// What a look gave.
pub enum Seen<T> {
    /// It is true.
    Yes(T),
    /// Not yet; this is how it is.
    NotYet(String),
}
