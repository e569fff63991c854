//! VDUSE messages against bytes written by hand.

use vhost_core::uapi::MessageFault;
use vhost_core::uapi::bits::DeviceStatus;
use vhost_core::uapi::vduse_message::{VduseAnswer, VduseMessage, VduseRequest, VduseVersion};
use vhost_core::wire::vring::VringBase;
use vhost_core::{Iova, RingLayout};

const ID: u32 = 0x0102_0304;

/// struct vduse_dev_request or vduse_dev_response: two words, four reserved ones, a union of 128 bytes.
fn by_hand(first: u32, second: u32, body: &[&[u8]]) -> Vec<u8> {
    let mut bytes = [&first.to_ne_bytes()[..], &second.to_ne_bytes(), &[0; 16]].concat();
    bytes.extend(body.concat());
    bytes.resize(152, 0);
    bytes
}

#[test]
fn every_request_is_the_bytes_written_by_hand() {
    let status = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::from_bits_retain(32);
    let (first, last) = (0x1000_u64.to_ne_bytes(), u64::MAX.to_ne_bytes());
    let range = |asid| VduseRequest::UpdateIotlb { first: Iova(0x1000), last: Iova(u64::MAX), asid };
    let (group, asid) = (2_u32.to_ne_bytes(), 5_u32.to_ne_bytes());
    let (v0, v1) = (VduseVersion::V0, VduseVersion::V1);
    let cases = [
        (v0, VduseRequest::GetVringState { index: 2 }, by_hand(0, ID, &[&group])),
        (v0, VduseRequest::SetStatus(status), by_hand(1, ID, &[&[1 + 2 + 32]])),
        (v0, range(0), by_hand(2, ID, &[&first, &last])),
        (v1, range(5), by_hand(2, ID, &[&first, &last, &asid])),
        (v1, VduseRequest::SetGroupAsid { group: 2, asid: 5 }, by_hand(3, ID, &[&group, &asid])),
        (v0, VduseRequest::Unknown { request_type: 3 }, by_hand(3, ID, &[])),
        (v1, VduseRequest::Unknown { request_type: 4 }, by_hand(4, ID, &[])),
    ];
    for (version, request, bytes) in cases {
        let message = VduseMessage { id: ID, request };
        assert_eq!(message.encode(), bytes[..], "{message:?}");
        assert_eq!(VduseMessage::decode(&bytes, version), Ok(message));
    }
    let too_short = MessageFault::TooShort { expected: 152, found: 151 };
    assert_eq!(VduseMessage::decode(&by_hand(1, ID, &[])[..151], v0), Err(too_short));
}

#[test]
fn version_0_has_no_address_spaces_whatever_the_bytes_say() {
    let bytes = by_hand(2, ID, &[&[0; 8], &[0xff; 8], &[9, 9, 9, 9]]);
    let request = VduseRequest::UpdateIotlb { first: Iova(0), last: Iova(u64::MAX), asid: 0 };
    assert_eq!(VduseMessage::decode(&bytes, VduseVersion::V0), Ok(VduseMessage { id: ID, request }));
}

#[test]
fn every_answer_is_the_bytes_written_by_hand() {
    let half = u16::to_ne_bytes;
    let index = 1_u32.to_ne_bytes();
    let ask = VduseRequest::GetVringState { index: 1 };
    let split = VduseAnswer::Position { index: 1, base: VringBase::Split { available: 0xfffe } };
    let packed = VringBase::Packed { available: 17, available_wrap: true, used: 9, used_wrap: false };
    let packed = VduseAnswer::Position { index: 1, base: packed };
    let status = VduseRequest::SetStatus(DeviceStatus::empty());
    let cases = [
        (VduseAnswer::Done, status, RingLayout::Split, by_hand(ID, 0, &[])),
        (VduseAnswer::Failed, status, RingLayout::Split, by_hand(ID, 1, &[])),
        (VduseAnswer::Failed, ask, RingLayout::Split, by_hand(ID, 1, &[])),
        (split, ask, RingLayout::Split, by_hand(ID, 0, &[&index, &half(0xfffe)])),
        (packed, ask, RingLayout::Packed, by_hand(ID, 0, &[&index, &half(1), &half(17), &half(0), &half(9)])),
    ];
    for (answer, request, form, bytes) in cases {
        assert_eq!(answer.encode(ID), bytes[..], "{answer:?}");
        assert_eq!(VduseAnswer::decode(&bytes, request, form), Ok((ID, answer)));
    }
    let mut reserved = by_hand(ID, 0, &[]);
    reserved[23] = 8;
    let fault = MessageFault::Field { name: "reserved", expected: "0", found: 8 };
    assert_eq!(VduseAnswer::decode(&reserved, status, RingLayout::Split), Err(fault));
}
