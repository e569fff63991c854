//! The device ends at every single access to memory, and another one goes on from the inflight record.

mod arena;
mod life;

use vhost_core::VirtioFeatures;

use arena::Arena;
use life::{Driver, Ended, Life, Op};

const SPLIT: VirtioFeatures = VirtioFeatures::empty();
const PACKED: VirtioFeatures = VirtioFeatures::RING_PACKED;
const IN_ORDER: VirtioFeatures = VirtioFeatures::IN_ORDER;

/// What the driver does between two devices.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    Nothing,
    /// It takes what came back, and fills the ring again: used descriptors become available ones.
    Refills,
}

/// How many devices ended early, and how often a request was processed again.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    histories: usize,
    ends: usize,
    resubmitted: usize,
}

/// What is tried.
#[derive(Clone, Copy)]
struct Plan<'o> {
    features: VirtioFeatures,
    /// Every history of these operations, of this length.
    ops: &'o [Op],
    length: usize,
    /// What the ring and the record have been through before.
    warm_up: &'o [Op],
    /// Devices that end, one after the other.
    deaths: usize,
}

/// Runs every history, ends the device at every access, and lets the next one end at every access of its recovery.
fn every_end(plan: Plan<'_>) -> Count {
    let mut count = Count::default();
    let mut histories: Vec<Vec<Op>> = vec![Vec::new()];
    for _ in 0..plan.length {
        let longer = |history: &Vec<Op>| plan.ops.iter().map(|op| [history, &[*op][..]].concat()).collect::<Vec<_>>();
        histories = histories.iter().flat_map(longer).collect();
    }
    let arena = Arena::new();
    let mut driver = Driver::new(&arena, plan.features);
    driver.refill();
    if !plan.warm_up.is_empty() {
        assert!(matches!(Life::run(&arena, plan.features, &mut driver, plan.warm_up), Ended::Whole { .. }));
    }
    for history in histories {
        count.histories += 1;
        for meanwhile in [Meanwhile::Nothing, Meanwhile::Refills] {
            end_everywhere(&arena, &driver, plan, &history, meanwhile, &mut count);
        }
    }
    count
}

/// Lets a device end at each access of `history` in turn.
fn end_everywhere(
    arena: &Arena,
    driver: &Driver<'_>,
    plan: Plan<'_>,
    history: &[Op],
    meanwhile: Meanwhile,
    count: &mut Count,
) {
    for budget in 0.. {
        let arena = arena.clone();
        let mut driver = driver.moved_to(&arena);
        arena.allow(Some(budget));
        let ended = Life::run(&arena, plan.features, &mut driver, history);
        arena.allow(None);
        count.resubmitted += ended.resubmitted();
        if let Ended::Whole { .. } = ended {
            break;
        }
        count.ends += 1;
        if let Meanwhile::Refills = meanwhile {
            driver.poll_all();
            driver.refill();
        }
        if plan.deaths > 1 {
            // The next one takes all that is left, and may end on the way.
            let recovery = [Op::PopAll, Op::FinishOldest, Op::FinishAll];
            end_everywhere(&arena, &driver, Plan { deaths: plan.deaths - 1, ..plan }, &recovery, meanwhile, count);
        }
        // Now devices that live: everything comes back, once, and the ring is as good as new.
        for _ in 0..3 {
            let ended = Life::run(&arena, plan.features, &mut driver, &[Op::PopAll, Op::FinishAll]);
            count.resubmitted += ended.resubmitted();
            assert!(matches!(ended, Ended::Whole { .. }), "{history:?} {budget}: {ended:?}");
            driver.poll_all();
            assert_eq!(driver.outstanding(), 0, "{history:?} after {budget} accesses");
            driver.refill();
        }
    }
}

/// A ring and a record in the middle of their use, out of order.
const WARM: [Op; 9] = [
    Op::Pop,
    Op::Pop,
    Op::FinishNewest,
    Op::DriverRefills,
    Op::PopAll,
    Op::FinishAll,
    Op::DriverRefills,
    Op::Pop,
    Op::Pop,
];

const OPS: [Op; 6] = [Op::Pop, Op::StageOldest, Op::FinishOldest, Op::FinishNewest, Op::FinishAll, Op::DriverRefills];

/// From the middle of its use; from the very first access on; and with a second device that ends, too.
fn check(features: VirtioFeatures) -> [Count; 3] {
    let middle = Plan { features, ops: &OPS, length: 3, warm_up: &WARM, deaths: 1 };
    let counts = [
        every_end(middle),
        every_end(Plan { length: 1, warm_up: &[], ..middle }),
        every_end(Plan { length: 1, deaths: 2, ..middle }),
    ];
    println!("{features:?}: {counts:?}");
    counts
}

fn assert_enough(counts: &[Count; 3]) {
    let [middle, first, twice] = counts;
    assert!(middle.histories == 216 && middle.ends > 10_000 && middle.resubmitted > 20_000);
    assert!(first.histories == 6 && first.ends > 100);
    assert!(twice.histories == 6 && twice.ends > 5_000 && twice.resubmitted > 10_000);
}

#[test]
fn every_request_on_a_split_ring_comes_back_once_wherever_the_device_ends() {
    assert_enough(&check(SPLIT));
}

#[test]
fn every_request_on_a_packed_ring_comes_back_once_wherever_the_device_ends() {
    assert_enough(&check(PACKED));
}

#[test]
fn in_order_rings_stay_in_order_over_a_crash() {
    let warm_up = [Op::PopAll, Op::FinishAll, Op::DriverRefills, Op::Pop, Op::FinishOldest];
    let ops = [Op::Pop, Op::StageOldest, Op::FinishOldest, Op::FinishAll, Op::DriverRefills];
    for features in [SPLIT, PACKED] {
        let features = features | IN_ORDER;
        let count = every_end(Plan { features, ops: &ops, length: 3, warm_up: &warm_up, deaths: 1 });
        println!("{features:?}: {count:?}");
        assert!(count.histories == 125 && count.resubmitted > 200);
    }
}
