//! One ring at a time: size, addresses, indices, descriptors, state.

use super::region::{RING, RING_LOG};
use super::{Bytes, Fixture, Layout, feature};

/// Bit 8 of the number that names a ring: no descriptor comes with it.
const NO_DESCRIPTOR: u64 = 1 << 8;

pub(super) fn requests() -> Vec<Fixture> {
    let [descriptors, used, available] = RING;
    let address = |index, flags| {
        let payload = Bytes::new().u32(index).u32(flags).u64(descriptors).u64(used).u64(available).u64(RING_LOG);
        Fixture::new(9, "SET_VRING_ADDR", Layout::VringAddress, payload)
    };
    let set_base = |num| state(10, "SET_VRING_BASE", 1, num);
    let get_base = |num| state(11, "GET_VRING_BASE", 1, 0).answer("base", Layout::VringState, ring(1, num), 0);
    let enable = |index, num| state(18, "SET_VRING_ENABLE", index, num).virtio(feature::PROTOCOL_FEATURES);
    let endian = |index, num| state(23, "SET_VRING_ENDIAN", index, num).gate(feature::CROSS_ENDIAN);
    [
        vec![
            state(8, "SET_VRING_NUM", 1, 256),
            address(1, 0),
            address(0, 1).form("logging"),
            set_base(0x0abc),
            set_base(0x8045_807b).form("packed"),
            get_base(0x0def),
            get_base(0x8056_808c).form("packed"),
            // DPDK's front-end leaves the number uninitialised; it means nothing in the request.
            state(11, "GET_VRING_BASE", 1, 0x0bad).form("number left over").answer(
                "base",
                Layout::VringState,
                ring(1, 0x0def),
                0,
            ),
            enable(0, 1),
            enable(1, 0).form("disable"),
            endian(1, 0),
            endian(0, 1).form("big-endian"),
            state(35, "VRING_KICK", 1, 0).gate(feature::INBAND_NOTIFICATIONS),
        ],
        event(12, "SET_VRING_KICK"),
        event(13, "SET_VRING_CALL"),
        event(14, "SET_VRING_ERR"),
    ]
    .concat()
}

fn event(id: u32, name: &'static str) -> Vec<Fixture> {
    let event = |value| Fixture::new(id, name, Layout::U64, Bytes::new().u64(value));
    vec![event(1).descriptors(1), event(1 | NO_DESCRIPTOR).form("no descriptor")]
}

fn state(id: u32, name: &'static str, index: u32, num: u32) -> Fixture {
    Fixture::new(id, name, Layout::VringState, ring(index, num))
}

fn ring(index: u32, num: u32) -> Bytes {
    Bytes::new().u32(index).u32(num)
}
