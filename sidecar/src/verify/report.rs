//! Findings, in words.

use std::fmt;

/// A group of the contract's rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// What `GET /v1/info` says.
    Info,
    /// Which call fits which state, and what clients get in it.
    States,
    /// Rule 1.
    Epoch,
    /// Rule 2.
    Idempotence,
    /// Rule 3.
    Parts,
    /// Rule 4.
    PreCopy,
    /// Rule 5.
    Freeze,
    /// Rule 6.
    Sync,
    /// Rule 7.
    Time,
    /// Rule 8.
    Errors,
    /// Rule 9.
    Restart,
    /// Rule 10.
    Caller,
    /// The optional call `POST /v1/consent`.
    Consent,
    /// The optional call `POST /v1/code-change`.
    CodeChange,
}

/// Whether a worker keeps a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Right,
    /// It does not.
    Wrong {
        /// What it did.
        seen: String,
        /// What its author can do.
        mend: &'static str,
    },
    /// It was not tried.
    Skipped {
        /// Why.
        why: String,
    },
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its rule.
    pub rule: Rule,
    /// What is to be so.
    pub what: &'static str,
    /// Whether it is.
    pub verdict: Verdict,
}

/// Everything that was checked, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The findings.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether no rule is broken.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.count(|verdict| matches!(verdict, Verdict::Wrong { .. })) == 0
    }

    fn count(&self, of: impl Fn(&Verdict) -> bool) -> usize {
        self.findings.iter().filter(|finding| of(&finding.verdict)).count()
    }
}

impl Rule {
    /// Every rule.
    pub const ALL: [Self; 14] = [
        Self::Info,
        Self::States,
        Self::Epoch,
        Self::Idempotence,
        Self::Parts,
        Self::PreCopy,
        Self::Freeze,
        Self::Sync,
        Self::Time,
        Self::Errors,
        Self::Restart,
        Self::Caller,
        Self::Consent,
        Self::CodeChange,
    ];

    fn title(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::States => "states",
            Self::Epoch => "1 epoch",
            Self::Idempotence => "2 idempotence",
            Self::Parts => "3 parts",
            Self::PreCopy => "4 pre-copy",
            Self::Freeze => "5 freeze",
            Self::Sync => "6 sync",
            Self::Time => "7 time",
            Self::Errors => "8 errors",
            Self::Restart => "9 restart",
            Self::Caller => "10 caller gone",
            Self::Consent => "consent",
            Self::CodeChange => "code change",
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { rule, what, verdict } in &self.findings {
            let title = rule.title();
            match verdict {
                Verdict::Right => writeln!(f, "right  {title:<14} {what}")?,
                Verdict::Wrong { seen, mend } => {
                    writeln!(f, "WRONG  {title:<14} {what}")?;
                    writeln!(f, "                      seen: {seen}")?;
                    writeln!(f, "                      mend: {mend}")?;
                }
                Verdict::Skipped { why } => writeln!(f, "skip   {title:<14} {what}: {why}")?,
            }
        }
        let right = self.count(|verdict| *verdict == Verdict::Right);
        let wrong = self.count(|verdict| matches!(verdict, Verdict::Wrong { .. }));
        writeln!(f, "{right} right, {wrong} wrong, {} skipped", self.findings.len() - right - wrong)
    }
}

/// Collects findings.
#[derive(Debug, Default)]
pub(super) struct Notes {
    findings: Vec<Finding>,
}

impl Notes {
    fn add(&mut self, rule: Rule, what: &'static str, verdict: Verdict) {
        self.findings.push(Finding { rule, what, verdict });
    }

    /// A finding from its outcome: right, or what was seen instead.
    pub(super) fn that<T>(
        &mut self,
        rule: Rule,
        what: &'static str,
        outcome: Result<T, String>,
        mend: &'static str,
    ) -> Option<T> {
        match outcome {
            Ok(value) => {
                self.add(rule, what, Verdict::Right);
                Some(value)
            }
            Err(seen) => {
                self.wrong(rule, what, seen, mend);
                None
            }
        }
    }

    pub(super) fn wrong(&mut self, rule: Rule, what: &'static str, seen: String, mend: &'static str) {
        self.add(rule, what, Verdict::Wrong { seen, mend });
    }

    pub(super) fn skip(&mut self, rule: Rule, what: &'static str, why: impl Into<String>) {
        self.add(rule, what, Verdict::Skipped { why: why.into() });
    }

    pub(super) fn report(self) -> Report {
        Report { findings: self.findings }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_rules_has_each_once() {
        let titles: std::collections::BTreeSet<_> = Rule::ALL.into_iter().map(Rule::title).collect();
        assert_eq!(titles.len(), Rule::ALL.len());
        // The last one declared: a rule that is added behind it, or not listed, makes this differ.
        assert_eq!(Rule::CodeChange as usize + 1, Rule::ALL.len());
        assert!(Rule::ALL.is_sorted());
    }

    #[test]
    fn a_report_says_what_is_wrong_and_how_to_mend_it() {
        let mut notes = Notes::default();
        notes.that(Rule::Epoch, "a lower epoch is refused", Ok(()), "refuse it");
        notes.that::<()>(Rule::Info, "info is answered", Err("404".into()), "serve it");
        notes.skip(Rule::Freeze, "the state is frozen", "no --change");
        let report = notes.report();
        assert!(!report.is_right());
        let text = report.to_string();
        for line in
            ["right  1 epoch", "WRONG  info", "seen: 404", "mend: serve it", "1 right, 1 wrong, 1 skipped"]
        {
            assert!(text.contains(line), "{text}");
        }
    }
}
