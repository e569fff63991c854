//! Messages of the kernel's IOTLB and of VDUSE, and an IOTLB that is told anything, beside a table with a line for each address.

use vhost_core::{
    Access, GuestAddress, Iotlb, Iova, RingLayout, Unmapped,
    uapi::{
        iotlb::IotlbMessage,
        vduse_layout::VringPosition,
        vduse_message::{VduseAnswer, VduseMessage, VduseVersion},
    },
    wire,
};
use zerocopy::FromBytes;

use crate::reader::Reader;

/// What a first byte asks for.
const MESSAGES: u8 = 0;

/// Reads messages, or tells an IOTLB.
pub fn run(data: &[u8]) {
    let mut reader = Reader(data);
    match reader.byte().map(|kind| kind % 3) {
        None => {}
        Some(MESSAGES) => messages(reader.0),
        Some(1) => any_translations(reader),
        Some(_) => translations(reader),
    }
}

/// Decodes, encodes and decodes again; then updates and looks up.
fn messages(data: &[u8]) {
    if let Ok(message) = IotlbMessage::decode(data) {
        assert_eq!(IotlbMessage::decode(&message.encode()), Ok(message));
    }
    for version in [VduseVersion::V0, VduseVersion::V1] {
        let Ok(message) = VduseMessage::decode(data, version) else { continue };
        assert_eq!(VduseMessage::decode(&message.encode(), version).as_ref(), Ok(&message));
        for layout in [RingLayout::Split, RingLayout::Packed] {
            if let Ok((id, answer)) = VduseAnswer::decode(data, message.request, layout) {
                assert_eq!(VduseAnswer::decode(&answer.encode(id), message.request, layout), Ok((id, answer)));
            }
        }
    }
    if let Ok((position, _)) = VringPosition::read_from_prefix(data) {
        for layout in [RingLayout::Split, RingLayout::Packed] {
            let base = position.base(layout);
            assert_eq!(VringPosition::from(base).base(layout), base);
        }
    }
}

/// Messages of any content.
fn any_translations(mut reader: Reader<'_>) {
    let mut table = Iotlb::<GuestAddress, 4>::new();
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

/// Updates, invalidations and look-ups of 256 addresses.
fn translations(mut reader: Reader<'_>) {
    const ROOM: usize = 16;
    let mut table = Iotlb::<GuestAddress, ROOM>::new();
    let mut lines = [None; 256];
    let mut recent = 0;
    // Then translations may have made room for others, and miss.
    let mut was_full = false;
    while let (Some(operation), Some(first), Some(size)) = (reader.byte(), reader.byte(), reader.byte()) {
        let iova = Iova(first.into());
        let access = [Access::Read, Access::Write, Access::ReadWrite][usize::from(operation >> 2) % 3];
        let end = usize::from(first) + usize::from(size);
        let meant = usize::from(first)..end.min(lines.len());
        match operation & 3 {
            0 | 1 => {
                let target = u64::from(operation) << 20;
                let told = table.update(iova, size.into(), GuestAddress(target), access);
                assert_eq!(told.is_ok(), size > 0);
                for (line, target) in lines[meant].iter_mut().zip(target..) {
                    *line = Some((target, access));
                }
            }
            2 => {
                table.invalidate(iova, size.into());
                let meant = if size == 0 { usize::from(first)..lines.len() } else { meant };
                lines[meant].fill(None);
            }
            _ => {
                let found = table.look_up(iova, access, &mut recent);
                match (found, lines[usize::from(first)]) {
                    (Ok((GuestAddress(target), length)), Some((expected, allowed))) => {
                        assert!(target == expected && allowed.allows(access), "another translation");
                        let last = usize::from(first) + usize::try_from(length).expect("short") - 1;
                        let line = lines.get(last).copied().flatten();
                        assert!(last >= lines.len() || line == Some((target + length - 1, allowed)), "too long");
                    }
                    (Err(Unmapped::Denied(_)), Some((_, allowed))) => assert!(!allowed.allows(access)),
                    (Err(Unmapped::Miss(_)), None) => {}
                    (Err(Unmapped::Miss(_)), Some(_)) if was_full => {}
                    (found, line) => panic!("{found:?} where {line:?} was told"),
                }
            }
        }
        was_full |= table.entries().len() == ROOM;
        assert!(table.entries().is_sorted_by(|one, other| one.last < other.first), "translations overlap");
    }
}
