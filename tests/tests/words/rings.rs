//! What is said of rings, their chains, records and logs, and of guest memory.

use crate::say;
use vhost_core::{
    Access, AddError, ChainFault, ChainFaultKind, DriverFault, GuestAddress, Iova, LogFault, Miss, PartFault, PopError,
    RingFault, RingLayout, RingPart, Unmapped,
};

#[test]
fn rings_that_cannot_be_used() {
    say([
        (
            RingFault::Size { layout: RingLayout::Split, size: 3 },
            "size 3 of a split ring, expected a power of two from 1 to 32768",
        ),
        (
            RingFault::Size { layout: RingLayout::Packed, size: 0 },
            "size 0 of a packed ring, expected a number from 1 to 32768",
        ),
        (RingFault::Capacity { size: 8, capacity: 4 }, "ring of 8 descriptors, room for 4"),
        (RingFault::AvailableAhead { available: 20, next: 3, size: 8 }, "available index 20 is more than 8 ahead of 3"),
        (
            RingFault::HeadBeyondTable { position: 3, head: 9, size: 8 },
            "available entry 3 names descriptor 9 of a table of 8",
        ),
        (RingFault::EndlessChain { index: 1, size: 8 }, "the chain at descriptor 1 has no end within a ring of 8"),
        (RingFault::Overcommitted { held: 8, size: 8 }, "more made available while the device holds 8 of 8"),
        (RingFault::Access { part: RingPart::UsedRing, offset: 2 }, "used ring cannot be accessed at its byte 2"),
        (RingFault::NoInflight, "the ring has no inflight record"),
        (RingFault::Base { layout: RingLayout::Packed, size: 4, base: 5 }, "0x5 is no base of a packed ring of 4"),
    ]);
}

#[test]
fn parts_that_cannot_be_where_they_are_said_to_be() {
    let part = RingPart::DescriptorTable;
    say([
        (
            PartFault::Misaligned { part, address: 0x18, alignment: 16 },
            "descriptor table at 0x18, expected a multiple of 16",
        ),
        (
            PartFault::Unmapped { part, address: 0x10, length: 128, cause: Unmapped::Outside },
            "descriptor table of 128 bytes at 0x10: outside guest memory",
        ),
        (
            PartFault::Ring(RingFault::Overcommitted { held: 8, size: 8 }),
            "more made available while the device holds 8 of 8",
        ),
    ]);
}

#[test]
fn chains_that_are_malformed() {
    let fault = |kind| ChainFault { part: RingPart::DescriptorTable, index: 2, kind };
    say([
        (
            fault(ChainFaultKind::TooLong),
            "descriptor 2 of the descriptor table makes the chain longer than 2^32 - 1 bytes",
        ),
        (
            fault(ChainFaultKind::TooManyPieces),
            "descriptor 2 of the descriptor table is one piece more than there is room for",
        ),
    ]);
}

#[test]
fn chains_that_a_driver_cannot_add_and_devices_that_break_its_ring() {
    say([
        (AddError::Full { needed: 3, free: 2 }, "3 descriptors needed, 2 free"),
        (AddError::IndirectNotNegotiated, "indirect tables were not negotiated"),
        (AddError::TableTooSmall { needed: 48, found: 32 }, "indirect table of 32 descriptors, expected 48"),
    ]);
    say([
        (DriverFault::UsedAhead { used: 9, next: 3, outstanding: 2 }, "used index 9 is more than 2 ahead of 3"),
        (DriverFault::UnfinishedBatch { token: 4 }, "the used index ends before chain 4 of its batch"),
    ]);
}

#[test]
fn records_and_logs() {
    say([
        (RingFault::InflightEntry { found: 5, size: 4 }, "chain 5 in flight on a ring of 4"),
        (RingFault::InflightNoRoom { room: 2 }, "more than 2 chains in flight"),
        (RingFault::InflightVersion { found: 2 }, "inflight record of version 2, expected 0 or 1"),
        (
            RingFault::InflightBatch { count: 9, size: 8 },
            "inflight record with a last batch of 9 chains on a ring of 8",
        ),
    ]);
    say([(
        RingFault::Access { part: RingPart::InflightRecord, offset: 8 },
        "inflight record cannot be accessed at its byte 8",
    )]);
    let fault = RingFault::Log { part: RingPart::UsedRing, offset: 4 };
    assert_eq!(fault.to_string(), "a write to the used ring at its byte 4 is beyond the dirty log");
    let fault = LogFault { address: GuestAddress(0x8000), length: 2 };
    assert_eq!(fault.to_string(), "2 bytes written at 0x8000 are beyond the dirty log");
}

#[test]
fn addresses_without_memory() {
    let miss = |access| Miss { iova: Iova(0x1000), access };
    say([
        (Unmapped::Miss(miss(Access::Read)), "no translation of 0x1000 for reading"),
        (Unmapped::Miss(miss(Access::ReadWrite)), "no translation of 0x1000 for reading and writing"),
        (Unmapped::Denied(miss(Access::Write)), "the translation of 0x1000 does not allow writing"),
    ]);
    let miss = PopError::Miss(miss(Access::Read));
    assert_eq!(miss.to_string(), "no translation of 0x1000 for reading");
    say([(RingLayout::Split, "split"), (RingLayout::Packed, "packed")]);
}
