//! Version 2: `money` has become `salary`, and the answer says what it is.

use processhub_sdk::{Imported, Part, Refusal, Steps};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::service::Version;
use crate::{v1, v3};

/// Its `@vsn`.
pub const VSN: &str = "2";

/// The part `state`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holding {
    /// What there is.
    pub salary: u64,
}

impl Version for Holding {
    const VSN: &'static str = VSN;

    fn amount(&self) -> u64 {
        self.salary
    }

    fn set_amount(&mut self, amount: u64) {
        self.salary = amount;
    }

    fn show(&self) -> Value {
        json!({ "salary": self.salary })
    }

    fn steps() -> Steps {
        Steps::to(VSN).step(v1::VSN, VSN, rename).step(v3::VSN, VSN, back)
    }
}

/// Up from 1. `extra` is what the hub's upgrade passes: a bonus for everyone who comes along.
pub(crate) fn rename(mut state: Imported, extra: &Value) -> Result<Imported, Refusal> {
    let v1::Holding { money } = state.json("state")?;
    let bonus = extra["bonus"].as_u64().unwrap_or(0);
    let salary = money.checked_add(bonus).ok_or_else(|| {
        Refusal::cannot_accept("the bonus does not fit into the account: lower spec.upgrade.extra.bonus")
    })?;
    state.set(Part::json("state", &Holding { salary })?);
    Ok(state)
}

fn back(mut state: Imported, _: &Value) -> Result<Imported, Refusal> {
    let v3::Holding { salary, currency } = state.json("state")?;
    if currency != v3::EUR {
        return Err(Refusal::cannot_accept(
            "version 2 knows no currency but EUR: change the account's currency first",
        ));
    }
    state.set(Part::json("state", &Holding { salary })?);
    Ok(state)
}
