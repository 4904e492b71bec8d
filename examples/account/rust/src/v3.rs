//! Version 3: there is a currency. A state of version 1 comes through 2.

use processhub_sdk::{Imported, Part, Refusal, Steps};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::service::Version;
use crate::{v1, v2};

/// Its `@vsn`.
pub const VSN: &str = "3";
/// The only currency that there was before.
pub(crate) const EUR: &str = "EUR";

/// The part `state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holding {
    /// What there is.
    pub salary: u64,
    /// In which currency.
    pub currency: String,
}

impl Default for Holding {
    fn default() -> Self {
        Self { salary: 0, currency: EUR.to_owned() }
    }
}

impl Version for Holding {
    const VSN: &'static str = VSN;
    const CURRENCIES: bool = true;

    fn amount(&self) -> u64 {
        self.salary
    }

    fn set_amount(&mut self, amount: u64) {
        self.salary = amount;
    }

    fn show(&self) -> Value {
        json!({ "salary": self.salary, "currency": self.currency })
    }

    fn set_currency(&mut self, currency: String) {
        self.currency = currency;
    }

    fn steps() -> Steps {
        Steps::to(VSN).step(v1::VSN, v2::VSN, v2::rename).step(v2::VSN, VSN, add_currency)
    }
}

fn add_currency(mut state: Imported, _: &Value) -> Result<Imported, Refusal> {
    let v2::Holding { salary } = state.json("state")?;
    state.set(Part::json("state", &Holding { salary, ..Holding::default() })?);
    Ok(state)
}
