//! The node affinity that a template requires, judged as the scheduler judges it.

use std::collections::BTreeMap;
use std::fmt;

/// Requirements that have to hold together. One without any holds everywhere: its pod is bound to a node by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Term {
    /// On the node's labels.
    pub labels: Vec<Requirement>,
    /// On the node's name.
    pub names: Vec<Requirement>,
}

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Key of the label, or `metadata.name`.
    pub key: String,
    /// What has to hold of its value.
    pub operator: Operator,
}

/// How a value is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// It is one of these.
    In(Vec<String>),
    /// It is none of these, or is not there.
    NotIn(Vec<String>),
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
    /// It is an integer above this one.
    Above(i64),
    /// It is an integer below this one.
    Below(i64),
    /// Words of a newer API server, or no integer to compare with: it holds nowhere, as with the scheduler.
    Never,
}

impl Requirement {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.iter().any(|one| one == value)),
            Operator::NotIn(values) => value.is_none_or(|value| values.iter().all(|one| one != value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Above(bound) => number().is_some_and(|number| number > *bound),
            Operator::Below(bound) => number().is_some_and(|number| number < *bound),
            Operator::Never => false,
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, operator } = self;
        match operator {
            Operator::In(values) => write!(f, "{key} in ({})", values.join(", ")),
            Operator::NotIn(values) => write!(f, "{key} not in ({})", values.join(", ")),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "not {key}"),
            Operator::Above(bound) => write!(f, "{key} above {bound}"),
            Operator::Below(bound) => write!(f, "{key} below {bound}"),
            Operator::Never => write!(f, "{key}, by an operator that is not known"),
        }
    }
}

/// The first requirement that does not hold on the node, of the first of the alternatives; `None` if one of them holds.
#[must_use]
pub fn unmet<'a>(
    terms: &'a [Term],
    name: &str,
    labels: &BTreeMap<String, String>,
) -> Option<&'a Requirement> {
    let of_term = |term: &'a Term| {
        let by_label = term.labels.iter().find(|it| !it.holds(labels.get(&it.key).map(String::as_str)));
        by_label.or_else(|| term.names.iter().find(|it| !it.holds(Some(name))))
    };
    let mut first = None;
    for term in terms {
        first = first.or(Some(of_term(term)?));
    }
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requires(key: &str, operator: Operator) -> Requirement {
        Requirement { key: key.into(), operator }
    }

    fn labels(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_operator_is_judged_as_the_scheduler_does() {
        let holds = |operator: Operator, node: &[(&str, &str)]| {
            let term = Term { labels: vec![requires("gen", operator)], names: Vec::new() };
            unmet(&[term], "n1", &labels(node)).is_none()
        };
        let (seven, none): (&[_], &[_]) = (&[("gen", "7")], &[]);
        let list = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
        for (operator, with, without) in [
            (Operator::In(list(&["6", "7"])), true, false),
            (Operator::In(list(&["6"])), false, false),
            (Operator::NotIn(list(&["6"])), true, true),
            (Operator::NotIn(list(&["7"])), false, true),
            (Operator::Exists, true, false),
            (Operator::DoesNotExist, false, true),
            (Operator::Above(6), true, false),
            (Operator::Above(7), false, false),
            (Operator::Below(8), true, false),
            (Operator::Below(7), false, false),
            (Operator::Never, false, false),
        ] {
            assert_eq!(holds(operator.clone(), seven), with, "{operator:?} of 7");
            assert_eq!(holds(operator.clone(), none), without, "{operator:?} of nothing");
        }
        assert!(!holds(Operator::Above(6), &[("gen", "seven")]));
    }

    #[test]
    fn terms_are_alternatives_and_their_requirements_are_not() {
        let disk = requires("disk", Operator::Exists);
        let gpu = requires("gpu", Operator::Exists);
        let here = requires("metadata.name", Operator::In(vec!["n1".into()]));
        let terms = [
            Term { labels: vec![disk.clone(), gpu.clone()], names: Vec::new() },
            Term { labels: Vec::new(), names: vec![here] },
        ];
        assert_eq!(unmet(&terms, "n1", &labels(&[])), None, "by its name");
        assert_eq!(unmet(&terms, "n2", &labels(&[("disk", ""), ("gpu", "")])), None, "by its labels");
        assert_eq!(unmet(&terms, "n2", &labels(&[("disk", "")])), Some(&gpu));
        assert_eq!(unmet(&terms, "n2", &labels(&[])), Some(&disk));
        assert_eq!(unmet(&[Term::default()], "n2", &labels(&[])), None);
    }
}
