//! An account whose code changes while it lives, after the usual example of hot code swapping: version 1 holds `money` and
//! answers with a bare number, version 2 calls it `salary` and says so in its answer, version 3 adds a currency.
//!
//! | request | |
//! |---|---|
//! | `POST /deposit {"amount", "id"}` | books once for each `id`; the balance |
//! | `GET /balance` | the same, without a deposit |
//! | `GET /bookings` | `{id: amount}` |
//! | `PUT /currency` | version 3: a currency of three letters, as text |
//! | `GET /healthz` | 200 in every state |
//!
//! `ACCOUNT_VSN` is the version that starts. The same account in Python is beside this one.

mod service;
pub mod v1;
pub mod v2;
pub mod v3;

use std::sync::Arc;

use anyhow::bail;
use processhub_sdk::Config;

pub use service::{Account, Version};

/// Serves an account of that version until SIGTERM.
///
/// # Errors
/// When there is no such version, an address is not to be had, or serving ends by itself.
pub async fn run(vsn: &str, at: Config) -> anyhow::Result<()> {
    match vsn {
        v1::VSN => serve::<v1::Holding>(at).await,
        v2::VSN => serve::<v2::Holding>(at).await,
        v3::VSN => serve::<v3::Holding>(at).await,
        other => bail!("ACCOUNT_VSN: `{other}` is no version of the account: 1, 2 or 3"),
    }
}

async fn serve<V: Version>(at: Config) -> anyhow::Result<()> {
    let account = Arc::new(Account::<V>::new());
    let clients = service::clients(Arc::clone(&account));
    Ok(processhub_sdk::run(account, clients, at.probes([service::HEALTH])).await?)
}
