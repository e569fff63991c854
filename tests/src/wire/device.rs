//! What only some devices have: network, IOMMU, config space, crypto, GPU, shared objects, shared memory.

use super::{Bytes, Fixture, Layout, feature};

/// The names of shared objects begin with three big-endian fields, so a receiver that swaps bytes is noticed.
pub(super) const UUID: [u8; 16] =
    [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe];

const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
const SESSION: u64 = 0x0102_0304_0506_0708;

pub(super) fn requests() -> Vec<Fixture> {
    [network(), addresses(), config(), crypto(), shared()].concat()
}

fn network() -> Vec<Fixture> {
    vec![
        Fixture::new(19, "SEND_RARP", Layout::U64, Bytes::new().raw(&MAC).padding(2)).gate(feature::RARP),
        Fixture::new(20, "NET_SET_MTU", Layout::U64, Bytes::new().u64(9000))
            .gate(feature::MTU)
            .virtio(feature::NET_MTU),
    ]
}

fn addresses() -> Vec<Fixture> {
    let iotlb = |iova, size, user, permission, kind| {
        let payload = Bytes::new().u64(iova).u64(size).u64(user).u8(permission).u8(kind).padding(6);
        Fixture::new(22, "IOTLB_MSG", Layout::Iotlb, payload)
            .virtio(feature::IOMMU_PLATFORM)
            .answer("done", Layout::U64, Bytes::new().u64(0), 0)
            .answer("refused", Layout::U64, Bytes::new().u64(1), 0)
    };
    vec![iotlb(0xbbbb_1000, 0x2000, 0x7f01_1330_4000, 3, 2), iotlb(0xbbbb_1000, 0x2000, 0, 0, 3).form("invalidate")]
}

fn config() -> Vec<Fixture> {
    let payload = |flags, data: [u8; 8]| Bytes::new().u32(0x14).u32(8).u32(flags).raw(&data);
    let read = [0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8];
    let written = [0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8];
    vec![
        Fixture::new(24, "GET_CONFIG", Layout::Config, payload(0, [0; 8]))
            .gate(feature::CONFIG)
            .answer("contents", Layout::Config, payload(0, read), 0)
            .answer("refused", Layout::Empty, Bytes::new(), 0),
        Fixture::new(25, "SET_CONFIG", Layout::Config, payload(1, written)).form("migration").gate(feature::CONFIG),
        Fixture::new(25, "SET_CONFIG", Layout::Config, payload(0, written)).gate(feature::CONFIG),
    ]
}

fn crypto() -> Vec<Fixture> {
    // The parameters of the session are a union that the transport passes on; 251 is prime, so no block repeats aligned.
    let parameters = Vec::from_iter((0..1056_u32).map(|index| u8::try_from(index % 251).unwrap()));
    let session = |id: i64| Bytes::new().u64(0x0302).raw(&parameters).raw(&id.to_ne_bytes());
    vec![
        Fixture::new(26, "CREATE_CRYPTO_SESSION", Layout::CryptoSession, session(0))
            .gate(feature::CRYPTO_SESSION)
            .answer("created", Layout::CryptoSession, session(i64::try_from(SESSION).unwrap()), 0)
            .answer("refused", Layout::CryptoSession, session(-1), 0),
        Fixture::new(27, "CLOSE_CRYPTO_SESSION", Layout::U64, Bytes::new().u64(SESSION)).gate(feature::CRYPTO_SESSION),
    ]
}

fn shared() -> Vec<Fixture> {
    let uuid = || Bytes::new().raw(&UUID);
    let object = |layout, payload| {
        Fixture::new(41, "GET_SHARED_OBJECT", layout, payload)
            .gate(feature::SHARED_OBJECT)
            .answer("found", Layout::Empty, Bytes::new(), 1)
            .answer("not found", Layout::Empty, Bytes::new(), 0)
    };
    // Indexed by region; the count is that of the regions that exist.
    let mut sizes = [0; 256];
    sizes[1] = 0x10_0000;
    sizes[7] = 0x20_0000;
    sizes[255] = 0x40_0000;
    let sizes = sizes.iter().fold(Bytes::new().u32(3).padding(4), |bytes, &size| bytes.u64(size));
    vec![
        Fixture::new(21, "SET_BACKEND_REQ_FD", Layout::Empty, Bytes::new()).descriptors(1).gate(feature::BACKEND_REQ),
        Fixture::new(33, "GPU_SET_SOCKET", Layout::Empty, Bytes::new()).descriptors(1),
        // libvhost-user repeats the request's payload.
        object(Layout::Uuid, uuid()).answer("found, name repeated", Layout::Uuid, uuid(), 1),
        // So says QEMU 11.1: the name is missing.
        object(Layout::Empty, Bytes::new()).form("no name"),
        Fixture::new(44, "GET_SHMEM_CONFIG", Layout::Empty, Bytes::new()).gate(feature::SHMEM).answer(
            "sizes",
            Layout::SharedMemory,
            sizes,
            0,
        ),
    ]
}
