//! Messages of the kernel's IOTLB and of VDUSE, and an IOTLB that is told anything.

use vhost_core::{
    Access, GuestAddress, Iotlb, Iova, RingLayout,
    uapi::{
        iotlb::IotlbMessage,
        vduse_message::{VduseAnswer, VduseMessage, VduseVersion},
    },
    wire,
};
use zerocopy::FromBytes;

use crate::reader::Reader;

/// Decodes, encodes and decodes again; then updates and looks up.
pub fn run(data: &[u8]) {
    if let Ok(message) = IotlbMessage::decode(data) {
        assert_eq!(IotlbMessage::decode(&message.encode()), Ok(message));
    }
    for version in [VduseVersion::V0, VduseVersion::V1] {
        let Ok(message) = VduseMessage::decode(data, version) else { continue };
        assert_eq!(VduseMessage::decode(&message.encode(), version).as_ref(), Ok(&message));
        for form in [RingLayout::Split, RingLayout::Packed] {
            if let Ok((id, answer)) = VduseAnswer::decode(data, message.request, form) {
                assert_eq!(VduseAnswer::decode(&answer.encode(id), message.request, form), Ok((id, answer)));
            }
        }
    }
    let mut table = Iotlb::<GuestAddress, 4>::new();
    let mut reader = Reader(data);
    while !reader.0.is_empty() {
        let bytes = reader.take(wire::iotlb::Iotlb::SIZE);
        let Ok(message) = wire::iotlb::Iotlb::read_from_bytes(bytes) else { return };
        let before = table.clone();
        if table.apply(&message).is_err() {
            assert_eq!(table, before, "a message that means nothing changes nothing");
        }
        assert!(table.entries().is_sorted_by(|one, other| one.last < other.first), "translations overlap");
        let mut recent = 0;
        let found = table.look_up(message.iova(), Access::Read, &mut recent);
        let covering = table.entries().iter().find(|entry| (entry.first..=entry.last).contains(&message.iova()));
        assert_eq!(found.is_ok(), covering.is_some_and(|entry| entry.access.reads()));
        table.invalidate(Iova(message.size()), u64::from(message.permission()));
    }
}
