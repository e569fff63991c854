//! Sorts what was in flight by age, in place and without a path that could panic.

use super::Resubmission;

/// Sorts by counter: a heap sort, whose steps are bounded whatever the numbers are.
pub(super) fn by_counter(list: &mut [Resubmission]) {
    for root in (0..list.len() / 2).rev() {
        sink(list, root);
    }
    let mut heap = list;
    while let Some(last) = heap.len().checked_sub(1) {
        swap(heap, 0, last);
        let Some((unsorted, _)) = core::mem::take(&mut heap).split_at_mut_checked(last) else {
            break;
        };
        heap = unsorted;
        sink(heap, 0);
    }
}

/// Lets the entry at `root` of a heap with the largest in front sink to where it belongs.
fn sink(heap: &mut [Resubmission], mut root: usize) {
    loop {
        let left = root.saturating_mul(2).saturating_add(1);
        let right = left.saturating_add(1);
        let counter = |at: usize| heap.get(at).map(|entry| entry.counter);
        // A missing child is smaller than every counter.
        let child = if counter(right) > counter(left) { right } else { left };
        if counter(child) <= counter(root) {
            return;
        }
        swap(heap, root, child);
        root = child;
    }
}

fn swap(list: &mut [Resubmission], first: usize, second: usize) {
    let (Some(one), Some(other)) = (list.get(first).copied(), list.get(second).copied()) else {
        return;
    };
    for (at, entry) in [(first, other), (second, one)] {
        if let Some(place) = list.get_mut(at) {
            *place = entry;
        }
    }
}

#[cfg(test)]
#[allow(clippy::as_conversions, clippy::cast_possible_truncation, reason = "small numbers of a test")]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    #[test]
    fn every_order_of_up_to_six_entries_gets_sorted() {
        for length in 0..=6_usize {
            let mut digits: Vec<usize> = std::vec![0; length];
            loop {
                // Every sequence of digits below the length: permutations, and equal counters.
                let mut list: Vec<Resubmission> = (digits.iter())
                    .map(|digit| Resubmission { counter: *digit as u64, ..Resubmission::default() })
                    .collect();
                by_counter(&mut list);
                let mut expected = digits.clone();
                expected.sort_unstable();
                assert!(list.iter().map(|entry| entry.counter as usize).eq(expected));
                let Some(at) = digits.iter().position(|digit| digit + 1 < length) else {
                    break;
                };
                digits[..at].fill(0);
                digits[at] += 1;
            }
        }
    }
}
