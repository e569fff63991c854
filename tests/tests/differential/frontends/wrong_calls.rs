//! Calls that make no sense: a front-end sends them or does not.

use std::os::fd::{AsFd, AsRawFd};

use vhost::VhostBackend;
use vhost::vhost_user::message::{VhostUserInflight, VhostUserSharedMsg};
use vhost::vhost_user::{VhostUserFrontend, VhostUserProtocolFeatures};
use vhost_core::wire::inflight::Inflight;
use vhost_core::wire::shared::Uuid;
use vhost_core::{ProtocolFeatures, VirtioFeatures};
use vhost_std::frontend::{Enabled, Logging};
use vhost_tests::dialog::{event, memory};
use vhost_tests::wire::feature;
use vhost_tests::wire::region::{ADDED, REGIONS, Region, one_too_many};
use vm_memory::ByteValued;

use super::calls::{Call, simple};
use super::ways::{
    done, info, our_addition, our_addresses, our_config, our_table, region, their_addition, their_addresses,
    their_config, their_event, their_table,
};
use crate::recorder::{PROTOCOL, VIRTIO};

/// Each is made where everything is agreed, and where nothing is.
pub(super) const WRONG_CALLS: &[Call] = &[
    simple(
        "set_mem_table of none",
        "SET_MEM_TABLE",
        |frontend| our_table(frontend, &[]),
        |frontend| their_table(frontend, &[]),
    ),
    simple(
        "set_mem_table of nine",
        "SET_MEM_TABLE",
        |frontend| our_table(frontend, &one_too_many()),
        |frontend| their_table(frontend, &one_too_many()),
    ),
    simple(
        "set_mem_table of the same twice",
        "SET_MEM_TABLE",
        |frontend| our_table(frontend, &[REGIONS[0]; 2]),
        |frontend| their_table(frontend, &[REGIONS[0]; 2]),
    ),
    simple(
        "add_mem_region without a byte",
        "ADD_MEM_REG",
        |frontend| our_addition(frontend, Region { size: 0, ..ADDED }),
        |frontend| their_addition(frontend, Region { size: 0, ..ADDED }),
    ),
    simple(
        "add_mem_region that wraps",
        "ADD_MEM_REG",
        |frontend| our_addition(frontend, Region { guest: u64::MAX, ..ADDED }),
        |frontend| their_addition(frontend, Region { guest: u64::MAX, ..ADDED }),
    ),
    simple(
        "remove_mem_region of another",
        "REM_MEM_REG",
        |frontend| frontend.rem_mem_reg(&region(REGIONS[0])).map(done),
        |frontend| frontend.remove_mem_region(&info(REGIONS[0], &memory(1))).map(done),
    ),
    simple(
        "set_features that were not offered",
        "SET_FEATURES",
        |frontend| frontend.set_features(VirtioFeatures::from_bits_retain(VIRTIO | 1 << 63)).map(done),
        |frontend| frontend.set_features(VIRTIO | 1 << 63).map(done),
    ),
    simple(
        "set_protocol_features that were not offered",
        "SET_PROTOCOL_FEATURES",
        |frontend| {
            let features = ProtocolFeatures::from_bits_retain(PROTOCOL | feature::STATUS);
            frontend.set_protocol_features(features).map(done)
        },
        |frontend| {
            let features = VhostUserProtocolFeatures::from_bits_retain(PROTOCOL | feature::STATUS);
            frontend.set_protocol_features(features).map(done)
        },
    ),
    simple(
        "set_vring_num of ring 2",
        "SET_VRING_NUM",
        |frontend| frontend.set_vring_num(2, 256).map(done),
        |frontend| frontend.set_vring_num(2, 256).map(done),
    ),
    simple(
        "set_vring_num 3",
        "SET_VRING_NUM",
        |frontend| frontend.set_vring_num(1, 3).map(done),
        |frontend| frontend.set_vring_num(1, 3).map(done),
    ),
    simple(
        "set_vring_addr of ring 2",
        "SET_VRING_ADDR",
        |frontend| our_addresses(2, 0, Logging::Off)(frontend),
        |frontend| their_addresses(2, 0, false)(frontend),
    ),
    simple(
        "set_vring_addr misaligned",
        "SET_VRING_ADDR",
        |frontend| our_addresses(1, 1, Logging::Off)(frontend),
        |frontend| their_addresses(1, 1, false)(frontend),
    ),
    simple(
        "set_vring_kick of ring 2",
        "SET_VRING_KICK",
        |frontend| frontend.set_vring_kick(2, Some(event().as_fd())).map(done),
        |frontend| frontend.set_vring_kick(2, &their_event()).map(done),
    ),
    simple(
        "set_vring_enable of ring 2",
        "SET_VRING_ENABLE",
        |frontend| frontend.set_vring_enable(2, Enabled::No).map(done),
        |frontend| frontend.set_vring_enable(2, false).map(done),
    ),
    simple(
        "get_config of nothing",
        "GET_CONFIG",
        |frontend| our_config(frontend, 0, 0),
        |frontend| their_config(frontend, 0, 0),
    ),
    simple(
        "get_config of 257",
        "GET_CONFIG",
        |frontend| our_config(frontend, 0, 257),
        |frontend| their_config(frontend, 0, 257),
    ),
    simple(
        "get_config at the end of all offsets",
        "GET_CONFIG",
        |frontend| our_config(frontend, u32::MAX, 1),
        |frontend| their_config(frontend, u32::MAX, 1),
    ),
    simple(
        "get_inflight_fd of 3 queues",
        "GET_INFLIGHT_FD",
        |frontend| frontend.get_inflight_fd(3, 256).map(done),
        |frontend| frontend.get_inflight_fd(&VhostUserInflight::new(0, 0, 3, 256)).map(done),
    ),
    simple(
        "set_inflight_fd of nothing",
        "SET_INFLIGHT_FD",
        |frontend| frontend.set_inflight_fd(&Inflight::new(0, 0, 0, 0), memory(1).as_fd()).map(done),
        |frontend| frontend.set_inflight_fd(&VhostUserInflight::new(0, 0, 0, 0), memory(1).as_raw_fd()).map(done),
    ),
    simple(
        "get_shared_object without a name",
        "GET_SHARED_OBJECT",
        |frontend| frontend.get_shared_object(Uuid::new([0; 16])).map(done),
        |frontend| frontend.get_shared_object(VhostUserSharedMsg::from_slice(&[0; 16]).unwrap()).map(done),
    ),
    simple(
        "postcopy_listen unadvised",
        "POSTCOPY_LISTEN",
        |frontend| frontend.postcopy_listen().map(done),
        |frontend| frontend.postcopy_listen().map(done),
    ),
    simple(
        "postcopy_end unadvised",
        "POSTCOPY_END",
        |frontend| frontend.postcopy_end().map(done),
        |frontend| frontend.postcopy_end().map(done),
    ),
];
