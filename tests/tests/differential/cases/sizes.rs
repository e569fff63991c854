//! Too few and too many bytes and descriptors.

use std::collections::BTreeSet;

use vhost_core::wire::payload::SizeRule;
use vhost_core::wire::row::{HandleRule, Row};
use vhost_tests::wire::{Fixture, REQUEST};

use super::{case, requests, stage_of};
use crate::case::{Case, Said};
use crate::stage::Offer;

/// The longest payload that our back-end reads, as rust-vmm's.
const LONGEST: usize = 4096;

pub(super) fn cases(offer: Offer) -> Vec<Case> {
    requests(offer)
        .flat_map(|(row, fixture)| [bytes(row, &fixture, offer), descriptors(row, &fixture, offer)])
        .flatten()
        .collect()
}

fn bytes(row: &Row, fixture: &Fixture, offer: Offer) -> Vec<Case> {
    let (stage, said) = (stage_of(fixture, offer), Said::fixture(fixture, REQUEST));
    let right = fixture.payload.len();
    let edges = match row.payload.size() {
        SizeRule::Exactly(only) => vec![only],
        SizeRule::Either(one, other) => vec![one, other],
        SizeRule::Between(least, most) => vec![least, most],
    };
    let beside = edges.iter().chain([&right]).flat_map(|size| [size.checked_sub(1), Some(size + 1)]).flatten();
    let wrong = BTreeSet::from_iter(beside.chain([0, LONGEST]).filter(|size| *size != right));
    let mut cases = Vec::from_iter(wrong.into_iter().map(|size| {
        let mut payload = fixture.payload.clone();
        payload.resize(size, 0);
        case(stage, fixture.name, &format!("{size} bytes, not {right}"), [said.clone().carrying(&payload)])
    }));
    for announced in [LONGEST as u32 + 1, u32::MAX] {
        let said = Said { size: announced, payload: Vec::new(), ..said.clone() };
        cases.push(case(stage, fixture.name, &format!("{announced} bytes announced"), [said]));
    }
    cases
}

fn descriptors(row: &Row, fixture: &Fixture, offer: Offer) -> Vec<Case> {
    let numbers: &[usize] = if row.handles == HandleRule::PerRegion { &[0, 1, 3, 8, 9] } else { &[0, 1, 2, 8] };
    let wrong = numbers.iter().filter(|number| **number != fixture.descriptors);
    let cases = wrong.map(|number| {
        let special = format!("{number} descriptors, not {}", fixture.descriptors);
        case(stage_of(fixture, offer), fixture.name, &special, [Said::fixture(fixture, REQUEST).with(*number)])
    });
    cases.collect()
}
