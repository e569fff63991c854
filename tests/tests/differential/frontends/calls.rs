//! The calls, each as both front-ends have it.

use std::os::fd::{AsFd, AsRawFd};

use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight, VhostUserSharedMsg,
};
use vhost::vhost_user::{Frontend as TheirFrontend, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost::{Result as TheirResult, VhostBackend, VhostUserDirtyLogRegion};
use vhost_core::wire::inflight::Inflight;
use vhost_core::wire::log::Log;
use vhost_core::wire::shared::Uuid;
use vhost_core::wire::vring::VringBase;
use vhost_core::{ProtocolFeatures, VirtioFeatures};
use vhost_std::frontend::{Enabled, Frontend, FrontendError, Logging, TransferDirection};
use vhost_tests::dialog::{event, memory};
use vhost_tests::wire::region::{ADDED, REGIONS};
use vm_memory::ByteValued;

use super::ways::{
    done, info, our_addition, our_addresses, our_config, our_table, presence, region, their_addition, their_addresses,
    their_config, their_event, their_table,
};
use crate::case::Kind;
use crate::recorder::{PROTOCOL, VIRTIO};

type Ours = fn(&mut Frontend) -> Result<String, FrontendError>;
type Theirs = fn(&mut TheirFrontend) -> TheirResult<String>;

/// One call.
pub(super) struct Call {
    /// The method's name, and what is special about the call.
    pub(super) name: &'static str,
    /// The request that it makes.
    pub(super) request: &'static str,
    /// Calls that must have succeeded before.
    pub(super) after: &'static [&'static str],
    pub(super) ours: Ours,
    pub(super) theirs: Theirs,
}

pub(super) const fn simple(name: &'static str, request: &'static str, ours: Ours, theirs: Theirs) -> Call {
    Call { name, request, after: &[], ours, theirs }
}

impl Call {
    const fn after(self, after: &'static [&'static str]) -> Self {
        Self { after, ..self }
    }
}

/// The call of this name.
pub(super) fn call(name: &str) -> &'static Call {
    CALLS.iter().find(|call| call.name == name).unwrap()
}

/// The calls that make sense.
pub(super) const CALLS: &[Call] = &[
    simple(
        "get_features",
        "GET_FEATURES",
        |frontend| Ok(format!("{:x}", frontend.get_features()?.bits())),
        |frontend| Ok(format!("{:x}", frontend.get_features()?)),
    ),
    simple(
        "set_features",
        "SET_FEATURES",
        |frontend| frontend.set_features(VirtioFeatures::from_bits_retain(VIRTIO)).map(done),
        |frontend| frontend.set_features(VIRTIO).map(done),
    ),
    simple(
        "set_owner",
        "SET_OWNER",
        |frontend| frontend.set_owner().map(done),
        |frontend| frontend.set_owner().map(done),
    ),
    simple(
        "get_protocol_features",
        "GET_PROTOCOL_FEATURES",
        |frontend| Ok(format!("{:x}", frontend.get_protocol_features()?.bits())),
        |frontend| Ok(format!("{:x}", frontend.get_protocol_features()?.bits())),
    ),
    simple(
        "set_protocol_features",
        "SET_PROTOCOL_FEATURES",
        |frontend| frontend.set_protocol_features(ProtocolFeatures::from_bits_retain(PROTOCOL)).map(done),
        |frontend| frontend.set_protocol_features(VhostUserProtocolFeatures::from_bits_retain(PROTOCOL)).map(done),
    ),
    simple(
        "get_queue_num",
        "GET_QUEUE_NUM",
        |frontend| Ok(frontend.get_queue_num()?.to_string()),
        |frontend| Ok(frontend.get_queue_num()?.to_string()),
    ),
    simple(
        "reset_device",
        "RESET_DEVICE",
        |frontend| frontend.reset_device().map(done),
        |frontend| frontend.reset_device().map(done),
    ),
    simple(
        "set_mem_table",
        "SET_MEM_TABLE",
        |frontend| our_table(frontend, &REGIONS[..2]),
        |frontend| their_table(frontend, &REGIONS[..2]),
    ),
    simple(
        "set_mem_table of eight",
        "SET_MEM_TABLE",
        |frontend| our_table(frontend, &REGIONS),
        |frontend| their_table(frontend, &REGIONS),
    ),
    simple(
        "get_max_mem_slots",
        "GET_MAX_MEM_SLOTS",
        |frontend| Ok(frontend.get_max_mem_slots()?.to_string()),
        |frontend| Ok(frontend.get_max_mem_slots()?.to_string()),
    ),
    simple(
        "add_mem_region",
        "ADD_MEM_REG",
        |frontend| our_addition(frontend, ADDED),
        |frontend| their_addition(frontend, ADDED),
    ),
    simple(
        "remove_mem_region",
        "REM_MEM_REG",
        |frontend| frontend.rem_mem_reg(&region(ADDED)).map(done),
        |frontend| frontend.remove_mem_region(&info(ADDED, &memory(1))).map(done),
    )
    .after(&["add_mem_region"]),
    simple(
        "set_log_base",
        "SET_LOG_BASE",
        |frontend| frontend.set_log_base(&Log::new(0x14_0000, 0x3000), memory(1).as_fd()).map(done),
        |frontend| {
            let file = memory(1);
            let (mmap_size, mmap_offset, mmap_handle) = (0x14_0000, 0x3000, file.as_raw_fd());
            frontend.set_log_base(0, Some(VhostUserDirtyLogRegion { mmap_size, mmap_offset, mmap_handle })).map(done)
        },
    ),
    simple(
        "set_log_fd",
        "SET_LOG_FD",
        |frontend| frontend.set_log_fd(event().as_fd()).map(done),
        |frontend| frontend.set_log_fd(their_event().as_raw_fd()).map(done),
    ),
    simple(
        "set_vring_num",
        "SET_VRING_NUM",
        |frontend| frontend.set_vring_num(1, 256).map(done),
        |frontend| frontend.set_vring_num(1, 256).map(done),
    ),
    simple(
        "set_vring_addr",
        "SET_VRING_ADDR",
        |frontend| our_addresses(1, 0, Logging::Off)(frontend),
        |frontend| their_addresses(1, 0, false)(frontend),
    ),
    simple(
        "set_vring_addr with a log",
        "SET_VRING_ADDR",
        |frontend| our_addresses(1, 0, Logging::On)(frontend),
        |frontend| their_addresses(1, 0, true)(frontend),
    ),
    simple(
        "set_vring_base",
        "SET_VRING_BASE",
        |frontend| frontend.set_vring_base(1, VringBase::Split { available: 0xabc }).map(done),
        |frontend| frontend.set_vring_base(1, 0xabc).map(done),
    ),
    simple(
        "get_vring_base",
        "GET_VRING_BASE",
        |frontend| Ok(format!("{:x}", frontend.get_vring_base(1)?.to_num())),
        |frontend| Ok(format!("{:x}", frontend.get_vring_base(1)?)),
    ),
    simple(
        "set_vring_kick",
        "SET_VRING_KICK",
        |frontend| frontend.set_vring_kick(1, Some(event().as_fd())).map(done),
        |frontend| frontend.set_vring_kick(1, &their_event()).map(done),
    ),
    simple(
        "set_vring_call",
        "SET_VRING_CALL",
        |frontend| frontend.set_vring_call(1, Some(event().as_fd())).map(done),
        |frontend| frontend.set_vring_call(1, &their_event()).map(done),
    ),
    simple(
        "set_vring_err",
        "SET_VRING_ERR",
        |frontend| frontend.set_vring_err(1, Some(event().as_fd())).map(done),
        |frontend| frontend.set_vring_err(1, &their_event()).map(done),
    ),
    simple(
        "set_vring_enable",
        "SET_VRING_ENABLE",
        |frontend| frontend.set_vring_enable(1, Enabled::Yes).map(done),
        |frontend| frontend.set_vring_enable(1, true).map(done),
    ),
    simple(
        "get_config",
        "GET_CONFIG",
        |frontend| our_config(frontend, 0x14, 8),
        |frontend| their_config(frontend, 0x14, 8),
    ),
    simple(
        "set_config",
        "SET_CONFIG",
        |frontend| frontend.set_config(0x14, &[1, 2, 3], 1).map(done),
        |frontend| frontend.set_config(0x14, VhostUserConfigFlags::WRITABLE, &[1, 2, 3]).map(done),
    ),
    simple(
        "set_backend_req_fd",
        "SET_BACKEND_REQ_FD",
        |frontend| frontend.set_backend_req_fd().map(done),
        |frontend| frontend.set_backend_request_fd(&Kind::Socket.make().as_raw_fd()).map(done),
    ),
    simple(
        "get_shared_object",
        "GET_SHARED_OBJECT",
        |frontend| Ok(presence(Some(frontend.get_shared_object(Uuid::new([1; 16]))?))),
        |frontend| {
            let name = VhostUserSharedMsg::from_slice(&[1; 16]).unwrap();
            Ok(presence(Some(frontend.get_shared_object(name)?)))
        },
    ),
    simple(
        "get_inflight_fd",
        "GET_INFLIGHT_FD",
        |frontend| {
            let record = frontend.get_inflight_fd(2, 256)?;
            Ok(record.map_or_else(
                || "none".to_owned(),
                |(record, _)| {
                    let numbers = (record.mmap_size(), record.mmap_offset(), record.num_queues(), record.queue_size());
                    format!("{numbers:x?}")
                },
            ))
        },
        |frontend| {
            let (record, _) = frontend.get_inflight_fd(&VhostUserInflight::new(0, 0, 2, 256))?;
            let numbers = (record.mmap_size, record.mmap_offset, record.num_queues, record.queue_size);
            Ok(format!("{numbers:x?}"))
        },
    ),
    simple(
        "set_inflight_fd",
        "SET_INFLIGHT_FD",
        |frontend| frontend.set_inflight_fd(&Inflight::new(0x2080, 0x3000, 2, 256), memory(1).as_fd()).map(done),
        |frontend| {
            let file = memory(1);
            frontend.set_inflight_fd(&VhostUserInflight::new(0x2080, 0x3000, 2, 256), file.as_raw_fd()).map(done)
        },
    ),
    simple(
        "get_shmem_config",
        "GET_SHMEM_CONFIG",
        |frontend| Ok(format!("{:x?}", frontend.get_shmem_config()?)),
        |frontend| {
            let sizes = frontend.get_shmem_config()?.memory_sizes;
            Ok(format!("{sizes:x?}"))
        },
    ),
    simple(
        "set_device_state_fd",
        "SET_DEVICE_STATE_FD",
        |frontend| frontend.set_device_state_fd(TransferDirection::Load, Kind::Pipe.make().as_fd()).map(presence),
        |frontend| {
            let (direction, phase) = (VhostTransferStateDirection::LOAD, VhostTransferStatePhase::STOPPED);
            frontend.set_device_state_fd(direction, phase, Kind::Pipe.make()).map(presence)
        },
    ),
    simple(
        "check_device_state",
        "CHECK_DEVICE_STATE",
        |frontend| frontend.check_device_state().map(done),
        |frontend| frontend.check_device_state().map(done),
    ),
    simple(
        "postcopy_advise",
        "POSTCOPY_ADVISE",
        |frontend| Ok(presence(Some(frontend.postcopy_advise()?))),
        |frontend| Ok(presence(Some(frontend.postcopy_advise()?))),
    ),
    simple(
        "postcopy_listen",
        "POSTCOPY_LISTEN",
        |frontend| frontend.postcopy_listen().map(done),
        |frontend| frontend.postcopy_listen().map(done),
    )
    .after(&["postcopy_advise"]),
    simple(
        "postcopy_end",
        "POSTCOPY_END",
        |frontend| frontend.postcopy_end().map(done),
        |frontend| frontend.postcopy_end().map(done),
    )
    .after(&["postcopy_advise", "postcopy_listen"]),
    simple(
        "set_mem_table in postcopy",
        "SET_MEM_TABLE",
        |frontend| our_table(frontend, &REGIONS[..2]),
        |frontend| their_table(frontend, &REGIONS[..2]),
    )
    .after(&["postcopy_advise", "postcopy_listen"]),
    simple(
        "add_mem_region in postcopy",
        "ADD_MEM_REG",
        |frontend| our_addition(frontend, ADDED),
        |frontend| their_addition(frontend, ADDED),
    )
    .after(&["postcopy_advise", "postcopy_listen"]),
];
