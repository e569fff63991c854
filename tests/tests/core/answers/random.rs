//! Requests at random, heard and answered at random times: what the front-end may send the back-end accepts, and when the
//! wires are empty both are of one mind, whatever was refused.

use crate::machines::{DEPTH, back, front};
use crate::pair::Pair;
use crate::stage::PROTOCOL_OFFERED;
use vhost_core::wire::inflight::Inflight;
use vhost_core::wire::log::{Log, LogBase};
use vhost_core::wire::memory::{MemoryRegion, MemoryTable};
use vhost_core::wire::vring::{VringAddr, VringDescriptor, VringState};
use vhost_core::{
    Delivery, FrontendCode, FrontendRequest, GuestAddress, Handles, Postcopy, ProtocolFeatures, RingAddress,
    UserAddress, VirtioFeatures,
};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::feature;
use vhost_tests::wire::region::{REGIONS, RING, RING_LOG};

/// Numbers that look random and are the same every time (Knuth's MMIX constants).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// What came about at least once in all runs.
#[derive(Debug, Default)]
struct Seen {
    misused: usize,
    refused: usize,
    rejected: usize,
    full: usize,
    running: usize,
    answered_in_postcopy: usize,
}

fn regions() -> [MemoryRegion; 8] {
    REGIONS.map(|region| MemoryRegion {
        guest_address: GuestAddress(region.guest),
        size: region.size,
        user_address: UserAddress(region.user),
        mmap_offset: region.offset,
        xen: None,
    })
}

fn request<'r>(
    dice: &mut Dice,
    kinds: u64,
    regions: &'r [MemoryRegion; 8],
    ledger: &Ledger,
) -> FrontendRequest<'r, Token> {
    let ring = dice.roll(4) as u32;
    let state = |number: u64| VringState::new(ring, number as u32);
    let one = regions[dice.roll(3) as usize];
    let features = [feature::ACKNOWLEDGED, feature::OFFERED, feature::VERSION_1][dice.roll(3) as usize];
    match dice.roll(kinds) {
        0 | 1 => FrontendRequest::SetFeatures(VirtioFeatures::from_bits_retain(features)),
        2 => FrontendRequest::SetVringNum(state([256, 128, 3][dice.roll(3) as usize])),
        3 => FrontendRequest::SetVringBase(state(dice.roll(65536))),
        4 => {
            let [descriptor, used, available] = RING.map(RingAddress);
            let flags = dice.roll(2) as u32;
            FrontendRequest::SetVringAddr(VringAddr::new(
                ring,
                flags,
                descriptor,
                used,
                available,
                GuestAddress(RING_LOG),
            ))
        }
        5..=7 => FrontendRequest::SetVringKick(VringDescriptor::without_descriptor(ring as u8), None),
        8 => FrontendRequest::GetVringBase(state(0)),
        9..=11 => FrontendRequest::SetVringEnable(state(dice.roll(3))),
        12 | 13 => FrontendRequest::AddMemReg(one, ledger.token()),
        14 => FrontendRequest::RemMemReg(one),
        15 => {
            let count = dice.roll(4) as usize;
            FrontendRequest::SetMemTable(MemoryTable::new(&regions[..count]), Handles::from_iter(ledger.tokens(count)))
        }
        16 => {
            [FrontendRequest::ResetDevice, FrontendRequest::ResetOwner].into_iter().nth(dice.roll(2) as usize).unwrap()
        }
        17 => FrontendRequest::SetStatus([0, 0xf, 256][dice.roll(3) as usize]),
        18 => FrontendRequest::GetFeatures,
        19 => FrontendRequest::SetLogBase(LogBase::Shared(Log::new(0x1000, dice.roll(2) << 12)), Some(ledger.token())),
        20 => FrontendRequest::SetInflightFd(Inflight::new(0x1000, 0, 4, 256), ledger.token()),
        21 => FrontendRequest::PostcopyAdvise,
        22 => FrontendRequest::PostcopyListen,
        _ => FrontendRequest::PostcopyEnd,
    }
}

/// One session of some hundred requests.
fn play(seed: u64, refusals: bool, seen: &mut Seen) {
    let mut dice = Dice(seed);
    let regions = regions();
    let mut pair = Pair::new(front(), back(feature::OFFERED, PROTOCOL_OFFERED), &[]);
    pair.ask(FrontendRequest::GetFeatures);
    pair.ask(FrontendRequest::GetProtocolFeatures);
    let protocol = ProtocolFeatures::from_bits_retain(feature::PROTOCOL_OFFERED);
    pair.ask(FrontendRequest::SetProtocolFeatures(protocol));
    // Postcopy comes last: what is refused in it cannot be told, and ends the session.
    let kinds = if refusals { 21 } else { 24 };
    for _ in 0..300 {
        match dice.roll(4) {
            0 => {
                pair.refusing = refusals && dice.roll(3) == 0;
                seen.refused += usize::from(pair.refusing);
                pair.back_hears();
            }
            1 => {
                pair.front_hears();
            }
            _ => {
                let asked = request(&mut dice, kinds, &regions, &pair.ledger);
                // A refusal that is not told leaves the two sides of different minds; that is the settings' business.
                let delivery =
                    if refusals || dice.roll(2) == 0 { Delivery::Acknowledged } else { Delivery::Unacknowledged };
                seen.misused += usize::from(pair.try_send(asked, delivery).is_err());
            }
        }
        seen.full += usize::from(pair.front.outstanding() == DEPTH);
        seen.running += usize::from(pair.back.session().is_running());
        if pair.front.session().postcopy() == Postcopy::Answered && pair.front.outstanding() == 0 {
            seen.answered_in_postcopy += 1;
            pair.acknowledge_postcopy(FrontendCode::ADD_MEM_REG);
        }
    }
    pair.refusing = false;
    pair.run();
    let rejected = pair.events.iter().filter(|event| event.contains("back-end: Err")).count();
    seen.rejected += rejected;
    assert!(refusals || rejected == 0, "seed {seed}: the front-end sent what may not be sent: {:#?}", pair.events);
    assert!(!pair.front.has_failed() && !pair.back.has_failed(), "seed {seed}: {:#?}", pair.events);
    drop(pair.events);
    pair.ledger.assert_settled();
}

#[test]
fn what_a_frontend_sends_its_backend_accepts() {
    let mut seen = Seen::default();
    for seed in 0..300 {
        play(seed, false, &mut seen);
    }
    let Seen { misused, full, running, answered_in_postcopy, .. } = seen;
    assert!(misused > 1000 && full > 1000 && running > 1000 && answered_in_postcopy > 50, "{seen:?}");
}

#[test]
fn whatever_is_refused_both_sides_know() {
    let mut seen = Seen::default();
    for seed in 1000..1300 {
        play(seed, true, &mut seen);
    }
    assert!(seen.refused > 1000 && seen.rejected > 100 && seen.running > 1000, "{seen:?}");
}
