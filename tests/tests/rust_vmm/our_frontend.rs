//! Our front-end through a whole session with rust-vmm's back-end.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::fstat;
use vhost::vhost_user::Error;
use vhost_core::wire::inflight::Inflight;
use vhost_core::wire::log::Log;
use vhost_core::wire::shared::Uuid;
use vhost_core::wire::vring::VringBase;
use vhost_core::{GuestAddress, MemoryRegion, RingAddress, UserAddress};
use vhost_std::frontend::{
    DeviceSetup, Enabled, Frontend, FrontendError, Logging, RingSetup, StoppedRing, TransferDirection, VringAddresses,
};
use vhost_tests::dialog::{event, memory};

use crate::recorder::{PROTOCOL, VIRTIO};
use crate::their_backend::{self, CONFIG, agree};

/// Runs `session` on our front-end; what their back-end was told after features were agreed on. It has nothing to object to.
pub(crate) fn told_by(session: impl FnOnce(&mut Frontend)) -> Vec<String> {
    let (told, end) = told_and_ended_by(session);
    assert!(matches!(end, Error::Disconnected), "{end}");
    told
}

/// The same, and why their back-end ended the session.
fn told_and_ended_by(session: impl FnOnce(&mut Frontend)) -> (Vec<String>, Error) {
    let folder = tempfile::tempdir().unwrap();
    let (mut frontend, backend, thread) = their_backend::start(&folder.path().join("socket"));
    agree(&mut frontend);
    backend.lock().unwrap().entries.clear();
    session(&mut frontend);
    drop(frontend);
    let end = thread.join().unwrap();
    (core::mem::take(&mut backend.lock().unwrap().entries), end)
}

pub(crate) fn region(at: u64) -> MemoryRegion {
    MemoryRegion::new(GuestAddress(at << 32), 0x4000, UserAddress(0x7000_0000_0000 + (at << 32)), 0x1000)
}

fn ring<'s>(ring: u8, events: &'s [OwnedFd; 2]) -> RingSetup<'s> {
    let base = region(0).user_address.0 + 0x1000 * u64::from(ring);
    let [descriptor, available, used] = [base, base + 0x400, base + 0x800].map(RingAddress);
    let log = GuestAddress(0);
    RingSetup {
        ring,
        size: 32,
        base: VringBase::Split { available: 5 },
        addresses: VringAddresses { descriptor, available, used, log, logging: Logging::Off },
        kick: Some(events[0].as_fd()),
        call: Some(events[1].as_fd()),
        error: None,
    }
}

#[test]
fn features_are_agreed_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut frontend, backend, thread) = their_backend::start(&folder.path().join("socket"));
    agree(&mut frontend);
    drop(frontend);
    thread.join().unwrap();
    let [protocol, features] = [format!("protocol {PROTOCOL:#x}"), format!("features {VIRTIO:#x}")];
    assert_eq!(backend.lock().unwrap().entries, [&protocol, "owner", &features]);
}

#[test]
fn a_device_is_brought_up_and_torn_down() {
    let file = memory(0x1_0000);
    let (kicks, calls) = ([event(), event()], [event(), event()]);
    let told = told_by(|frontend| {
        let rings = [ring(0, &kicks), ring(1, &calls)];
        let setup = DeviceSetup { memory: &[(region(0), file.as_fd())], rings: &rings, inflight: None };
        frontend.bring_up(&setup).unwrap();
        let base = VringBase::Split { available: 77 };
        assert_eq!(frontend.tear_down().unwrap(), [0, 1].map(|ring| StoppedRing { ring, base }));
    });
    assert_eq!(
        told,
        [
            "ring 0: call by a descriptor",
            "ring 1: call by a descriptor",
            "add 0x0+0x4000 at 0x700000000000, offset 0x1000 of 0x10000, postcopy Some(false)",
            "ring 0: size 32",
            "ring 0: base 5",
            "ring 0: 0x700000000000 0x700000000800 0x700000000400 log 0x0 flags 0",
            "ring 0: kick by a descriptor",
            "ring 1: size 32",
            "ring 1: base 5",
            "ring 1: 0x700000001000 0x700000001800 0x700000001400 log 0x0 flags 0",
            "ring 1: kick by a descriptor",
            "ring 0: enable",
            "ring 1: enable",
            "ring 0: disable",
            "ring 1: disable",
            "ring 0: stop",
            "ring 1: stop",
        ]
    );
}

#[test]
fn memory_is_shared_as_a_table_and_by_slots() {
    let files = [memory(0x1_0000), memory(0x2_0000)];
    let told = told_by(|frontend| {
        let both = [(region(0), files[0].as_fd()), (region(1), files[1].as_fd())];
        assert!(frontend.set_mem_table(&both).unwrap().is_empty());
        assert_eq!(frontend.get_max_mem_slots().unwrap(), 3);
        assert_eq!(frontend.add_mem_reg(&region(2), files[0].as_fd()).unwrap(), None);
        frontend.rem_mem_reg(&region(1)).unwrap();
        let four = Vec::from_iter((0..4).map(|at| (region(at), files[0].as_fd())));
        let error = frontend.share_memory(&four).unwrap_err();
        assert_eq!(error, FrontendError::TooManyRegions { found: 4, limit: 3 });
    });
    assert_eq!(
        told,
        [
            "memory [0x0+0x4000 at 0x700000000000, offset 0x1000 of 0x10000; \
             0x100000000+0x4000 at 0x700100000000, offset 0x1000 of 0x20000], postcopy Some(false)",
            "add 0x200000000+0x4000 at 0x700200000000, offset 0x1000 of 0x10000, postcopy Some(false)",
            "remove 0x100000000+0x4000",
        ]
    );
}

#[test]
fn rings_are_changed_one_thing_at_a_time() {
    let told = told_by(|frontend| {
        frontend.set_vring_err(1, Some(event().as_fd())).unwrap();
        frontend.set_vring_call(1, None).unwrap();
        frontend.set_vring_kick(1, None).unwrap();
        frontend.set_vring_enable(1, Enabled::Yes).unwrap();
        assert_eq!(frontend.get_vring_base(1).unwrap(), VringBase::Split { available: 77 });
        assert_eq!(frontend.get_queue_num().unwrap(), 2);
        frontend.reset_device().unwrap();
    });
    assert_eq!(
        told,
        [
            "ring 1: error by a descriptor",
            "ring 1: call by none",
            "ring 1: kick by none",
            "ring 1: enable",
            "ring 1: stop",
            "reset device"
        ]
    );
}

#[test]
fn configuration_is_read_and_written() {
    let (told, end) = told_and_ended_by(|frontend| {
        let mut data = [0; 8];
        assert_eq!(frontend.get_config(0, &mut data, 0).unwrap(), 8);
        assert_eq!(data, CONFIG);
        frontend.set_config(2, &[30, 40], 1).unwrap();
        assert_eq!(frontend.get_config(1, &mut data[..4], 0).unwrap(), 4);
        assert_eq!(data[..4], [2, 30, 40, 5]);
        // Past the end they answer with an empty configuration.
        let refused = frontend.get_config(4, &mut data, 0).unwrap_err();
        assert!(matches!(refused, FrontendError::Refused { .. }), "{refused}");
        let refused = frontend.set_config(7, &[1, 2], 0).unwrap_err();
        assert!(matches!(refused, FrontendError::Refused { .. }), "{refused}");
        assert!(frontend.get_features().is_err(), "they close after a refusal");
    });
    assert!(end.to_string().contains("past the end"), "{end}");
    assert_eq!(told, ["configuration [30, 40] at 2, flags 0x1"]);
}

#[test]
fn the_record_of_requests_and_the_log_change_hands() {
    let told = told_by(|frontend| {
        let (record, file) = frontend.get_inflight_fd(2, 128).unwrap().unwrap();
        assert_eq!(record, Inflight::new(0x2000, 0x1000, 2, 128));
        assert_eq!(fstat(&file).unwrap().st_size, 0x3000);
        frontend.set_inflight_fd(&record, file.as_fd()).unwrap();
        frontend.set_log_base(&Log::new(0x800, 0x400), memory(0x5000).as_fd()).unwrap();
    });
    assert_eq!(
        told,
        ["record for 2 rings of 128", "record 0x2000 at 0x1000 of 0x3000 for 2 rings", "log 0x800 at 0x400 of 0x5000"]
    );
}

#[test]
fn state_objects_displays_and_shared_memory_are_asked_for() {
    let told = told_by(|frontend| {
        let state = memory(0x6000);
        let given = frontend.set_device_state_fd(TransferDirection::Save, state.as_fd()).unwrap();
        assert!(given.is_none(), "through ours");
        frontend.check_device_state().unwrap();
        let given = frontend.set_device_state_fd(TransferDirection::Load, state.as_fd()).unwrap();
        assert!(given.is_some(), "through theirs");
        let object = frontend.get_shared_object(Uuid::new([1; 16])).unwrap();
        assert_eq!(fstat(&object).unwrap().st_size, 0x7000);
        let unknown = frontend.get_shared_object(Uuid::new([2; 16])).unwrap_err();
        assert!(matches!(unknown, FrontendError::Refused { .. }), "{unknown}");
        let (_ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        frontend.gpu_set_socket(theirs.as_fd()).unwrap();
        let sizes = frontend.get_shmem_config().unwrap();
        assert_eq!((sizes[..3].to_vec(), sizes.iter().sum()), (vec![0x10_0000, 0, 0x20_0000], 0x30_0000));
    });
    assert_eq!(
        told,
        ["state SAVE STOPPED over 0x6000", "state checked", "state LOAD STOPPED over 0x6000", "socket for displays"]
    );
}
