//! What the kernel refuses, and what is refused before it gets there: the errors that the documentation names.

use std::env;
use std::fs::File;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};

use rustix::io::Errno;
use vhost_core::uapi::vduse_message::{VduseAnswer, VduseVersion};
use vhost_core::wire::vring::VringBase;
use vhost_core::{VirtioFeatures, VringAddresses};
use vhost_kernel::net::Net;
use vhost_kernel::scsi::Scsi;
use vhost_kernel::vduse::{self, Control, DeviceOptions, VduseDevice};
use vhost_kernel::vsock::Vsock;
use vhost_kernel::{KernelError, MemoryDevice, VhostDevice, WorkerKind};
use vhost_std::memory::{MemoryFile, MemoryTable};

use super::answering::options;
use super::net::tap;
use super::ring::{Ring, SIZE, memory, table};

fn errno<T>(outcome: Result<T, impl Into<KernelError>>) -> Option<Errno> {
    outcome.err().map(Into::into).and_then(|error| error.errno())
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn calls_out_of_order() {
    let (net, vsock) = (Net::open().unwrap(), Vsock::open().unwrap());
    assert_eq!(errno(net.set_vring_num(0, 16)), Some(Errno::PERM), "there is no owner");
    assert_eq!(errno(vsock.start()), Some(Errno::PERM), "there is no owner");
    assert_eq!(errno(Scsi::open().unwrap().new_worker()), Some(Errno::INVAL), "there is no owner");
    net.set_owner().unwrap();
    vsock.set_owner().unwrap();
    assert_eq!(errno(net.set_owner()), Some(Errno::BUSY));
    assert_eq!(errno(net.set_worker_kind(WorkerKind::KernelThread)), Some(Errno::BUSY));
    assert_eq!(errno(vsock.start()), Some(Errno::FAULT), "there are no rings");
    let scsi = Scsi::open().unwrap();
    scsi.set_worker_kind(WorkerKind::KernelThread).unwrap();
    assert_eq!(scsi.worker_kind(), Ok(WorkerKind::KernelThread));
    scsi.set_owner().unwrap();
    assert_eq!(errno(scsi.new_worker()), Some(Errno::FAULT), "workers are threads of the kernel");
    let (tap, _) = tap();
    assert_eq!(errno(net.set_backend(0, Some(tap.as_fd()))), Some(Errno::FAULT), "there is no ring");

    let memory = memory(1);
    let ring = Ring::new(&memory, 0);
    let addresses = ring.driver.user_addresses();
    assert_eq!(net.set_vring_addresses(0, &addresses), Err(KernelError::NoRingSize { ring: 0 }));
    net.set_memory(&table(&memory)).unwrap();
    ring.set_up(&net);
    let grows = KernelError::RingGrows { ring: 0, addressed: SIZE.into(), wanted: 32 };
    assert_eq!(net.set_vring_num(0, 32), Err(grows));
    net.set_backend(0, Some(tap.as_fd())).unwrap();
    assert_eq!(errno(net.set_vring_num(0, 8)), Some(Errno::BUSY), "the ring runs");
    assert_eq!(errno(net.set_vring_base(0, VringBase::Split { available: 1 })), Some(Errno::BUSY), "the ring runs");
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn arguments_that_make_no_sense() {
    let net = Net::open().unwrap();
    net.set_owner().unwrap();
    let all = VirtioFeatures::all() - VirtioFeatures::LOG_ALL;
    assert_eq!(errno(net.set_features(all)), Some(Errno::OPNOTSUPP));
    for size in [0, 3, 0x1_0000] {
        assert_eq!(errno(net.set_vring_num(0, size)), Some(Errno::INVAL), "{size}");
    }
    assert_eq!(errno(net.set_vring_num(2, 16)), Some(Errno::NOBUFS));
    let file = File::open("/dev/null").unwrap();
    for set in [Net::set_vring_kick, Net::set_vring_call, Net::set_vring_error] {
        assert_eq!(errno(set(&net, 0, Some(file.as_fd()))), Some(Errno::INVAL), "no eventfd");
    }

    let memory = memory(1);
    let ring = Ring::new(&memory, 0);
    net.set_memory(&table(&memory)).unwrap();
    ring.set_up(&net);
    assert_eq!(errno(net.set_backend(0, Some(file.as_fd()))), Some(Errno::NOTSOCK));
    let addresses = ring.driver.user_addresses();
    let misaligned = VringAddresses { used: vhost_core::RingAddress(addresses.used.0 + 2), ..addresses };
    assert!(matches!(net.set_vring_addresses(0, &misaligned), Err(KernelError::Misaligned { ring: 0, .. })));
    let outside = VringAddresses { descriptor: vhost_core::RingAddress(0), ..addresses };
    assert!(matches!(net.set_vring_addresses(0, &outside), Err(KernelError::Memory(_))));

    let regions = (0..65).map(|at| MemoryFile::create("one of many", at << 20, 0x1000).unwrap().mapped().clone());
    let many = MemoryTable::new(Vec::from_iter(regions)).unwrap();
    assert_eq!(errno(net.set_memory(&many)), Some(Errno::TOOBIG));

    let vsock = Vsock::open().unwrap();
    for cid in [0, 1, 2, u32::MAX] {
        assert_eq!(errno(vsock.set_guest_cid(cid)), Some(Errno::INVAL), "{cid}");
    }
    let scsi = Scsi::open().unwrap();
    scsi.set_owner().unwrap();
    scsi.set_memory(&table(&memory)).unwrap();
    assert_eq!(errno(scsi.set_endpoint(&"n".repeat(224))), Some(Errno::INVAL));
    assert_eq!(errno(scsi.set_endpoint(&"n".repeat(223))), Some(Errno::NODEV));
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn vduse_devices_that_cannot_be() {
    const NAME: &str = "refused";
    let control = Control::open(VduseVersion::V0).unwrap();
    let good = options(NAME);
    let long = "n".repeat(256);
    let bad = [
        DeviceOptions { name: &long, ..good },
        DeviceOptions { name: "", ..good },
        DeviceOptions { device_id: 99, ..good },
        DeviceOptions { features: VirtioFeatures::VERSION_1, ..good },
        DeviceOptions { vring_align: 3, ..good },
        DeviceOptions { config: &[0; 5000], ..good },
    ];
    for options in bad {
        assert_eq!(errno(control.create(&options)), Some(Errno::INVAL), "{options:?}");
    }
    assert_eq!(errno(control.destroy(NAME)), Some(Errno::INVAL), "there is none");
    assert_eq!(errno(VduseDevice::open(NAME, VduseVersion::V0)), Some(Errno::NOENT));
    control.create(&good).unwrap();
    assert_eq!(errno(control.create(&good)), Some(Errno::EXIST));
    let device = VduseDevice::open(NAME, VduseVersion::V0).unwrap();
    assert_eq!(errno(VduseDevice::open(NAME, VduseVersion::V0)), Some(Errno::BUSY));
    assert_eq!(errno(control.destroy(NAME)), Some(Errno::BUSY), "it is open");
    assert_eq!(errno(device.set_up_vring(1, 64, 0)), Some(Errno::INVAL), "there is one ring");
    assert_eq!(errno(vduse::add_to_bus(NAME)), Some(Errno::INVAL), "the ring is not set up");
    assert_eq!(errno(vduse::add_to_bus("nothing")), Some(Errno::INVAL));
    assert_eq!(errno(vduse::remove_from_bus(NAME)), Some(Errno::NODEV));
    assert_eq!(errno(device.inject_config_interrupt()), Some(Errno::INVAL), "there is no driver");
    assert_eq!(errno(device.inject_vring_interrupt(0)), Some(Errno::INVAL), "there is no driver");
    assert_eq!(errno(device.set_config(59, &[0; 2])), Some(Errno::INVAL), "it has 60 bytes");
    assert_eq!(errno(device.answer(7, VduseAnswer::Done)), Some(Errno::NOENT), "nothing was asked");
    assert!(device.next_request().unwrap().is_none());
    drop(device);
    control.destroy(NAME).unwrap();
}

/// Set where the test below runs in another process, whose standard input is the device.
const CHILD: &str = "VHOST_KERNEL_CHILD";

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn another_process_is_no_owner() {
    if env::var_os(CHILD).is_some() {
        let net = Net::from_descriptor(std::io::stdin().as_fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(errno(net.set_vring_num(0, 16)), Some(Errno::PERM));
        assert_eq!(errno(net.set_owner()), Some(Errno::BUSY));
        assert!(net.features().is_ok());
        return;
    }
    let net = Net::open().unwrap();
    net.set_owner().unwrap();
    let child = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "inside::refusals::another_process_is_no_owner"])
        .env(CHILD, "")
        .stdin(Stdio::from(net.as_fd().try_clone_to_owned().unwrap()))
        .output()
        .unwrap();
    assert!(child.status.success(), "{child:?}");
    assert!(String::from_utf8_lossy(&child.stdout).contains("1 passed"), "{child:?}");
    net.set_vring_num(0, 16).unwrap();
}
