//! Postcopy, inflight requests, device state.

use super::{Bytes, Fixture, Layout, feature};

pub(super) fn requests() -> Vec<Fixture> {
    [postcopy(), inflight(), state()].concat()
}

fn postcopy() -> Vec<Fixture> {
    let postcopy = |id, name| Fixture::new(id, name, Layout::Empty, Bytes::new()).gate(feature::PAGEFAULT);
    vec![
        postcopy(28, "POSTCOPY_ADVISE").answer("userfaultfd", Layout::Empty, Bytes::new(), 1).answer(
            "refused",
            Layout::Empty,
            Bytes::new(),
            0,
        ),
        postcopy(29, "POSTCOPY_LISTEN"),
        postcopy(30, "POSTCOPY_END").answer("done", Layout::U64, Bytes::new().u64(0), 0).answer(
            "refused",
            Layout::U64,
            Bytes::new().u64(1),
            0,
        ),
    ]
}

fn inflight() -> Vec<Fixture> {
    // Two split queues of 256: 2 * (16 + 16 * 256), each rounded up to 64.
    let region = || Bytes::new().u64(0x2080).u64(0x3000).u16(2).u16(256);
    let wanted = || Bytes::new().u64(0).u64(0).u16(2).u16(256);
    let get = |layout, payload| Fixture::new(31, "GET_INFLIGHT_FD", layout, payload).gate(feature::INFLIGHT_SHMFD);
    let set = |layout, payload| {
        Fixture::new(32, "SET_INFLIGHT_FD", layout, payload).descriptors(1).gate(feature::INFLIGHT_SHMFD)
    };
    vec![
        get(Layout::Inflight, wanted().padding(4)).answer("region", Layout::Inflight, region().padding(4), 1).answer(
            "nothing to track",
            Layout::Inflight,
            wanted().padding(4),
            0,
        ),
        get(Layout::InflightUnpadded, wanted()).form("20 bytes").answer(
            "region",
            Layout::InflightUnpadded,
            region(),
            1,
        ),
        set(Layout::Inflight, region().padding(4)),
        set(Layout::InflightUnpadded, region()).form("20 bytes"),
    ]
}

fn state() -> Vec<Fixture> {
    let transfer = |direction, phase| {
        Fixture::new(42, "SET_DEVICE_STATE_FD", Layout::Transfer, Bytes::new().u32(direction).u32(phase))
            .descriptors(1)
            .gate(feature::DEVICE_STATE)
            .answer("take yours", Layout::U64, Bytes::new().u64(0x100), 0)
            .answer("take this", Layout::U64, Bytes::new().u64(0), 1)
            .answer("refused", Layout::U64, Bytes::new().u64(0x101), 0)
    };
    vec![
        transfer(1, 0),
        transfer(0, 0).form("save"),
        Fixture::new(43, "CHECK_DEVICE_STATE", Layout::Empty, Bytes::new())
            .gate(feature::DEVICE_STATE)
            .answer("sound", Layout::U64, Bytes::new().u64(0), 0)
            .answer("unsound", Layout::U64, Bytes::new().u64(1), 0),
    ]
}
