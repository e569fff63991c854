//! The requests of a back-end.

use super::device::UUID;
use super::feature::{self, BACKEND_REQ, BACKEND_SEND_FD};
use super::{Bytes, Fixture, Layout};

pub(super) fn requests() -> Vec<Fixture> {
    [iotlb(), rings(), objects(), mappings()].concat()
}

fn iotlb() -> Vec<Fixture> {
    let iotlb = |iova, permission, kind| {
        let payload = Bytes::new().u64(iova).u64(0).u64(0).u8(permission).u8(kind).padding(6);
        Fixture::new(1, "IOTLB_MSG", Layout::Iotlb, payload).gate(BACKEND_REQ).virtio(feature::IOMMU_PLATFORM)
    };
    vec![
        iotlb(0xbbbb_1000, 2, 1),
        iotlb(0xbbbb_3000, 3, 4).form("access fail"),
        Fixture::new(2, "CONFIG_CHANGE_MSG", Layout::Empty, Bytes::new()).gate(BACKEND_REQ | feature::CONFIG),
    ]
}

fn rings() -> Vec<Fixture> {
    let area = |ring, size, offset| {
        let payload = Bytes::new().u64(ring).u64(size).u64(offset);
        Fixture::new(3, "VRING_HOST_NOTIFIER_MSG", Layout::VringArea, payload)
            .gate(BACKEND_REQ | feature::HOST_NOTIFIER)
    };
    let event = |id, name| {
        Fixture::new(id, name, Layout::VringState, Bytes::new().u32(1).u32(0))
            .gate(BACKEND_REQ | feature::INBAND_NOTIFICATIONS)
    };
    vec![
        area(1, 0x1000, 0x3000).descriptors(1).gate(BACKEND_SEND_FD),
        area(0x101, 0x1000, 0).form("no descriptor"),
        event(4, "VRING_CALL"),
        event(5, "VRING_ERR"),
    ]
}

fn objects() -> Vec<Fixture> {
    let object = |id, name| {
        Fixture::new(id, name, Layout::Uuid, Bytes::new().raw(&UUID)).gate(BACKEND_REQ | feature::SHARED_OBJECT)
    };
    vec![
        object(6, "SHARED_OBJECT_ADD"),
        object(7, "SHARED_OBJECT_REMOVE"),
        object(8, "SHARED_OBJECT_LOOKUP").answer("found", Layout::U64, Bytes::new().u64(0), 1).answer(
            "not found",
            Layout::U64,
            Bytes::new().u64(1),
            0,
        ),
    ]
}

fn mappings() -> Vec<Fixture> {
    let mapping = |id, name, fd_offset, flags| {
        let payload = Bytes::new().u8(7).padding(7).u64(fd_offset).u64(0x4000).u64(0x2000).u64(flags);
        Fixture::new(id, name, Layout::Mapping, payload).gate(BACKEND_REQ | feature::SHMEM)
    };
    vec![
        mapping(9, "SHMEM_MAP", 0x3000, 1).descriptors(1).gate(BACKEND_SEND_FD),
        mapping(9, "SHMEM_MAP", 0x3000, 0).form("read-only").descriptors(1).gate(BACKEND_SEND_FD),
        mapping(10, "SHMEM_UNMAP", 0, 0),
    ]
}
