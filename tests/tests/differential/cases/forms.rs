//! Requests as they should be, everywhere: where they belong, and before and without what they need.

use vhost_tests::wire::{self, Fixture, REQUEST, feature};

use super::{case, requests, stage_of, within};
use crate::case::{Case, Said};
use crate::stage::{Offer, Stage};

pub(super) fn cases(offer: Offer) -> Vec<Case> {
    let mut cases = Vec::new();
    for fixture in wire::all_frontend_forms().into_iter().map(|fixture| within(fixture, offer)) {
        let name = format!("{} ({})", fixture.name, fixture.form);
        cases.push(case(stage_of(&fixture, offer), &name, "in its place", [Said::fixture(&fixture, REQUEST)]));
    }
    for (row, fixture) in requests(offer) {
        let mut stages =
            vec![Stage::Fresh, Stage::Unowned, Stage::WithoutBit30, Stage::Running, Stage::Without(feature::REPLY_ACK)];
        let needed = row.gate.protocol().bits() & offer.protocol;
        if needed != 0 {
            stages.push(Stage::Without(needed));
        }
        cases.extend(stages.into_iter().map(|stage| elsewhere(stage, &fixture)));
    }
    cases
}

fn elsewhere(stage: Stage, fixture: &Fixture) -> Case {
    case(stage, fixture.name, "elsewhere", [Said::fixture(fixture, REQUEST)])
}
