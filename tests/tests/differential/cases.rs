//! All cases: from the lines of the message table, the hand-written bytes of the fixtures, and variations of both.

mod fields;
mod forms;
mod headers;
mod orders;
mod regions;
mod sizes;

use std::collections::BTreeSet;

use vhost_core::{FrontendCode, wire::row::Row};
use vhost_tests::wire::{self, Bytes, Fixture, Layout, REQUEST, feature};

use crate::case::{Case, Said};
use crate::stage::{Offer, Stage};

/// Asks for an acknowledgement.
const NEED_REPLY: u32 = 0x8;

/// Every case that two peers with this offer can be asked, each with and without the wish for an acknowledgement.
pub(crate) fn all(offer: Offer) -> Vec<Case> {
    let cases = [
        forms::cases(offer),
        headers::cases(offer),
        sizes::cases(offer),
        fields::cases(offer),
        regions::cases(),
        orders::cases(offer),
    ];
    let possible = |case: &Case| offer.protocol & case.stage.needs() == case.stage.needs();
    let mut all = Vec::from_iter(cases.into_iter().flatten().filter(possible).flat_map(|case| [flagged(&case), case]));
    all.sort_by(|one, other| one.name.cmp(&other.name));
    let names = BTreeSet::from_iter(all.iter().map(|case| &case.name));
    assert_eq!(names.len(), all.len(), "two cases with one name");
    all
}

/// The lines of the table, each with the usual form of its request.
fn requests(offer: Offer) -> impl Iterator<Item = (&'static Row, Fixture)> {
    let messages = FrontendCode::ALL.iter().filter_map(|code| Some((code.row()?, code.name()?)));
    messages.map(move |(row, name)| (row, within(wire::frontend_request(name), offer)))
}

/// The same fixture; if it acknowledges features, those that are on offer.
fn within(fixture: Fixture, offer: Offer) -> Fixture {
    match fixture.name {
        "SET_FEATURES" => Fixture { payload: offer.virtio.to_ne_bytes().to_vec(), ..fixture },
        "SET_PROTOCOL_FEATURES" => Fixture { payload: offer.protocol.to_ne_bytes().to_vec(), ..fixture },
        _ => fixture,
    }
}

/// One case without a wish for acknowledgements.
fn case(stage: Stage, request: &str, special: &str, said: impl Into<Vec<Said>>) -> Case {
    let name = format!("{}/{request}/{special}", stage.name());
    Case { name, stage, said: said.into() }
}

/// One message made of the usual form of a request.
fn usual(name: &str) -> Said {
    Said::fixture(&wire::frontend_request(name), REQUEST)
}

fn flagged(case: &Case) -> Case {
    let said = case.said.iter().map(|said| Said { flags: said.flags | NEED_REPLY, ..said.clone() }).collect();
    Case { name: format!("{}/flagged", case.name), said, ..case.clone() }
}

/// Where a request in this form makes sense, as far as peers with this offer can get.
fn stage_of(fixture: &Fixture, offer: Offer) -> Stage {
    let stage = match (fixture.name, fixture.form) {
        (_, "postcopy" | "postcopy, bases taken" | "postcopy, base taken") | ("POSTCOPY_END", _) => Stage::Listening,
        ("POSTCOPY_LISTEN", _) => Stage::Advised,
        ("REM_MEM_REG", _) => Stage::Added,
        ("SET_VRING_ADDR", _) => Stage::Shared,
        ("SET_LOG_BASE", "an address") => Stage::Without(feature::LOG_SHMFD),
        _ => Stage::Agreed,
    };
    if offer.protocol & stage.needs() == stage.needs() { stage } else { Stage::Agreed }
}

/// Whether the payload begins with a ring's index.
fn begins_with_ring(fixture: &Fixture) -> bool {
    matches!(fixture.layout, Layout::VringState | Layout::VringAddress)
}

/// The payload of a ring's index and a number.
fn state(index: u32, number: u32) -> Vec<u8> {
    Bytes::new().u32(index).u32(number).done()
}
