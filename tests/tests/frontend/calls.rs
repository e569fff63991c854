//! Each call of the front-end as a fixture has it: the arguments that make it, and what must come back.

use std::os::fd::{AsFd, OwnedFd};

use vhost_core::wire::crypto::CryptoSession;
use vhost_core::wire::inflight::Inflight;
use vhost_core::wire::iotlb::Iotlb;
use vhost_core::wire::log::Log;
use vhost_core::wire::shared::Uuid;
use vhost_core::wire::vring::VringBase;
use vhost_core::{GuestAddress, Iova, MemoryRegion, ProtocolFeatures, RingAddress, UserAddress, VirtioFeatures, Xen};
use vhost_std::frontend::{Enabled, Endian, Frontend, FrontendError, Logging, TransferDirection, VringAddresses};
use vhost_tests::wire::region::{ADDED, REGIONS, RING, RING_LOG, Region};
use vhost_tests::wire::{Fixture, feature};

/// Forms of requests that the front-end never sends, and why.
pub(crate) const NEVER_SENT: [(&str, &str, &str); 9] = [
    ("RESET_OWNER", Fixture::USUAL, "deprecated; back-ends do different things"),
    ("SET_LOG_BASE", "an address", "an address of this process is of no use to another"),
    ("GET_VRING_BASE", "number left over", "the number is zero"),
    ("GET_INFLIGHT_FD", "20 bytes", "DPDK closes on it"),
    ("SET_INFLIGHT_FD", "20 bytes", "DPDK closes on it"),
    ("GET_SHARED_OBJECT", "no name", "an error of QEMU"),
    ("REM_MEM_REG", "one descriptor too many", "old front-ends only"),
    ("SET_MEM_TABLE", "postcopy", "the same bytes as usual; see the test of postcopy"),
    ("ADD_MEM_REG", "postcopy", "the same bytes as usual; see the test of postcopy"),
];

pub(crate) fn region(region: Region, fixture: &Fixture) -> MemoryRegion {
    let xen = Xen { flags: region.xen_flags, domain_id: region.domain };
    MemoryRegion {
        guest_address: GuestAddress(region.guest),
        size: region.size,
        user_address: UserAddress(region.user),
        mmap_offset: if fixture.form == "no offset" { 0 } else { region.offset },
        xen: (fixture.gate.protocol & feature::XEN_MMAP != 0).then_some(xen),
    }
}

/// What must have gone before the request of this fixture.
pub(crate) fn prepare(frontend: &mut Frontend, fixture: &Fixture) {
    match fixture.name {
        "POSTCOPY_LISTEN" => drop(frontend.postcopy_advise().unwrap()),
        "REM_MEM_REG" => {
            let file = vhost_tests::dialog::memory(1);
            frontend.add_mem_reg(&region(ADDED, fixture), file.as_fd()).map(drop).unwrap();
        }
        _ => {}
    }
}

/// Makes the call that must send `fixture`; what comes back must be its first answer.
pub(crate) fn call(frontend: &mut Frontend, fixture: &Fixture, descriptors: &[OwnedFd]) -> Result<(), FrontendError> {
    match fixture.id {
        1..=4 | 15..=17 | 21 | 33 | 34 | 39 | 40 => connection(frontend, fixture, descriptors),
        5..=7 | 36..=38 => memory(frontend, fixture, descriptors),
        8..=14 | 18 | 23 | 35 => vring(frontend, fixture, descriptors),
        28..=32 | 42 | 43 => migration(frontend, fixture, descriptors),
        _ => device(frontend, fixture),
    }
}

fn connection(frontend: &mut Frontend, fixture: &Fixture, descriptors: &[OwnedFd]) -> Result<(), FrontendError> {
    let virtio = VirtioFeatures::from_bits_retain;
    match fixture.name {
        "GET_FEATURES" => assert_eq!(frontend.get_features()?, virtio(feature::OFFERED)),
        "SET_FEATURES" if fixture.form == "logging" => {
            frontend.set_features(virtio(feature::ACKNOWLEDGED | feature::LOG_ALL))?;
        }
        "SET_FEATURES" => frontend.set_features(virtio(feature::ACKNOWLEDGED))?,
        "SET_OWNER" => frontend.set_owner()?,
        "GET_PROTOCOL_FEATURES" => {
            assert_eq!(frontend.get_protocol_features()?.bits(), feature::PROTOCOL_OFFERED);
        }
        "SET_PROTOCOL_FEATURES" => {
            frontend.set_protocol_features(ProtocolFeatures::from_bits_retain(feature::PROTOCOL_ACKNOWLEDGED))?;
        }
        "GET_QUEUE_NUM" => assert_eq!(frontend.get_queue_num()?, 8),
        "SET_BACKEND_REQ_FD" => drop(frontend.set_backend_req_fd()?),
        "GPU_SET_SOCKET" => frontend.gpu_set_socket(descriptors[0].as_fd())?,
        "RESET_DEVICE" => frontend.reset_device()?,
        "SET_STATUS" => frontend.set_status(0x0f)?,
        "GET_STATUS" => assert_eq!(frontend.get_status()?, 0x0b),
        other => panic!("no call for {other}"),
    }
    Ok(())
}

fn memory(frontend: &mut Frontend, fixture: &Fixture, descriptors: &[OwnedFd]) -> Result<(), FrontendError> {
    match fixture.name {
        "SET_MEM_TABLE" => {
            let regions = REGIONS.iter().zip(descriptors).map(|(one, file)| (region(*one, fixture), file.as_fd()));
            assert!(frontend.set_mem_table(&Vec::from_iter(regions))?.is_empty());
        }
        "SET_LOG_BASE" => frontend.set_log_base(&Log::new(0x14_0000, 0x3000), descriptors[0].as_fd())?,
        "SET_LOG_FD" => frontend.set_log_fd(descriptors[0].as_fd())?,
        "GET_MAX_MEM_SLOTS" => assert_eq!(frontend.get_max_mem_slots()?, 32),
        "ADD_MEM_REG" => {
            let mapped = frontend.add_mem_reg(&region(ADDED, fixture), descriptors[0].as_fd())?;
            assert_eq!(mapped, None);
        }
        "REM_MEM_REG" => frontend.rem_mem_reg(&region(ADDED, fixture))?,
        other => panic!("no call for {other}"),
    }
    Ok(())
}

fn vring(frontend: &mut Frontend, fixture: &Fixture, descriptors: &[OwnedFd]) -> Result<(), FrontendError> {
    let descriptor = descriptors.first().map(AsFd::as_fd);
    let packed =
        |available, available_wrap, used, used_wrap| VringBase::Packed { available, available_wrap, used, used_wrap };
    match (fixture.name, fixture.form) {
        ("SET_VRING_NUM", _) => frontend.set_vring_num(1, 256)?,
        ("SET_VRING_ADDR", form) => {
            let [descriptor, used, available] = RING.map(RingAddress);
            let (ring, logging) = if form == "logging" { (0, Logging::On) } else { (1, Logging::Off) };
            let addresses = VringAddresses { descriptor, available, used, log: GuestAddress(RING_LOG), logging };
            frontend.set_vring_addr(ring, &addresses)?;
        }
        ("SET_VRING_BASE", "packed") => frontend.set_vring_base(1, packed(0x7b, true, 0x45, true))?,
        ("SET_VRING_BASE", _) => frontend.set_vring_base(1, VringBase::Split { available: 0x0abc })?,
        // Packed rings are agreed on, so both replies are read as those of packed rings.
        ("GET_VRING_BASE", "packed") => assert_eq!(frontend.get_vring_base(1)?, packed(0x8c, true, 0x56, true)),
        ("GET_VRING_BASE", _) => assert_eq!(frontend.get_vring_base(1)?, packed(0xdef, false, 0xdef, false)),
        ("SET_VRING_KICK", _) => frontend.set_vring_kick(1, descriptor)?,
        ("SET_VRING_CALL", _) => frontend.set_vring_call(1, descriptor)?,
        ("SET_VRING_ERR", _) => frontend.set_vring_err(1, descriptor)?,
        ("SET_VRING_ENABLE", "disable") => frontend.set_vring_enable(1, Enabled::No)?,
        ("SET_VRING_ENABLE", _) => frontend.set_vring_enable(0, Enabled::Yes)?,
        ("SET_VRING_ENDIAN", "big-endian") => frontend.set_vring_endian(0, Endian::Big)?,
        ("SET_VRING_ENDIAN", _) => frontend.set_vring_endian(1, Endian::Little)?,
        ("VRING_KICK", _) => frontend.vring_kick(1)?,
        (other, _) => panic!("no call for {other}"),
    }
    Ok(())
}

fn device(frontend: &mut Frontend, fixture: &Fixture) -> Result<(), FrontendError> {
    let parameters = core::array::from_fn(|at| u8::try_from(at % 251).unwrap());
    let uuid =
        Uuid::new([0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe]);
    match (fixture.name, fixture.form) {
        ("SEND_RARP", _) => frontend.send_rarp([0x52, 0x54, 0, 0x12, 0x34, 0x56])?,
        ("NET_SET_MTU", _) => frontend.net_set_mtu(9000)?,
        ("IOTLB_MSG", "invalidate") => {
            let nowhere = UserAddress(0);
            frontend.iotlb_msg(&Iotlb::new(Iova(0xbbbb_1000), 0x2000, nowhere, 0, Iotlb::INVALIDATE))?;
        }
        ("IOTLB_MSG", _) => {
            let access = Iotlb::READ | Iotlb::WRITE;
            let place = UserAddress(0x7f01_1330_4000);
            frontend.iotlb_msg(&Iotlb::new(Iova(0xbbbb_1000), 0x2000, place, access, Iotlb::UPDATE))?;
        }
        ("GET_CONFIG", _) => {
            let mut data = [0xff; 8];
            assert_eq!(frontend.get_config(0x14, &mut data, 0)?, 8);
            assert_eq!(data, [0xc1, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8]);
        }
        ("SET_CONFIG", form) => {
            let flags = u32::from(form == "migration");
            frontend.set_config(0x14, &[0xd1, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8], flags)?;
        }
        ("CREATE_CRYPTO_SESSION", _) => {
            let session = CryptoSession::new(0x0302, parameters, 0);
            assert_eq!(frontend.create_crypto_session(&session)?, 0x0102_0304_0506_0708);
        }
        ("CLOSE_CRYPTO_SESSION", _) => frontend.close_crypto_session(0x0102_0304_0506_0708)?,
        ("GET_SHARED_OBJECT", _) => drop(frontend.get_shared_object(uuid)?),
        ("GET_SHMEM_CONFIG", _) => {
            let sizes = frontend.get_shmem_config()?;
            let present = sizes.iter().enumerate().filter(|(_, size)| **size != 0).map(|(id, size)| (id, *size));
            assert_eq!(Vec::from_iter(present), [(1, 0x10_0000), (7, 0x20_0000), (255, 0x40_0000)]);
        }
        (other, _) => panic!("no call for {other}"),
    }
    Ok(())
}

fn migration(frontend: &mut Frontend, fixture: &Fixture, descriptors: &[OwnedFd]) -> Result<(), FrontendError> {
    match (fixture.name, fixture.form) {
        ("POSTCOPY_ADVISE", _) => drop(frontend.postcopy_advise()?),
        ("POSTCOPY_LISTEN", _) => frontend.postcopy_listen()?,
        ("POSTCOPY_END", _) => frontend.postcopy_end()?,
        ("GET_INFLIGHT_FD", _) => {
            let (record, _file) = frontend.get_inflight_fd(2, 256)?.unwrap();
            assert_eq!(record, Inflight::new(0x2080, 0x3000, 2, 256));
        }
        ("SET_INFLIGHT_FD", _) => {
            frontend.set_inflight_fd(&Inflight::new(0x2080, 0x3000, 2, 256), descriptors[0].as_fd())?;
        }
        ("SET_DEVICE_STATE_FD", form) => {
            let direction = if form == "save" { TransferDirection::Save } else { TransferDirection::Load };
            assert!(frontend.set_device_state_fd(direction, descriptors[0].as_fd())?.is_none(), "take yours");
        }
        ("CHECK_DEVICE_STATE", _) => frontend.check_device_state()?,
        (other, _) => panic!("no call for {other}"),
    }
    Ok(())
}
