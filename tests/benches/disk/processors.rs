//! Which processors the driver and the back-ends run on: left to the system, pairs that wait for each other run on one
//! processor or on two as chance has it, which makes more of a difference than anything that is measured here.

use core::fmt;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where the driver runs. The back-end is always on the first processor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Processors {
    /// On the same one: whoever signals gives way.
    Shared,
    /// On another one: whoever signals wakes a processor.
    Apart,
}

impl fmt::Display for Processors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shared => "1",
            Self::Apart => "2",
        })
    }
}

impl Processors {
    /// Has this thread run as the driver while it does something.
    pub(crate) fn drive<T>(self, what: impl FnOnce() -> T) -> T {
        on(if self == Self::Shared { 0 } else { 1 }, what)
    }
}

/// Does something on this processor of those that there are, counted from 0; a process that is started stays there.
pub(crate) fn on<T>(place: usize, what: impl FnOnce() -> T) -> T {
    let all = sched_getaffinity(None).unwrap();
    let chosen = (0..CpuSet::MAX_CPU).filter(|processor| all.is_set(*processor)).nth(place).expect("two processors");
    let mut one = CpuSet::new();
    one.set(chosen);
    sched_setaffinity(None, &one).unwrap();
    let done = what();
    sched_setaffinity(None, &all).unwrap();
    done
}
