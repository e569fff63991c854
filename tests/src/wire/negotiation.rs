//! Features, owner, status, reset: what concerns the whole connection.

use super::{Bytes, Fixture, Layout, feature};

pub(super) fn requests() -> Vec<Fixture> {
    let none = Bytes::new;
    let u64 = |value| Bytes::new().u64(value);
    vec![
        Fixture::new(1, "GET_FEATURES", Layout::Empty, none()).answer("offer", Layout::U64, u64(feature::OFFERED), 0),
        Fixture::new(2, "SET_FEATURES", Layout::U64, u64(feature::ACKNOWLEDGED)),
        Fixture::new(2, "SET_FEATURES", Layout::U64, u64(feature::ACKNOWLEDGED | feature::LOG_ALL)).form("logging"),
        Fixture::new(3, "SET_OWNER", Layout::Empty, none()),
        Fixture::new(4, "RESET_OWNER", Layout::Empty, none()),
        Fixture::new(15, "GET_PROTOCOL_FEATURES", Layout::Empty, none()).offered(feature::PROTOCOL_FEATURES).answer(
            "offer",
            Layout::U64,
            u64(feature::PROTOCOL_OFFERED),
            0,
        ),
        Fixture::new(16, "SET_PROTOCOL_FEATURES", Layout::U64, u64(feature::PROTOCOL_ACKNOWLEDGED))
            .offered(feature::PROTOCOL_FEATURES),
        Fixture::new(17, "GET_QUEUE_NUM", Layout::Empty, none()).gate(feature::MQ).answer(
            "count",
            Layout::U64,
            u64(8),
            0,
        ),
        Fixture::new(34, "RESET_DEVICE", Layout::Empty, none()).gate(feature::RESET_DEVICE),
        Fixture::new(39, "SET_STATUS", Layout::U64, u64(0x0f)).gate(feature::STATUS),
        Fixture::new(40, "GET_STATUS", Layout::Empty, none()).gate(feature::STATUS).answer(
            "status",
            Layout::U64,
            u64(0x0b),
            0,
        ),
    ]
}
