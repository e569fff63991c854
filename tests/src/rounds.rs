//! The same thing many times, after each of which as much must be open as after the first.

use crate::descriptors::Snapshot;

/// The environment's say in how many rounds there are.
const VARIABLE: &str = "VHOST_LEAK_ROUNDS";

/// How often a test of leaks repeats what it does: sixty times, or what `VHOST_LEAK_ROUNDS` says.
pub fn rounds() -> usize {
    std::env::var(VARIABLE).map_or(60, |number| number.parse().unwrap_or_else(|_| panic!("{VARIABLE}={number}")))
}

/// The numbers of so many rounds, for a loop that runs [in a process of its own](crate::descriptors::in_own_process).
///
/// Ten times, and after the last round, it fails if more or less is open than after the first. So a round may leave what it
/// takes the place of, and nothing else.
#[derive(Debug, Default)]
pub struct Watched {
    done: usize,
    first: Option<Snapshot>,
}

impl Iterator for Watched {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let (done, total) = (self.done, rounds());
        match &self.first {
            None if done == 1 => self.first = Some(Snapshot::take()),
            Some(first) if done == total || done % total.div_ceil(10) == 0 => {
                let now = Snapshot::take();
                let counts = [first, &now].map(|open| (open.descriptor_count(), open.mapping_count()));
                assert_eq!(counts[0], counts[1], "descriptors and mappings after {done} rounds:\n{first:#?}\n{now:#?}");
            }
            _ => {}
        }
        self.done += 1;
        (done < total).then_some(done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors::in_own_process;
    use crate::dialog::event;
    use std::panic::catch_unwind;

    #[test]
    fn one_descriptor_in_all_rounds_is_noticed() {
        in_own_process("rounds::tests::one_descriptor_in_all_rounds_is_noticed", || {
            let mut last = event();
            Watched::default().for_each(|_| last = event());
            let leaky = || {
                let mut kept = Vec::new();
                for number in Watched::default() {
                    if number == rounds() - 1 {
                        kept.push(event());
                    }
                }
            };
            catch_unwind(leaky).unwrap_err();
            drop(last);
        });
    }
}
