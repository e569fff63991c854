//! Visits every state that can be reached, and tells the way to the first wrong one.

use core::hash::{Hash, Hasher};
use std::collections::{HashSet, VecDeque};
use std::hash::DefaultHasher;

/// Something that has states.
pub trait Model: Clone + Hash + core::fmt::Debug {
    /// What leads from one state to another.
    type Step: Copy + core::fmt::Debug;

    /// Every state one step away.
    ///
    /// # Errors
    /// What must never happen, and has.
    fn successors(&self) -> Result<Vec<(Self::Step, Self)>, String>;

    /// Whether everything that was to be done is done.
    fn is_finished(&self) -> bool;

    /// Facts of this state that should hold somewhere.
    fn sometimes(&self, note: &mut dyn FnMut(&'static str));
}

/// How an exploration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every state is fine, and every end is a finished one.
    Holds,
    /// Some state cannot go on and is not finished.
    Stuck,
    /// Something happened that must not.
    Broken,
}

/// What an exploration found.
#[derive(Debug)]
pub struct Report {
    /// Whether anything is wrong.
    pub outcome: Outcome,
    /// How many states there are, or were seen before the first wrong one.
    pub states: usize,
    /// The facts that hold in some state, in alphabetical order.
    pub seen: Vec<&'static str>,
    /// How the first wrong state was reached, and what is wrong with it.
    pub trace: Vec<String>,
}

/// States are told apart by 128 bits of hash: a million of them would need some memory, and the chance that two of them
/// are taken for one is less than 10^-26.
pub fn explore<M: Model>(start: M) -> Report {
    let mut known = HashSet::from([fingerprint(&start)]);
    // Where each state was reached from, and by which of the successors there.
    let mut reached: Vec<(usize, usize)> = vec![(0, 0)];
    let mut open = VecDeque::from([(0, start.clone())]);
    let mut report = Report { outcome: Outcome::Holds, states: 0, seen: Vec::new(), trace: Vec::new() };
    while let Some((number, state)) = open.pop_front() {
        state.sometimes(&mut |fact| {
            if !report.seen.contains(&fact) {
                report.seen.push(fact);
            }
        });
        let (outcome, reason, successors) = match state.successors() {
            Err(reason) => (Outcome::Broken, reason, Vec::new()),
            Ok(successors) if successors.is_empty() && !state.is_finished() => {
                (Outcome::Stuck, "nothing can happen".into(), successors)
            }
            Ok(successors) => (Outcome::Holds, String::new(), successors),
        };
        if outcome != Outcome::Holds {
            report.outcome = outcome;
            report.trace = trace(&start, &reached, number);
            report.trace.push(format!("{reason}: {state:?}"));
            break;
        }
        for (choice, (_, next)) in successors.into_iter().enumerate() {
            if known.insert(fingerprint(&next)) {
                open.push_back((reached.len(), next));
                reached.push((number, choice));
            }
        }
    }
    report.states = known.len();
    report.seen.sort_unstable();
    report
}

/// The steps to the state of this number, by taking them once more.
fn trace<M: Model>(start: &M, reached: &[(usize, usize)], number: usize) -> Vec<String> {
    let mut choices = Vec::new();
    let mut at = number;
    while at != 0 {
        choices.push(reached[at].1);
        at = reached[at].0;
    }
    let mut state = start.clone();
    let mut steps = Vec::new();
    for choice in choices.into_iter().rev() {
        let (step, next) = state.successors().unwrap().swap_remove(choice);
        steps.push(format!("{step:?}"));
        state = next;
    }
    steps
}

fn fingerprint(state: &impl Hash) -> (u64, u64) {
    let half = |salt: u64| {
        let mut hasher = DefaultHasher::new();
        salt.hash(&mut hasher);
        state.hash(&mut hasher);
        hasher.finish()
    };
    (half(1), half(2))
}
