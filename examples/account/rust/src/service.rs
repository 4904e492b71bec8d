//! What all versions have in common: the table of bookings, what clients may ask, and the worker around it.

use std::collections::BTreeMap;
use std::sync::Arc;

use processhub_sdk::axum::extract::State;
use processhub_sdk::axum::http::StatusCode;
use processhub_sdk::axum::routing::{get, post, put};
use processhub_sdk::axum::{Json, Router};
use processhub_sdk::{
    Imported, OldVsn, Record, Refusal, Steps, Table, Tables, Track, Tracked, TrackedPart, Value as Held,
    Worker,
};
use serde::Deserialize;
use serde_json::Value;

/// Answered in every state of the worker.
pub(crate) const HEALTH: &str = "/healthz";
/// Most that is booked at once.
const MAX_AMOUNT: u64 = 1_000_000_000;
/// Longest `id` of a deposit, in bytes.
const MAX_ID: usize = 256;

type Refused = (StatusCode, &'static str);

/// What makes a version: the form of its state, its answer, and the ways to this form.
pub trait Version: Record + Default {
    /// Its `@vsn`.
    const VSN: &'static str;

    /// Whether there is another currency than EUR.
    const CURRENCIES: bool = false;

    /// What there is.
    fn amount(&self) -> u64;

    /// There is something else.
    fn set_amount(&mut self, amount: u64);

    /// What clients are answered.
    fn show(&self) -> Value;

    /// It is in another currency, where a version has any.
    fn set_currency(&mut self, _currency: String) {}

    /// How states of other versions become one of this version.
    fn steps() -> Steps;
}

#[derive(Clone, Default)]
struct Holdings<V: Version> {
    account: Held<V>,
    bookings: Table<String, u64>,
}

impl<V: Version> Tables for Holdings<V> {
    fn parts(&mut self) -> Vec<(&'static str, &mut dyn TrackedPart)> {
        vec![("state", &mut self.account), ("table.bookings", &mut self.bookings)]
    }
}

/// An account of one version.
pub struct Account<V: Version> {
    holdings: Tracked<Holdings<V>>,
    steps: Steps,
}

impl<V: Version> Account<V> {
    /// An empty account.
    #[must_use]
    pub fn new() -> Self {
        Self { holdings: Tracked::new(Holdings::default()), steps: V::steps() }
    }
}

impl<V: Version> Default for Account<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: Version> Worker for Account<V> {
    type State = ();

    fn tracked(&self) -> Option<&dyn Track> {
        Some(&self.holdings)
    }

    fn vsn(&self) -> String {
        V::VSN.to_owned()
    }

    fn accepts_from(&self) -> Vec<String> {
        self.steps.accepts_from()
    }

    fn code_change(&self, from: &OldVsn, state: Imported, extra: &Value) -> Result<Imported, Refusal> {
        self.steps.convert(from, state, extra)
    }
}

pub(crate) fn clients<V: Version>(account: Arc<Account<V>>) -> Router {
    let router =
        if V::CURRENCIES { Router::new().route("/currency", put(currency::<V>)) } else { Router::new() };
    router
        .route("/deposit", post(deposit::<V>))
        .route("/balance", get(balance::<V>))
        .route("/bookings", get(bookings::<V>))
        .route(HEALTH, get(async || "ok\n"))
        .with_state(account)
}

#[derive(Deserialize)]
struct Deposit {
    amount: u64,
    id: Option<String>,
}

async fn deposit<V: Version>(
    State(account): State<Arc<Account<V>>>,
    Json(Deposit { amount, id }): Json<Deposit>,
) -> Result<Json<Value>, Refused> {
    if amount == 0 || amount > MAX_AMOUNT {
        return Err((StatusCode::BAD_REQUEST, "`amount` is 1 to 1000000000\n"));
    }
    if id.as_ref().is_some_and(|id| id.len() > MAX_ID) {
        return Err((StatusCode::BAD_REQUEST, "`id` has at most 256 bytes\n"));
    }
    account.holdings.change(|holdings| {
        if id.as_ref().is_none_or(|id| !holdings.bookings.contains_key(id)) {
            let sum = holdings.account.amount().checked_add(amount);
            holdings
                .account
                .set_amount(sum.ok_or((StatusCode::INSUFFICIENT_STORAGE, "the account is full\n"))?);
            if let Some(id) = id {
                holdings.bookings.insert(id, amount);
            }
        }
        Ok(Json(holdings.account.show()))
    })
}

async fn balance<V: Version>(State(account): State<Arc<Account<V>>>) -> Json<Value> {
    Json(account.holdings.read(|holdings| holdings.account.show()))
}

async fn bookings<V: Version>(State(account): State<Arc<Account<V>>>) -> Json<BTreeMap<String, u64>> {
    let bookings = account.holdings.read(|holdings| holdings.bookings.clone());
    Json(bookings.iter().map(|(id, amount)| (id.clone(), *amount)).collect())
}

/// Another currency. Version 2 then refuses the state: it cannot hold it.
async fn currency<V: Version>(
    State(account): State<Arc<Account<V>>>,
    text: String,
) -> Result<StatusCode, Refused> {
    if text.len() != 3 || !text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
        return Err((StatusCode::BAD_REQUEST, "a currency has three letters\n"));
    }
    account.holdings.change(|holdings| holdings.account.set_currency(text.to_ascii_uppercase()));
    Ok(StatusCode::NO_CONTENT)
}
