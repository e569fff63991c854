//! IOTLB messages against bytes written by hand.

use vhost_core::uapi::MessageFault;
use vhost_core::uapi::iotlb::{Access, IotlbMessage, IotlbRequest, IotlbVersion};
use vhost_core::{Iova, UserAddress};

const IOVA: u64 = 0x1122_3344_5566_7000;
const SIZE: u64 = 0x2000;
const USER: u64 = 0x7fff_1234_5000;

/// struct vhost_msg (version 1) or vhost_msg_v2 (version 2) with a struct vhost_iotlb_msg at byte 8.
fn by_hand(version: u32, asid: u32, (iova, size, user): (u64, u64, u64), perm: u8, kind: u8) -> Vec<u8> {
    let mut bytes = vec![0; 72];
    bytes[0..4].copy_from_slice(&version.to_ne_bytes());
    bytes[4..8].copy_from_slice(&asid.to_ne_bytes());
    bytes[8..16].copy_from_slice(&iova.to_ne_bytes());
    bytes[16..24].copy_from_slice(&size.to_ne_bytes());
    bytes[24..32].copy_from_slice(&user.to_ne_bytes());
    bytes[32] = perm;
    bytes[33] = kind;
    bytes
}

fn update() -> IotlbRequest {
    IotlbRequest::Update { iova: Iova(IOVA), size: SIZE, user_address: UserAddress(USER), access: Access::ReadWrite }
}

#[test]
fn every_message_is_the_bytes_written_by_hand() {
    let (v1, v2) = (IotlbVersion::V1, IotlbVersion::V2 { asid: 7 });
    let read = Access::Read;
    let cases = [
        (v1, IotlbRequest::Miss { iova: Iova(IOVA), access: read }, by_hand(1, 0, (IOVA, 0, 0), 1, 1)),
        (v2, IotlbRequest::Miss { iova: Iova(IOVA), access: Access::Write }, by_hand(2, 7, (IOVA, 0, 0), 2, 1)),
        (v1, update(), by_hand(1, 0, (IOVA, SIZE, USER), 3, 2)),
        (v2, update(), by_hand(2, 7, (IOVA, SIZE, USER), 3, 2)),
        (v2, IotlbRequest::Invalidate { iova: Iova(IOVA), size: SIZE }, by_hand(2, 7, (IOVA, SIZE, 0), 0, 3)),
        (v1, IotlbRequest::AccessFail { iova: Iova(IOVA), access: read }, by_hand(1, 0, (IOVA, 0, 0), 1, 4)),
        (v2, IotlbRequest::BatchBegin, by_hand(2, 7, (0, 0, 0), 0, 5)),
        (v2, IotlbRequest::BatchEnd, by_hand(2, 7, (0, 0, 0), 0, 6)),
    ];
    for (version, request, bytes) in cases {
        let message = IotlbMessage { version, request };
        assert_eq!(message.encode(), bytes[..], "{message:?}");
        assert_eq!(IotlbMessage::decode(&bytes), Ok(message));
        assert_eq!(IotlbMessage::decode(&bytes[..40]), Ok(message), "the kernel looks at 40 bytes");
    }
}

#[test]
fn version_1_ignores_what_lies_where_version_2_has_the_address_space() {
    let bytes = by_hand(1, 0xdead_beef, (IOVA, SIZE, USER), 3, 2);
    assert_eq!(IotlbMessage::decode(&bytes), Ok(IotlbMessage { version: IotlbVersion::V1, request: update() }));
}

#[test]
fn bytes_that_are_no_message_are_refused_by_name() {
    let update = |version, size, perm, kind| by_hand(version, 0, (IOVA, size, USER), perm, kind);
    let fault = |name, expected, found| MessageFault::Field { name, expected, found };
    let cases = [
        (update(1, SIZE, 3, 2)[..39].to_vec(), MessageFault::TooShort { expected: 40, found: 39 }),
        (update(0, SIZE, 3, 2), fault("type", "1 or 2", 0)),
        (update(3, SIZE, 3, 2), fault("type", "1 or 2", 3)),
        (update(2, 0, 3, 2), fault("size", "1 or more", 0)),
        (update(2, SIZE, 0, 2), fault("perm", "1, 2 or 3", 0)),
        (update(2, SIZE, 4, 2), fault("perm", "1, 2 or 3", 4)),
        (update(2, SIZE, 3, 0), fault("iotlb.type", "1 to 6", 0)),
        (update(2, SIZE, 3, 7), fault("iotlb.type", "1 to 6", 7)),
    ];
    for (bytes, expected) in cases {
        assert_eq!(IotlbMessage::decode(&bytes), Err(expected));
    }
}
