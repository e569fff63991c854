//! The calls of vhost-net, vhost-vsock and vhost-scsi.

use std::os::fd::AsFd;

use vhost_core::uapi::bits::BackendFeatures;
use vhost_core::wire::vring::VringBase;
use vhost_core::{RingLayout, VirtioFeatures};
use vhost_kernel::net::Net;
use vhost_kernel::scsi::{COMMAND_RING, Scsi};
use vhost_kernel::vsock::Vsock;
use vhost_kernel::{MemoryDevice, RingEndian, VhostDevice, WorkerKind};
use vhost_std::memory::MemoryFile;

use super::Table;
use crate::inside::ring::{Ring, SIZE, memory, table};
use crate::inside::scsi_target::Target;

/// The calls that all devices take.
pub(super) fn common(table: &Table, device: &impl VhostDevice) {
    table.note("VHOST_GET_FORK_FROM_OWNER", device.worker_kind());
    table.note("VHOST_SET_FORK_FROM_OWNER", device.set_worker_kind(WorkerKind::OwnerTask));
    table.note("VHOST_SET_OWNER", device.set_owner());
    table.note("VHOST_GET_FEATURES", device.features());
    table.note_if_known("VHOST_GET_FEATURES_ARRAY", device.features_array(2));
    let all = device.all_features(2).unwrap();
    assert_eq!(all[0], device.features().unwrap().bits());
    let offered = table.note("VHOST_GET_BACKEND_FEATURES", device.backend_features());
    let acknowledged = offered.unwrap_or(BackendFeatures::IOTLB_MSG_V2);
    table.note("VHOST_SET_BACKEND_FEATURES", device.set_backend_features(acknowledged));
    let base = VringBase::Split { available: 0 };
    table.note("VHOST_SET_VRING_BASE", device.set_vring_base(0, base));
    assert_eq!(table.note("VHOST_GET_VRING_BASE", device.vring_base(0, RingLayout::Split)), Some(base));
    table.note("VHOST_SET_VRING_ENDIAN", device.set_vring_endian(0, RingEndian::Little));
    table.note("VHOST_GET_VRING_ENDIAN", device.vring_endian(0));
    table.note("VHOST_SET_VRING_KICK", device.set_vring_kick(0, None));
    table.note("VHOST_SET_VRING_CALL", device.set_vring_call(0, None));
    table.note("VHOST_SET_VRING_ERR", device.set_vring_error(0, None));
    table.note("VHOST_SET_VRING_BUSYLOOP_TIMEOUT", device.set_vring_busyloop_timeout(0, 3));
    let timeout = table.note("VHOST_GET_VRING_BUSYLOOP_TIMEOUT", device.vring_busyloop_timeout(0));
    assert!(timeout.is_none_or(|timeout| timeout == 3));
}

/// The calls of devices that work in this process' memory, for one ring.
fn with_memory(table: &Table, device: &impl MemoryDevice, memory: &MemoryFile, index: u32) -> Ring {
    common(table, device);
    table.note("VHOST_SET_FEATURES", device.set_features(VirtioFeatures::VERSION_1));
    let words = [VirtioFeatures::VERSION_1.bits(), 0];
    let known = device.set_features_array(&words).map(|known| known.then_some(()));
    table.note_if_known("VHOST_SET_FEATURES_ARRAY", known);
    table.note("VHOST_SET_MEM_TABLE", device.set_memory(&super::super::ring::table(memory)));
    let ring = Ring::new(memory, index);
    table.note("VHOST_SET_VRING_NUM", device.set_vring_num(index, SIZE.into()));
    table.note("VHOST_SET_VRING_ADDR", device.set_vring_addresses(index, &ring.driver.user_addresses()));
    let log = MemoryFile::create("log", 0, 0x2_0000).unwrap();
    table.note("VHOST_SET_LOG_BASE", device.set_log(log.mapped()));
    table.note("VHOST_SET_LOG_FD", device.set_log_signal(Some(ring.error.as_fd())));
    device.set_log_signal(None).unwrap();
    ring
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn net() {
    let (lines, memory, net) = (Table("net"), memory(1), Net::open().unwrap());
    let _ring = with_memory(&lines, &net, &memory, 0);
    lines.note("VHOST_NET_SET_BACKEND", net.set_backend(0, None));
    lines.note("VHOST_RESET_OWNER", net.reset_owner());
    // It is as new: another table, and another owner.
    net.set_owner().unwrap();
    net.set_memory(&table(&memory)).unwrap();
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn vsock() {
    let (lines, memory, vsock) = (Table("vsock"), memory(2), Vsock::open().unwrap());
    let _first = with_memory(&lines, &vsock, &memory, 0);
    let second = Ring::new(&memory, 1);
    second.set_up(&vsock);
    lines.note("VHOST_VSOCK_SET_GUEST_CID", vsock.set_guest_cid(99));
    lines.note("VHOST_VSOCK_SET_RUNNING", vsock.start());
    vsock.stop().unwrap();
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn scsi() {
    let target = Target::of_memory();
    let (lines, memory, scsi) = (Table("scsi"), memory(3), Scsi::open().unwrap());
    assert_eq!(lines.note("VHOST_SCSI_GET_ABI_VERSION", scsi.abi_version()), Some(1));
    let _ring = with_memory(&lines, &scsi, &memory, COMMAND_RING);
    let worker = lines.note("VHOST_NEW_WORKER", scsi.new_worker()).unwrap();
    let before = lines.note("VHOST_GET_VRING_WORKER", scsi.vring_worker(COMMAND_RING)).unwrap();
    lines.note("VHOST_ATTACH_VRING_WORKER", scsi.attach_vring_worker(COMMAND_RING, worker));
    scsi.attach_vring_worker(COMMAND_RING, before).unwrap();
    lines.note("VHOST_FREE_WORKER", scsi.free_worker(worker));
    lines.note("VHOST_SCSI_SET_EVENTS_MISSED", scsi.set_events_missed(1));
    assert_eq!(lines.note("VHOST_SCSI_GET_EVENTS_MISSED", scsi.events_missed()), Some(1));
    lines.note("VHOST_SCSI_SET_ENDPOINT", scsi.set_endpoint(target.name()));
    lines.note("VHOST_SCSI_CLEAR_ENDPOINT", scsi.clear_endpoint());
}
