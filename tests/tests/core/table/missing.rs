//! What a request needs, and the same with one thing missing.

use crate::stage::Stage;
use vhost_tests::wire::{Fixture, feature};

/// The stage that a request needs, and one for each thing that may be missing; with each, whether the request is refused.
pub(super) fn stages(fixture: &Fixture) -> Vec<(Stage, bool)> {
    let full = Stage::of(fixture);
    let mut stages = vec![(full, false)];
    // Without these it is another message: its form is wrong.
    let of_form = feature::XEN_MMAP | feature::LOG_SHMFD;
    for bit in bits(fixture.gate.protocol & !of_form) {
        // What cannot be had without the missing feature goes with it.
        let kept = bits(full.protocol).filter(|one| feature::with_dependencies(*one) & bit == 0);
        stages.push((Stage { protocol: kept.sum(), ..full }, is_held(fixture, bit)));
    }
    for bit in bits(fixture.gate.virtio) {
        stages.push((Stage { features: full.features & !bit, ..full }, is_held(fixture, bit)));
    }
    for bit in bits(fixture.gate.offered) {
        let (offered, features) = (full.offered & !bit, full.features & !bit);
        stages.push((Stage { offered, features, ..full }, true));
    }
    stages
}

/// Each feature of a set alone.
fn bits(set: u64) -> impl Iterator<Item = u64> {
    (0..64).map(|bit| 1_u64 << bit).filter(move |bit| set & bit != 0)
}

/// Whether a back-end refuses this request without this feature. The others come from real front-ends all the same.
fn is_held(fixture: &Fixture, bit: u64) -> bool {
    let let_pass = [
        // SPDK asks without it.
        ("GET_QUEUE_NUM", feature::MQ),
        // QEMU sends these two before it acknowledges features.
        ("NET_SET_MTU", feature::NET_MTU),
        ("SET_VRING_ENABLE", feature::PROTOCOL_FEATURES),
    ];
    !let_pass.contains(&(fixture.name, bit))
}
