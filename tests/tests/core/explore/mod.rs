//! Every state that the machines can reach, alone and joined, and what must hold in each.
//!
//! A machine is a plain value, so each exploration is exhaustive within its alphabet: from every state, every message of the
//! alphabet with every answer. Numbers of states are asserted, because an exploration that sees less proves less.

mod back;
mod front;
mod joined;

mod words;

use vhost_tests::explore::{Model, Outcome, Report, explore};

/// Explores, prints how much that was, and fails with the way to the first wrong state.
#[track_caller]
fn check<M: Model>(name: &str, start: M) -> Report {
    let report = explore(start);
    println!("{name}: {} states, {:?}", report.states, report.outcome);
    assert_eq!(report.outcome, Outcome::Holds, "{:#?}", report.trace);
    report
}

/// Fails unless each of these facts was seen somewhere.
#[track_caller]
fn assert_seen(report: &Report, facts: &[&'static str]) {
    let missing = Vec::from_iter(facts.iter().filter(|fact| !report.seen.contains(fact)));
    assert!(missing.is_empty(), "never: {missing:?}; seen: {:?}", report.seen);
}

/// What must hold, or else in which words it does not.
fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(otherwise()) }
}
