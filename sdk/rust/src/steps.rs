//! From a state of one version to that of another, through those between.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;

use crate::import::Imported;
use crate::worker::{OldVsn, Refusal};

type Convert = Box<dyn Fn(Imported, &Value) -> Result<Imported, Refusal> + Send + Sync>;

/// Conversions of a state, each from one version to a neighbour, for [`crate::Worker::code_change`]. A state of a version
/// further away takes the shortest way through those between, so that nobody writes 1 to 3 who has 1 to 2 and 2 to 3.
///
/// ```
/// use processhub_sdk::{Imported, Part, Refusal, Steps};
/// use serde_json::{Value, json};
///
/// fn rename(mut state: Imported, _: &Value) -> Result<Imported, Refusal> {
///     let old: Value = state.json("state")?;
///     state.set(Part::json("state", &json!({ "salary": old["money"] }))?);
///     Ok(state)
/// }
///
/// let steps = Steps::to("3").step("1", "2", rename).step("2", "3", |state, _| Ok(state));
/// assert_eq!(steps.accepts_from(), ["2", "1"]);
/// ```
pub struct Steps {
    to: String,
    steps: Vec<Step>,
}

struct Step {
    from: String,
    to: String,
    convert: Convert,
}

impl Steps {
    /// Ways to the version that this code is.
    #[must_use]
    pub fn to(vsn: &str) -> Self {
        Self { to: vsn.to_owned(), steps: Vec::new() }
    }

    /// One more: how a state of the version `from` becomes one of `to`, up or down. The `extra` of the hub's upgrade is
    /// given to every step of a way. It must touch nothing but the state: it runs for a mere trial too.
    #[must_use]
    pub fn step(
        mut self,
        from: &str,
        to: &str,
        convert: impl Fn(Imported, &Value) -> Result<Imported, Refusal> + Send + Sync + 'static,
    ) -> Self {
        self.steps.push(Step { from: from.to_owned(), to: to.to_owned(), convert: Box::new(convert) });
        self
    }

    /// The versions from which there is a way, nearest first: for [`crate::Worker::accepts_from`].
    #[must_use]
    pub fn accepts_from(&self) -> Vec<String> {
        self.reached().0.into_iter().map(str::to_owned).collect()
    }

    /// Takes a state of another version all the way to this one: for [`crate::Worker::code_change`].
    ///
    /// # Errors
    /// That of the step that fails, and `CannotAccept` where there is no way.
    pub fn convert(&self, from: &OldVsn, mut state: Imported, extra: &Value) -> Result<Imported, Refusal> {
        let next = self.reached().1;
        let mut at = from.vsn();
        while at != self.to {
            let Some(step) = next.get(at) else {
                let message = format!("there is no way from version `{at}` to `{}`: add a step", self.to);
                return Err(Refusal::cannot_accept(&message));
            };
            state = (step.convert)(state, extra)
                .map_err(|refusal| refusal.about(&format!("from `{}` to `{}`", step.from, step.to)))?;
            at = &step.to;
        }
        Ok(state)
    }

    /// The versions from which there is a way, nearest first, and the first step of each.
    fn reached(&self) -> (Vec<&str>, BTreeMap<&str, &Step>) {
        let mut order = Vec::new();
        let mut next: BTreeMap<&str, &Step> = BTreeMap::new();
        let mut open = VecDeque::from([self.to.as_str()]);
        while let Some(at) = open.pop_front() {
            for step in self.steps.iter().filter(|step| step.to == at && step.from != self.to) {
                if !next.contains_key(step.from.as_str()) {
                    next.insert(&step.from, step);
                    order.push(step.from.as_str());
                    open.push_back(&step.from);
                }
            }
        }
        (order, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::Part;

    fn add(word: &'static str) -> impl Fn(Imported, &Value) -> Result<Imported, Refusal> + Send + Sync {
        move |mut state, extra| {
            let old: String = state.json("state")?;
            state.set(Part::json("state", &format!("{old} {word}{extra}"))?);
            Ok(state)
        }
    }

    fn taken(steps: &Steps, from: &OldVsn) -> Result<String, Refusal> {
        let mut state = Imported::default();
        state.set(Part::json("state", &"begun")?);
        steps.convert(from, state, &7.into())?.json("state")
    }

    fn up(vsn: &str) -> OldVsn {
        OldVsn::Up(vsn.to_owned())
    }

    #[test]
    fn a_state_goes_through_the_versions_between_by_the_shortest_way() {
        let steps = Steps::to("4")
            .step("1", "2", add("a"))
            .step("2", "3", add("b"))
            .step("3", "4", add("c"))
            .step("1", "3", add("d"));
        assert_eq!(steps.accepts_from(), ["3", "2", "1"]);
        assert_eq!(taken(&steps, &up("2")).unwrap(), "begun b7 c7");
        assert_eq!(taken(&steps, &up("1")).unwrap(), "begun d7 c7");
    }

    #[test]
    fn the_way_down_is_made_of_steps_down() {
        let steps = Steps::to("1").step("3", "2", add("x")).step("2", "1", add("y")).step("1", "2", add("z"));
        assert_eq!(steps.accepts_from(), ["2", "3"], "nothing leads round to itself");
        assert_eq!(taken(&steps, &OldVsn::Down("3".into())).unwrap(), "begun x7 y7");
    }

    #[test]
    fn without_a_way_the_state_is_refused_and_a_failing_step_is_named() {
        let steps = Steps::to("3").step("2", "3", |_, _| Err(Refusal::cannot_accept("no such key"))).step(
            "1",
            "9",
            add("a"),
        );
        let refusal = taken(&steps, &up("1")).unwrap_err();
        assert_eq!(refusal.to_string(), "there is no way from version `1` to `3`: add a step");
        assert_eq!(taken(&steps, &up("2")).unwrap_err().to_string(), "from `2` to `3`: no such key");
    }
}
