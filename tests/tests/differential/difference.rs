//! The differences between two peers, held against the list of those that are accepted.

use core::fmt::Write;
use std::collections::{BTreeMap, BTreeSet};

use crate::case::Case;

/// A difference that is as it should be, or that cannot be helped.
#[derive(Debug)]
pub(crate) struct Accepted {
    /// Which cases, as patterns: a `*` stands for anything.
    pub(crate) cases: &'static [&'static str],
    /// What ours makes of them, as patterns.
    pub(crate) ours: &'static [&'static str],
    /// What the other one makes of them, as patterns.
    pub(crate) theirs: &'static [&'static str],
    /// How many cases differ so.
    pub(crate) count: usize,
    /// Why that is accepted.
    pub(crate) reason: &'static str,
}

/// One case, and what became of it on either side.
#[derive(Debug)]
pub(crate) struct Compared {
    pub(crate) case: String,
    pub(crate) ours: String,
    pub(crate) theirs: String,
}

/// Fails unless the list says of every difference why, and of nothing else. Where several entries fit, the first one counts.
/// Gives back the numbers for this peer as a table.
#[track_caller]
pub(crate) fn check(peer: &str, compared: &[Compared], list: &[Accepted]) -> String {
    let mut complaints = String::new();
    let mut found = vec![0; list.len()];
    let mut used = BTreeSet::<&str>::new();
    let mut unexplained = BTreeMap::<(&str, &str), Vec<&str>>::new();
    let differing = Vec::from_iter(compared.iter().filter(|one| one.ours != one.theirs));
    for one in &differing {
        let explains = |entry: &Accepted| {
            any(entry.cases, &one.case) && any(entry.ours, &one.ours) && any(entry.theirs, &one.theirs)
        };
        match list.iter().position(explains) {
            Some(at) => {
                found[at] += 1;
                used.extend(list[at].cases.iter().filter(|pattern| matches(pattern, &one.case)));
            }
            None => unexplained.entry((&one.ours, &one.theirs)).or_default().push(&one.case),
        }
    }
    for (entry, found) in list.iter().zip(found).filter(|(entry, found)| entry.count != *found) {
        let _ = writeln!(complaints, "an entry for {} cases explains {found}: {entry:?}", entry.count);
    }
    for pattern in list.iter().flat_map(|entry| entry.cases) {
        match compared.iter().filter(|one| matches(pattern, &one.case)).count() {
            0 => _ = writeln!(complaints, "no case is {pattern}"),
            _ if used.contains(pattern) => {}
            all => _ = writeln!(complaints, "{pattern} explains none of its {all} cases"),
        }
    }
    for ((ours, theirs), cases) in &unexplained {
        let _ = writeln!(complaints, "{} cases\n  ours:   {ours}\n  theirs: {theirs}", cases.len());
        for case in cases {
            let _ = writeln!(complaints, "    {case}");
        }
    }
    assert!(complaints.is_empty(), "differences from {peer} that the list does not say:\n{complaints}");
    let [all, different] = [compared.len(), differing.len()];
    let mut table = format!("{peer}: {all} cases, {} the same, {different} accepted differences", all - different);
    for entry in list {
        let _ = write!(table, "\n{:6}  {}", entry.count, entry.reason);
    }
    table
}

/// The cases but those of a list of patterns, each of which must stand for one at least.
#[track_caller]
pub(crate) fn without(mut cases: Vec<Case>, list: &[(&str, &str)]) -> Vec<Case> {
    for (pattern, reason) in list {
        let before = cases.len();
        cases.retain(|case| !matches(pattern, &case.name));
        assert!(cases.len() < before, "no case is {pattern} ({reason})");
    }
    cases
}

/// Whether `text` has the form of one of the patterns.
fn any(patterns: &[&str], text: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, text))
}

/// Whether `text` has the form of `pattern`.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(start) else { return false };
    let mut parts = Vec::from_iter(rest.split('*'));
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = left.find(part) else { return false };
        left = &left[at + part.len()..];
    }
    left.ends_with(end)
}
