//! Rows S40 to S44: logs, postcopy, device state.

use super::{answer, done};
use crate::bad_input::assert_works;
use crate::machines::{Back, Packet, Reaction, frame};
use crate::stage::{Rings, Stage, message, say};
use vhost_core::wire::log::Log;
use vhost_core::wire::memory::MemoryTable;
use vhost_core::{FrontendReply, FrontendRequest, Incoming, Postcopy};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire::region::{RING, RING_LOG};
use vhost_tests::wire::{self, Bytes, feature};

fn log(size: u64, offset: u64) -> Vec<u8> {
    message(6, &Bytes::new().u64(size).u64(offset).done())
}

fn address(flags: u32, log: u64) -> Vec<u8> {
    let [descriptor, used, available] = RING;
    Bytes::new().u32(1).u32(flags).u64(descriptor).u64(used).u64(available).u64(log).done()
}

#[test]
fn s40_logging_begins_and_ends_while_rings_run() {
    let ledger = Ledger::new();
    let mut back = Stage::usual().rings(Rings::RUNNING).back();
    let before = back.clone();
    answer(&mut back, &log(0x1000, 0), ledger.tokens(1), None);
    done(&mut back, 2, 9, &(feature::ACKNOWLEDGED | feature::LOG_ALL).to_ne_bytes(), 0);
    done(&mut back, 9, 9, &address(1, RING_LOG), 0);
    assert!(back.session().is_running() && back.session().log().is_some());
    // The migration is called off.
    done(&mut back, 2, 1, &feature::ACKNOWLEDGED.to_ne_bytes(), 0);
    done(&mut back, 9, 1, &address(0, RING_LOG), 0);
    assert_eq!(back.session().negotiated(), before.session().negotiated());
    assert!(back.session().is_running());
    ledger.assert_settled();
}

#[test]
fn s41_a_new_log_replaces_the_old_one_every_time() {
    let ledger = Ledger::new();
    let mut back = Stage::usual().rings(Rings::RUNNING).back();
    // QEMU: a page for 128 MiB; Cloud Hypervisor: a new one each time it looks.
    for (size, offset) in [(0x1000, 0), (0x2000, 0), (0x1001, 0x3000), (1, 0)] {
        let request = log(size, offset);
        let Reaction::Sent(Packet { bytes, .. }) = answer(&mut back, &request, ledger.tokens(1), None) else {
            panic!()
        };
        assert_eq!(bytes[12..], request[12..]);
        assert_eq!(back.session().log(), Some(Log::new(size, offset)));
    }
    ledger.assert_settled();
}

#[test]
fn s42_a_log_address_counts_only_with_its_flag() {
    let mut back = Stage::usual().back();
    // QEMU always sends one; beyond all memory it means nothing without the flag.
    for (flags, log, counts) in [(0, RING_LOG, false), (0, u64::MAX, false), (1, RING_LOG, true), (1, 1 << 60, true)] {
        let request = message(9, &address(flags, log));
        let Ok(Incoming::Request(FrontendRequest::SetVringAddr(taken))) =
            back.handle_request::<Token>(frame(&request, vec![]))
        else {
            panic!()
        };
        assert_eq!((taken.logs_used(), taken.log().0), (counts, log));
        drop(back.answer::<Token>(FrontendReply::Done, &mut []).unwrap());
    }
}

/// A back-end at the point where memory is answered.
fn listening(ledger: &Ledger) -> Back {
    let mut back = Stage::with(feature::PAGEFAULT | feature::CONFIGURE_MEM_SLOTS | feature::REPLY_ACK).back();
    let advised = FrontendReply::PostcopyAdvise(Some(ledger.token()));
    answer(&mut back, &message(28, &[]), Vec::new(), Some(advised));
    done(&mut back, 29, 9, &[], 0);
    back
}

/// Hears a table and answers it.
fn share(back: &mut Back, flags: u32, ledger: &Ledger) -> Reaction {
    let fixture = wire::frontend_form("SET_MEM_TABLE", "postcopy");
    let request = fixture.message(flags);
    let taken = back.handle_request(frame(&request, ledger.tokens(2))).unwrap();
    let Incoming::Request(FrontendRequest::SetMemTable(table, _)) = taken else { panic!() };
    let mapped = Vec::from_iter(table.iter().map(|region| vhost_core::MemoryRegion {
        user_address: vhost_core::UserAddress(region.user_address.0 - 0x1000_0000_0000),
        ..region
    }));
    back.answer(FrontendReply::<Token>::SetMemTable(MemoryTable::new(&mapped)), &mut vec![0; 4096]).unwrap().into()
}

#[test]
fn s43_memory_in_postcopy_is_answered_and_the_answer_acknowledged() {
    let ledger = Ledger::new();
    let fixture = wire::frontend_form("SET_MEM_TABLE", "postcopy");
    for flags in [1, 9] {
        let mut back = listening(&ledger);
        let Reaction::Sent(packet) = share(&mut back, flags, &ledger) else { panic!() };
        assert_eq!(packet.bytes, fixture.answers()[0].message(5), "one reply, whatever the flag");
        assert_eq!(back.session().postcopy(), Postcopy::Answered);
        // QEMU repeats one of three ids, or none.
        for id in [5, 37, 38, 0] {
            let mut back = back.clone();
            assert_eq!(say(&mut back, &message(id, &[0; 8]), Vec::new()), Reaction::Silent);
            assert_eq!(back.session().postcopy(), Postcopy::Listening);
            assert_works(&mut back);
        }
        // A reply is not it.
        crate::bad_input::closes(&back, &crate::stage::flagged(5, 5, &[0; 8]), 0);
        crate::bad_input::closes(&back, &crate::stage::flagged(5, 2, &[0; 8]), 0);
        // Other messages are not it, and are heard before it.
        let mut back = back;
        done(&mut back, 3, 9, &[], 0);
        assert_eq!(back.session().postcopy(), Postcopy::Answered);
        for (id, payload, descriptors) in
            [(5, vec![1; 8], 0), (37, vec![0; 8], 1), (0, vec![0; 9], 0), (39, vec![0; 8], 0)]
        {
            let taken =
                back.clone().handle_request(frame(&message(id, &payload), ledger.tokens(descriptors))).map(drop);
            assert!(taken.is_err(), "{id} {payload:?}");
        }
    }
    ledger.assert_settled();
}

#[test]
fn s43_several_regions_are_acknowledged_at_once() {
    let ledger = Ledger::new();
    let mut back = listening(&ledger);
    for region in &wire::region::REGIONS[..3] {
        let request = message(37, &Bytes::new().padding(8).raw(&region.plain()).done());
        let taken = back.handle_request(frame(&request, ledger.tokens(1))).unwrap();
        let Incoming::Request(FrontendRequest::AddMemReg(region, _)) = taken else { panic!() };
        let reaction = Reaction::from(back.answer(FrontendReply::<Token>::AddMemReg(region), &mut [0; 64]).unwrap());
        assert!(matches!(reaction, Reaction::Sent(_)));
    }
    assert_eq!(say(&mut back, &message(37, &[0; 8]), Vec::new()), Reaction::Silent);
    assert_eq!(done(&mut back, 30, 9, &[], 0), Some(wire::frontend_request("POSTCOPY_END").acknowledgement(0)));
    assert_eq!(back.session().postcopy(), Postcopy::Off);
    // From now on memory is acknowledged as usual.
    say(&mut back, &wire::frontend_form("SET_MEM_TABLE", "postcopy").request(), ledger.tokens(2));
    ledger.assert_settled();
}

#[test]
fn s44_device_state_is_transferred_before_anything_is_set_up() {
    let ledger = Ledger::new();
    // QEMU's destination loads before features, memory and rings.
    let mut back = crate::machines::back(feature::OFFERED, crate::stage::PROTOCOL_OFFERED);
    done(&mut back, 16, 1, &feature::DEVICE_STATE.to_ne_bytes(), 0);
    for (direction, name) in [(1, "usual"), (0, "save")] {
        let fixture = wire::frontend_form("SET_DEVICE_STATE_FD", name);
        let request = fixture.request();
        let taken = back.handle_request(frame(&request, ledger.tokens(1))).unwrap();
        let Incoming::Request(FrontendRequest::SetDeviceStateFd(transfer, _handle)) = taken else { panic!() };
        assert_eq!((transfer.direction(), transfer.phase()), (direction, 0));
        let reply = FrontendReply::<Token>::SetDeviceStateFd(0x100, None);
        let Reaction::Sent(packet) = back.answer(reply, &mut [0; 20]).unwrap().into() else { panic!() };
        assert_eq!(packet.bytes, fixture.answers()[0].message(42));
        let check = wire::frontend_request("CHECK_DEVICE_STATE");
        assert_eq!(done(&mut back, 43, 1, &[], 0), Some(check.answers()[0].message(43)));
    }
    ledger.assert_settled();
}
