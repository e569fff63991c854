//! Memory of which a back-end grants what it should not: the front-end goes by the answers and stays whole.

use crate::machines::{Front, REGIONS, buffer, frame};
use crate::stage::{Stage, flagged};
use vhost_core::wire::memory::MemoryRegion;
use vhost_core::{Delivery, FrontendRequest, GuestAddress, RegionExtent, UserAddress};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::REPLY;

const ADD: u32 = 37;
const REMOVE: u32 = 38;

fn region(guest: u64, user: u64) -> MemoryRegion {
    MemoryRegion::new(GuestAddress(guest << 32), 0x1000, UserAddress(user << 32), 0)
}

fn add(front: &mut Front, region: MemoryRegion, ledger: &Ledger) -> bool {
    let request = FrontendRequest::AddMemReg(region, ledger.token());
    front.request(request, Delivery::Acknowledged, &mut buffer()).is_ok()
}

fn remove(front: &mut Front, region: MemoryRegion) -> bool {
    front.request(FrontendRequest::<Token>::RemMemReg(region), Delivery::Acknowledged, &mut buffer()).is_ok()
}

/// The back-end's answers: to which request, and zero if it grants it.
#[track_caller]
fn hear<const N: usize>(front: &mut Front, answers: [(u32, u64); N]) {
    for (id, number) in answers {
        let reply = flagged(id, REPLY, &number.to_ne_bytes());
        drop(front.handle_reply::<Token>(frame(&reply, Vec::new())).unwrap());
    }
}

fn regions<const N: usize>(regions: [MemoryRegion; N]) -> Vec<RegionExtent> {
    regions.iter().map(RegionExtent::from).collect()
}

#[test]
fn two_regions_at_one_user_address_are_told_apart() {
    let ledger = Ledger::new();
    // The one that stays has a guest address below or above that of the one that comes.
    for (old, new) in [(1, 2), (2, 1)] {
        let (first, second, between) = (region(old, 5), region(new, 5), region(3, 4));
        for gone in [first, second] {
            let mut front = Stage::usual().acknowledging().front();
            assert!(add(&mut front, between, &ledger) && add(&mut front, first, &ledger));
            hear(&mut front, [(ADD, 0), (ADD, 0)]);
            // The removal is refused and what takes its place granted.
            assert!(remove(&mut front, first) && add(&mut front, second, &ledger));
            hear(&mut front, [(REMOVE, 1), (ADD, 0)]);
            let mut both = [first, second];
            both.sort_by_key(|region| region.guest_address);
            let [low, high] = both;
            assert_eq!(front.session().memory().regions(), regions([low, high, between]));
            assert!(remove(&mut front, gone));
            hear(&mut front, [(REMOVE, 0)]);
            let stays = if gone == first { second } else { first };
            assert_eq!(front.session().memory().regions(), regions([stays, between]));
            // Both orders are whole: what is there is found at its user address, what is gone is not.
            assert!(!add(&mut front, region(7, 5), &ledger), "{stays} has it");
            assert!(!add(&mut front, region(7, 4), &ledger), "{between} has it");
            assert!(remove(&mut front, stays) && add(&mut front, region(7, 5), &ledger));
            hear(&mut front, [(REMOVE, 0), (ADD, 0)]);
            assert_eq!(front.session().memory().regions(), regions([between, region(7, 5)]));
        }
    }
    ledger.assert_settled();
}

#[test]
fn the_removal_of_what_was_never_there_changes_nothing() {
    let ledger = Ledger::new();
    let mut front = Stage::usual().acknowledging().front();
    let (first, second) = (region(1, 1), region(2, 2));
    assert!(add(&mut front, first, &ledger));
    hear(&mut front, [(ADD, 0)]);
    assert!(add(&mut front, second, &ledger) && remove(&mut front, second));
    hear(&mut front, [(ADD, 1), (REMOVE, 0)]);
    assert_eq!(front.session().memory().regions(), regions([first]));
    ledger.assert_settled();
}

#[test]
fn no_more_regions_are_remembered_than_there_is_room_for() {
    let ledger = Ledger::new();
    let mut front = Stage::usual().acknowledging().front();
    for number in 1..=REGIONS as u64 {
        assert!(add(&mut front, region(number, number), &ledger));
        hear(&mut front, [(ADD, 0)]);
    }
    let full = front.session().memory().clone();
    assert!(remove(&mut front, region(2, 2)) && add(&mut front, region(50, 50), &ledger));
    hear(&mut front, [(REMOVE, 1), (ADD, 0)]);
    assert_eq!(front.session().memory(), &full);
    ledger.assert_settled();
}
