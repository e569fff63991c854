//! A device and a driver joined over a small ring: every interleaving of their accesses to memory.
//!
//! An operation of either side is run again and again from its beginning: what it has read so far is replayed to it, one
//! more access touches the memory, and then it is cut off. So every access is a step of its own, although the code under
//! test is called as a whole. Stores may be delayed and reordered as far as the orderings allow that were asked for: a
//! missing fence or a missing release is found, too.

mod memory;
mod operations;
mod system;

use vhost_core::VirtioFeatures;
use vhost_tests::explore::{Outcome, Report, explore};

use memory::Stores;
use system::{Plan, System, Widened};

const SPLIT: VirtioFeatures = VirtioFeatures::empty();
const PACKED: VirtioFeatures = VirtioFeatures::RING_PACKED;
const EVENT_IDX: VirtioFeatures = VirtioFeatures::RING_EVENT_IDX;
const IN_ORDER: VirtioFeatures = VirtioFeatures::IN_ORDER;

/// Three buffers, one descriptor each, through a ring of two. 65,534 went through it before, so that indices wrap around on
/// the way; a packed ring is in its last slot but one of a lap.
const SMALL: Plan = Plan {
    features: SPLIT,
    size: 2,
    before: 65534,
    buffers: 3,
    descriptors: 1,
    depth: 2,
    stores: Stores::Delayed,
    widened: Widened::Nothing,
};

/// Everything that should happen somewhere in an exploration.
const ALWAYS: [&str; 5] =
    ["a kick is saved", "both sleep", "buffers are used out of order", "the device holds several", "the ring is full"];

/// Explores, prints how much that was, and fails with the way to the first wrong state.
fn check(plan: Plan) -> Report {
    let report = explore(System::new(plan));
    println!("{:?}, ring of {}: {} states, {:?}", plan.features, plan.size, report.states, report.outcome);
    assert_eq!(report.outcome, Outcome::Holds, "{:#?}", report.trace);
    report
}

#[test]
fn every_interleaving_on_a_split_ring_brings_each_buffer_back_once_and_loses_no_notification() {
    let reports = [SPLIT, SPLIT | EVENT_IDX].map(|features| check(Plan { features, ..SMALL }));
    assert_eq!(reports.each_ref().map(|report| report.states), [56523, 52630]);
    assert!(reports.iter().all(|report| report.seen == ALWAYS));
}

#[test]
fn every_interleaving_on_a_packed_ring_brings_each_buffer_back_once_and_loses_no_notification() {
    let reports = [PACKED, PACKED | EVENT_IDX].map(|features| check(Plan { features, ..SMALL }));
    assert_eq!(reports.each_ref().map(|report| report.states), [46393, 125462]);
    assert!(reports.iter().all(|report| report.seen == ALWAYS));
}

#[test]
fn chains_of_two_descriptors_lie_across_the_end_of_a_packed_ring_of_three() {
    let report = check(Plan { features: PACKED | EVENT_IDX, size: 3, descriptors: 2, ..SMALL });
    assert_eq!(report.states, 25372);
}

#[test]
fn in_order_rings_take_one_used_entry_for_several_buffers() {
    let features = [SPLIT, SPLIT | EVENT_IDX, PACKED, PACKED | EVENT_IDX];
    let reports = features.map(|features| check(Plan { features: features | IN_ORDER, ..SMALL }));
    assert_eq!(reports.each_ref().map(|report| report.states), [21679, 24639, 16600, 45878]);
    assert!(reports.iter().all(|report| report.seen.contains(&"the device holds several")));
}

/// What the exploration is worth: it notices each of these.
#[test]
fn broken_rules_and_machines_are_noticed() {
    for features in [SPLIT, SPLIT | EVENT_IDX, PACKED, PACKED | EVENT_IDX] {
        for (outcome, widened, stores) in [
            (Outcome::Stuck, Widened::DeviceSleepsAnyway, Stores::AtOnce),
            (Outcome::Stuck, Widened::DriverSleepsAnyway, Stores::AtOnce),
            (Outcome::Stuck, Widened::AsksTooEarly, Stores::AtOnce),
            (Outcome::Broken, Widened::DeviceRepeats, Stores::AtOnce),
            (Outcome::Stuck, Widened::Nothing, Stores::Unfenced),
            (Outcome::Broken, Widened::Nothing, Stores::Unreleased),
        ] {
            let report = explore(System::new(Plan { features, widened, stores, ..SMALL }));
            assert_eq!(report.outcome, outcome, "{features:?}, {widened:?}, {stores:?}: {:#?}", report.trace);
        }
    }
}
