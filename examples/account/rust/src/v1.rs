//! Version 1: the account holds `money`, and says how much there is as a bare number.

use processhub_sdk::{Imported, Part, Refusal, Steps};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::service::Version;
use crate::v2;

/// Its `@vsn`.
pub const VSN: &str = "1";

/// The part `state`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holding {
    /// What there is.
    pub money: u64,
}

impl Version for Holding {
    const VSN: &'static str = VSN;

    fn amount(&self) -> u64 {
        self.money
    }

    fn set_amount(&mut self, amount: u64) {
        self.money = amount;
    }

    fn show(&self) -> Value {
        json!(self.money)
    }

    fn steps() -> Steps {
        Steps::to(VSN).step(v2::VSN, VSN, back)
    }
}

/// `code_change({down, "2"}, state, extra)` of the article.
fn back(mut state: Imported, _: &Value) -> Result<Imported, Refusal> {
    let v2::Holding { salary } = state.json("state")?;
    state.set(Part::json("state", &Holding { money: salary })?);
    Ok(state)
}
