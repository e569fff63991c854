//! What is said of messages, peers and callers.

use crate::say;
use vhost_core::wire::payload::{Field, PayloadFault};
use vhost_core::wire::row::HandleCount;
use vhost_core::{
    ApiMisuse, Channel, DecodeError, Fault, FrontendCode, GpuFeatures, GpuViolation, GuestAddress, MemoryFault,
    MessageName, PeerMisbehaved, Postcopy, ProtocolFeatures, RegionExtent, UserAddress, Violation, VirtioFeatures,
};

fn message() -> MessageName {
    FrontendCode::SET_VRING_NUM.message()
}

fn other() -> MessageName {
    FrontendCode::GET_FEATURES.message()
}

#[test]
fn bytes_that_are_wrong() {
    let (message, channel) = (message(), Channel::Backend);
    say([
        (DecodeError::Version { message, found: 2 }, "SET_VRING_NUM (8): expected protocol version 1, found 2"),
        (
            DecodeError::Flags { message, expected: 5, found: 0xd },
            "SET_VRING_NUM (8): expected the flags 0x5, found 0xd",
        ),
        (
            DecodeError::HandlesAfterStart { channel },
            "descriptors came after the first byte of a message on the Backend channel",
        ),
        (
            DecodeError::TooManyHandles { channel, limit: 8 },
            "more than 8 descriptors came with a message on the Backend channel",
        ),
        (DecodeError::ReplyInsteadOfRequest { message }, "SET_VRING_NUM (8): expected a request, found the reply flag"),
        (DecodeError::RequestInsteadOfReply { message }, "SET_VRING_NUM (8): expected a reply, found no reply flag"),
        (DecodeError::UnknownRequest { message }, "SET_VRING_NUM (8) is unknown"),
        (
            DecodeError::Payload { message, fault: PayloadFault::Field { field: Field::RegionCount, found: 16 } },
            "SET_VRING_NUM (8): field count: expected at most 8 regions, found 0x10",
        ),
    ]);
    say([
        (Field::MappingCount, "count: expected at most 32 mappings"),
        (Field::ConfigSize, "size: expected at most the number of bytes that follow"),
        (Field::RegionSizes, "sizes: expected whole numbers of 8 bytes"),
        (Field::EdidSize, "size: expected at most 1024 bytes"),
        (Field::CipherKeyLength, "cipher key length: expected at most 64 bytes"),
        (Field::AuthenticationKeyLength, "authentication key length: expected at most 512 bytes"),
        (Field::KeyLength, "key length: expected at most 1024 bytes"),
        (Field::Parameters, "parameters: expected room for what stands in front"),
    ]);
}

#[test]
fn peers_that_misbehave() {
    let (message, other) = (message(), other());
    let region = |guest| RegionExtent { guest_address: GuestAddress(guest), size: 16, user_address: UserAddress(32) };
    say([
        (
            PeerMisbehaved::Violation { message, violation: Violation::RingIndex { found: 4, rings: 2 } },
            "SET_VRING_NUM (8): expected a ring below 2, found 4",
        ),
        (PeerMisbehaved::UnsolicitedReply { message }, "SET_VRING_NUM (8): a reply came, but nothing was asked"),
        (
            PeerMisbehaved::WrongReply { expected: message, found: other },
            "expected the reply to SET_VRING_NUM (8), found one to GET_FEATURES (1)",
        ),
        (
            PeerMisbehaved::WrongRegionCount { message, expected: 2, found: 3 },
            "SET_VRING_NUM (8): expected a reply with 2 memory regions, found 3",
        ),
        (
            PeerMisbehaved::WrongRegion { message, expected: region(0), found: region(1) },
            "SET_VRING_NUM (8): expected a reply about 0x10 bytes at guest 0x0, user 0x20, \
             found one about 0x10 bytes at guest 0x1, user 0x20",
        ),
        (
            PeerMisbehaved::WrongRing { message, expected: 1, found: 0 },
            "SET_VRING_NUM (8): expected a reply about ring 1, found one about 0",
        ),
    ]);
}

#[test]
fn callers_that_ask_for_what_makes_no_sense() {
    let (message, other) = (message(), other());
    let violation = Violation::RingRunning { ring: 1 };
    say([
        (ApiMisuse::Violation { message, violation }, "SET_VRING_NUM (8) must not be sent: ring 1 runs"),
        (ApiMisuse::BufferTooSmall { message, given: 19 }, "SET_VRING_NUM (8) does not fit into a buffer of 19 bytes"),
        (
            ApiMisuse::HandleCount { message, expected: HandleCount { least: 0, most: 1 }, found: 2 },
            "SET_VRING_NUM (8) takes 0 to 1 descriptors, not 2",
        ),
        (ApiMisuse::TooManyOutstanding { limit: 4 }, "4 requests are outstanding, which is the limit"),
        (ApiMisuse::MemoryOutstanding, "memory is outstanding that must be answered first"),
        (ApiMisuse::ImageOutstanding { left: 12 }, "12 bytes of an image must be sent first"),
        (ApiMisuse::ImageTooLong { left: 12, found: 13 }, "expected at most 12 bytes of an image to be sent, found 13"),
        (ApiMisuse::NothingToAnswer, "there is no request to answer"),
        (ApiMisuse::AnswerOutstanding { message }, "SET_VRING_NUM (8) must be answered first"),
        (
            ApiMisuse::AnswerDoesNotFit { expected: message, found: Some(other) },
            "expected an answer to SET_VRING_NUM (8), found one to GET_FEATURES (1)",
        ),
        (ApiMisuse::AnswerDoesNotFit { expected: other, found: None }, "GET_FEATURES (1) needs a reply with content"),
        (
            ApiMisuse::AnswerDiffers { message, field: "ring", expected: 1, found: 2 },
            "SET_VRING_NUM (8): expected an answer with ring 1, found 2",
        ),
        (ApiMisuse::SessionFailed, "the session has failed"),
    ]);
    say([
        (Fault::Caller(ApiMisuse::SessionFailed), "the session has failed"),
        (Fault::Bytes(DecodeError::UnknownRequest { message }), "SET_VRING_NUM (8) is unknown"),
        (
            Fault::Peer(PeerMisbehaved::UnsolicitedReply { message: other }),
            "GET_FEATURES (1): a reply came, but nothing was asked",
        ),
    ]);
}

#[test]
fn rules_that_are_broken() {
    let features = VirtioFeatures::VERSION_1;
    let protocol = ProtocolFeatures::HOST_NOTIFIER;
    say([
        (Violation::FeaturesNotOffered { excess: features }, "features 0x100000000 were not offered"),
        (Violation::FeaturesWhileRunning { changed: features }, "features 0x100000000 changed while a ring runs"),
        (
            Violation::ProtocolFeaturesNotOffered { excess: protocol },
            "protocol features ProtocolFeatures(HOST_NOTIFIER) were not offered",
        ),
        (
            Violation::ProtocolFeatureNeeds { feature: protocol, missing: ProtocolFeatures::BACKEND_REQ },
            "protocol feature ProtocolFeatures(HOST_NOTIFIER) needs ProtocolFeatures(BACKEND_REQ)",
        ),
        (
            Violation::RingSize { ring: 1, found: 3 },
            "ring 1: expected a size of 1 to 32768, a power of two if split, found 3",
        ),
        (
            Violation::RingAddress { ring: 1, part: "used ring", found: 2, alignment: 4 },
            "ring 1: expected the used ring at a multiple of 4 and not wrapping around, found 0x2",
        ),
        (Violation::NotZeroOrOne { ring: 1, found: 2 }, "ring 1: expected 0 or 1, found 2"),
        (
            Violation::ExtentWraps { size: 0x1000, offset: u64::MAX },
            "0x1000 bytes at offset 0xffffffffffffffff wrap around",
        ),
        (Violation::InflightQueues { found: 3, rings: 2 }, "expected an inflight record of at most 2 rings, found 3"),
        (Violation::Status { found: 256 }, "expected a device status of eight bits, found 0x100"),
        (
            Violation::Transfer { direction: 2, phase: 1 },
            "expected direction 0 or 1 and phase 0, found direction 2 and phase 1",
        ),
        (Violation::NoBackendChannel, "there is no channel for requests of the back-end yet"),
        (Violation::PostcopyOrder { state: Postcopy::Answered }, "postcopy migration is at Answered"),
        (Violation::Gpu(GpuViolation::Scanout { found: 1, scanouts: 1 }), "expected a scanout below 1, found 1"),
        (Violation::Memory(MemoryFault::TooMany { slots: 8 }), "more memory regions than the 8 slots"),
    ]);
    say([
        (
            GpuViolation::FeaturesNotOffered { excess: GpuFeatures::EDID },
            "GPU features GpuFeatures(EDID) were not offered",
        ),
        (
            GpuViolation::UpdateOutstanding { scanout: 2, limit: 1 },
            "1 updates of scanout 2 wait for the display, which is the limit",
        ),
    ]);
}

#[test]
fn memory_that_cannot_be_like_that() {
    let region = |guest, user| RegionExtent {
        guest_address: GuestAddress(guest),
        size: 0x1000,
        user_address: UserAddress(user),
    };
    let (first, second) = (region(0, 0x7000), region(0x800, 0x9000));
    say([
        (MemoryFault::Empty(first), "the memory region of 0x1000 bytes at guest 0x0, user 0x7000 is empty"),
        (MemoryFault::Wraps(first), "the memory region of 0x1000 bytes at guest 0x0, user 0x7000 wraps around"),
        (
            MemoryFault::Overlap { first, second },
            "memory regions overlap: 0x1000 bytes at guest 0x0, user 0x7000; 0x1000 bytes at guest 0x800, user 0x9000",
        ),
        (MemoryFault::Unknown(second), "no memory region of 0x1000 bytes at guest 0x800, user 0x9000 was added"),
    ]);
}
