//! The orders in which real front-ends start a device, each as a conversation with the back-end's machine: every request is
//! granted, and in the end the rings run. QEMU's disk, network, file system and GPU, libblkio and DPDK are recorded and
//! replayed in full by [`crate::recorded`]; here all of them stand beside the ones that were only read.

use vhost_core::{BackendConfig, FrontendReply, Incoming};
use vhost_tests::tracked::{Ledger, Token};
use vhost_tests::wire;

use crate::machines::{Back, buffer, frame, protocol_features, virtio_features};
use crate::stage::{flagged, state};

/// One step of a start: requests by name, each ring's own ones for both rings.
#[derive(Clone, Copy)]
enum Step {
    /// Once.
    Say(&'static str),
    /// For each ring, the whole list.
    Rings(&'static [&'static str]),
}

use Step::{Rings, Say};

/// How a front-end starts, and whether it asks for acknowledgements on what has no reply.
struct Order {
    frontend: &'static str,
    protocol: u64,
    needs_reply: bool,
    steps: &'static [Step],
}

const NEGOTIATE: [Step; 4] =
    [Say("GET_FEATURES"), Say("GET_PROTOCOL_FEATURES"), Say("SET_PROTOCOL_FEATURES"), Say("GET_QUEUE_NUM")];

/// MQ, REPLY_ACK, BACKEND_REQ, CONFIG, INFLIGHT_SHMFD, RESET_DEVICE, CONFIGURE_MEM_SLOTS, STATUS by their bits.
const ALL: u64 = 1 | 1 << 3 | 1 << 5 | 1 << 9 | 1 << 12 | 1 << 13 | 1 << 15 | 1 << 16;

#[rustfmt::skip]
const ORDERS: [Order; 12] = [
    Order { frontend: "QEMU blk", protocol: ALL, needs_reply: true, steps: &[
        NEGOTIATE[0], NEGOTIATE[1], NEGOTIATE[2], NEGOTIATE[3], Say("GET_MAX_MEM_SLOTS"), Say("SET_BACKEND_REQ_FD"),
        Say("SET_OWNER"), Say("GET_FEATURES"), Rings(&["SET_VRING_CALL", "SET_VRING_ERR"]), Say("GET_CONFIG"),
        Say("RESET_DEVICE"), Say("SET_FEATURES"), Say("GET_STATUS"), Say("SET_STATUS"), Say("GET_INFLIGHT_FD"),
        Say("SET_INFLIGHT_FD"), Rings(&["SET_VRING_CALL"]), Say("SET_FEATURES"), Say("ADD_MEM_REG"),
        Rings(&["SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ADDR", "SET_VRING_KICK"]), Rings(&["SET_VRING_ENABLE"]),
    ] },
    Order { frontend: "QEMU net", protocol: 1, needs_reply: false, steps: &[
        NEGOTIATE[0], NEGOTIATE[1], NEGOTIATE[2], NEGOTIATE[3], Say("SET_OWNER"), Say("GET_FEATURES"),
        Rings(&["SET_VRING_CALL", "SET_VRING_ERR"]), NEGOTIATE[0], NEGOTIATE[1], NEGOTIATE[2],
        Rings(&["SET_VRING_ENABLE"]), Rings(&["SET_VRING_ENABLE"]), Say("SET_FEATURES"), Say("SET_MEM_TABLE"),
        Rings(&["SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ADDR", "SET_VRING_KICK", "SET_VRING_CALL"]),
        Say("SET_FEATURES"),
    ] },
    Order { frontend: "QEMU fs", protocol: 1 | 1 << 3, needs_reply: true, steps: &[
        NEGOTIATE[0], NEGOTIATE[1], NEGOTIATE[2], NEGOTIATE[3], Say("SET_OWNER"), Say("GET_FEATURES"),
        Rings(&["SET_VRING_CALL", "SET_VRING_ERR"]), Rings(&["SET_VRING_CALL"]), Say("SET_FEATURES"), Say("SET_MEM_TABLE"),
        Rings(&["SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ADDR", "SET_VRING_KICK"]), Rings(&["SET_VRING_ENABLE"]),
        Rings(&["SET_VRING_CALL"]),
    ] },
    Order { frontend: "QEMU gpu", protocol: 1 | 1 << 9, needs_reply: false, steps: &[
        NEGOTIATE[0], NEGOTIATE[1], NEGOTIATE[2], NEGOTIATE[3], Say("SET_OWNER"), Say("GET_CONFIG"), Say("GPU_SET_SOCKET"),
        Rings(&["SET_VRING_CALL"]), Say("SET_FEATURES"), Say("SET_MEM_TABLE"),
        Rings(&["SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ADDR", "SET_VRING_KICK"]), Rings(&["SET_VRING_ENABLE"]),
    ] },
    Order { frontend: "DPDK virtio_user", protocol: 1 | 1 << 3 | 1 << 16, needs_reply: true, steps: &[
        Say("SET_OWNER"), NEGOTIATE[0], NEGOTIATE[1], NEGOTIATE[2], Rings(&["SET_VRING_CALL"]), Say("SET_FEATURES"),
        Say("SET_STATUS"), Say("GET_STATUS"), Say("GET_STATUS"), Say("SET_MEM_TABLE"),
        Rings(&["SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ADDR", "SET_VRING_KICK"]), Rings(&["SET_VRING_ENABLE"]),
        Say("SET_STATUS"),
    ] },
    Order { frontend: "SPDK", protocol: 1 | 1 << 9, needs_reply: false, steps: &[
        Say("SET_OWNER"), NEGOTIATE[0], Say("SET_FEATURES"), NEGOTIATE[1], NEGOTIATE[2], Rings(&["SET_VRING_ENABLE"]),
        NEGOTIATE[3], Rings(&["SET_VRING_CALL"]), Say("SET_MEM_TABLE"), Say("GET_FEATURES"),
        Rings(&["SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ADDR", "SET_VRING_KICK"]), Say("GET_CONFIG"),
    ] },
    Order { frontend: "crosvm", protocol: 1 | 1 << 3 | 1 << 5 | 1 << 9, needs_reply: false, steps: &[
        Say("SET_OWNER"), NEGOTIATE[0], NEGOTIATE[1], NEGOTIATE[2], Say("SET_BACKEND_REQ_FD"), NEGOTIATE[3],
        Say("GET_CONFIG"), Say("SET_FEATURES"), Say("SET_MEM_TABLE"),
        Rings(&["SET_VRING_NUM", "SET_VRING_ADDR", "SET_VRING_BASE", "SET_VRING_CALL", "SET_VRING_KICK", "SET_VRING_ENABLE"]),
    ] },
    Order { frontend: "Cloud Hypervisor", protocol: ALL, needs_reply: true, steps: &[
        Say("SET_OWNER"), NEGOTIATE[0], NEGOTIATE[1], NEGOTIATE[2], NEGOTIATE[3], Say("GET_CONFIG"), Say("SET_FEATURES"),
        Say("SET_MEM_TABLE"), Rings(&["SET_VRING_NUM"]), Say("GET_INFLIGHT_FD"), Say("SET_INFLIGHT_FD"),
        Rings(&["SET_VRING_ADDR", "SET_VRING_BASE", "SET_VRING_CALL", "SET_VRING_KICK"]), Rings(&["SET_VRING_ENABLE"]),
        Say("SET_BACKEND_REQ_FD"),
    ] },
    Order { frontend: "Firecracker", protocol: 1 << 9, needs_reply: false, steps: &[
        Say("SET_OWNER"), NEGOTIATE[0], NEGOTIATE[1], NEGOTIATE[2], Say("GET_CONFIG"), Say("SET_FEATURES"),
        Say("SET_MEM_TABLE"), Rings(&["SET_VRING_NUM"]),
        Rings(&["SET_VRING_ADDR", "SET_VRING_BASE", "SET_VRING_CALL", "SET_VRING_KICK", "SET_VRING_ENABLE"]),
    ] },
    Order { frontend: "libkrun", protocol: 1 | 1 << 9, needs_reply: false, steps: &[
        NEGOTIATE[0], NEGOTIATE[1], NEGOTIATE[2], NEGOTIATE[3], Say("GET_CONFIG"), Say("SET_OWNER"), Say("SET_MEM_TABLE"),
        Say("SET_FEATURES"),
        Rings(&["SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ADDR", "SET_VRING_KICK", "SET_VRING_CALL", "SET_VRING_ENABLE"]),
    ] },
    Order { frontend: "libblkio", protocol: 1 | 1 << 3 | 1 << 9 | 1 << 15, needs_reply: true, steps: &[
        Say("SET_OWNER"), NEGOTIATE[0], Say("SET_FEATURES"), NEGOTIATE[1], NEGOTIATE[2], NEGOTIATE[3],
        Say("GET_MAX_MEM_SLOTS"), Say("GET_CONFIG"), Say("ADD_MEM_REG"),
        Rings(&["SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ADDR", "SET_VRING_KICK", "SET_VRING_CALL", "SET_VRING_ENABLE"]),
    ] },
    Order { frontend: "OpenVMM", protocol: 1 | 1 << 3 | 1 << 9 | 1 << 13, needs_reply: true, steps: &[
        NEGOTIATE[0], NEGOTIATE[1], NEGOTIATE[2], Say("SET_OWNER"), NEGOTIATE[3], Say("SET_MEM_TABLE"), Say("SET_FEATURES"),
        Rings(&["SET_VRING_NUM", "SET_VRING_ADDR", "SET_VRING_BASE", "SET_VRING_KICK", "SET_VRING_CALL", "SET_VRING_ENABLE"]),
    ] },
];

/// The payload of a request to this ring; others are as in the fixtures.
fn payload(name: &str, ring: u8, order: &Order) -> Vec<u8> {
    let number = u32::from(ring);
    match name {
        // Bit 30 is acknowledged again and again, and VERSION_1.
        "SET_FEATURES" => (1_u64 << 30 | 1 << 32).to_ne_bytes().to_vec(),
        "SET_PROTOCOL_FEATURES" => order.protocol.to_ne_bytes().to_vec(),
        "SET_STATUS" => 0xb_u64.to_ne_bytes().to_vec(),
        "SET_VRING_NUM" => state(number, 128),
        "SET_VRING_BASE" => state(number, 0),
        "SET_VRING_ENABLE" => state(number, 1),
        "SET_VRING_KICK" | "SET_VRING_CALL" | "SET_VRING_ERR" => u64::from(ring).to_ne_bytes().to_vec(),
        "SET_VRING_ADDR" => {
            let mut payload = wire::frontend_request(name).payload;
            payload[..4].copy_from_slice(&number.to_ne_bytes());
            payload
        }
        "GET_INFLIGHT_FD" | "SET_INFLIGHT_FD" => {
            let mut payload = wire::frontend_request(name).payload;
            payload[16..18].copy_from_slice(&2_u16.to_ne_bytes());
            payload
        }
        _ => wire::frontend_request(name).payload,
    }
}

/// Says one request; the device does whatever it is asked.
fn grant(back: &mut Back, name: &str, ring: u8, order: &Order, ledger: &Ledger) {
    let fixture = wire::frontend_request(name);
    let own = matches!(fixture.reply, wire::Reply::Own(_));
    let flags = if order.needs_reply && !own && name != "SET_PROTOCOL_FEATURES" { 9 } else { 1 };
    let bytes = flagged(fixture.id, flags, &payload(name, ring, order));
    let title = format!("{}: {name}, ring {ring}", order.frontend);
    match back.handle_request(frame(&bytes, ledger.tokens(fixture.descriptors))) {
        Ok(Incoming::Request(request)) => {
            let reply = match back.own_answer::<Token>() {
                Some(reply) => reply,
                None => match request {
                    vhost_core::FrontendRequest::GetConfig(config) => FrontendReply::GetConfig(config),
                    vhost_core::FrontendRequest::GetInflightFd(inflight) => {
                        FrontendReply::GetInflightFd(inflight, None)
                    }
                    _ => FrontendReply::Done,
                },
            };
            back.answer(reply, &mut buffer()).map(drop).unwrap_or_else(|error| panic!("{title}: {error}"));
        }
        other => panic!("{title}: {other:?}"),
    }
    assert!(!back.has_failed(), "{title}");
}

/// Has a front-end start, and looks at what it has then.
fn start(frontend: &str) {
    let order = ORDERS.iter().find(|order| order.frontend == frontend).unwrap();
    let ledger = Ledger::new();
    let config = BackendConfig::new(virtio_features(1 << 30 | 1 << 32), protocol_features(order.protocol), 2);
    let mut back = Back::new(config);
    for step in order.steps {
        match step {
            Say(name) => grant(&mut back, name, 0, order, &ledger),
            Rings(names) => {
                for ring in 0..2 {
                    names.iter().for_each(|name| grant(&mut back, name, ring, order, &ledger));
                }
            }
        }
    }
    for ring in 0..2 {
        assert!(back.session().ring(ring).unwrap().is_running(), "ring {ring}");
    }
    assert!(!back.session().memory().regions().is_empty());
    ledger.assert_settled();
}

macro_rules! starts {
    ($($test:ident $frontend:literal,)*) => {
        $(#[test]
        fn $test() {
            start($frontend);
        })*

        #[test]
        fn every_order_has_its_test() {
            assert_eq!(ORDERS.map(|order| order.frontend), [$($frontend),*]);
        }
    };
}

starts! {
    qemu_blk_starts "QEMU blk",
    qemu_net_starts "QEMU net",
    qemu_fs_starts "QEMU fs",
    qemu_gpu_starts "QEMU gpu",
    dpdk_virtio_user_starts "DPDK virtio_user",
    spdk_starts "SPDK",
    crosvm_starts "crosvm",
    cloud_hypervisor_starts "Cloud Hypervisor",
    firecracker_starts "Firecracker",
    libkrun_starts "libkrun",
    libblkio_starts "libblkio",
    openvmm_starts "OpenVMM",
}
