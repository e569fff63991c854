//! Headers that are wrong, and requests that nobody knows.

use vhost_tests::wire::REQUEST;

use super::{case, requests};
use crate::case::{Case, Kind, Said};
use crate::stage::{Offer, Stage};

const REPLY: u32 = 0x4;
/// The lowest of the reserved bits, and all of them.
const RESERVED: [u32; 2] = [0x10, 0xffff_fff0];

/// Ids that stand for nothing, the nearest to those that do among them.
const UNKNOWN: [u32; 5] = [0, 45, 1000, 0x8000_0001, u32::MAX];

pub(super) fn cases(offer: Offer) -> Vec<Case> {
    let mut cases = Vec::new();
    for (_, fixture) in requests(offer) {
        let mut add = |special: String, flags| {
            cases.push(case(Stage::Agreed, fixture.name, &special, [Said::fixture(&fixture, flags)]));
        };
        for version in [0, 2, 3] {
            add(format!("version {version}"), version);
        }
        add("reply flag".to_owned(), REQUEST | REPLY);
        for bits in RESERVED {
            add(format!("reserved flags {bits:#x}"), REQUEST | bits);
        }
    }
    for id in UNKNOWN {
        for (payload, descriptors) in [(0, 0), (8, 0), (8, 1)] {
            let said = Said { kind: Kind::Event, ..Said::new(id, REQUEST, &vec![7; payload]) }.with(descriptors);
            let special = format!("{payload} bytes, {descriptors} descriptors");
            cases.push(case(Stage::Agreed, &format!("unknown request {id}"), &special, [said.clone()]));
            cases.push(case(Stage::Fresh, &format!("unknown request {id}"), &special, [said]));
        }
    }
    cases
}
