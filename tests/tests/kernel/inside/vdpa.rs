//! vhost-vdpa with a disk of qemu-storage-daemon: rings of ours, mapping, status, restart.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;

use rustix::io::Errno;
use vhost_core::uapi::bits::{BackendFeatures, DeviceStatus};
use vhost_core::uapi::iotlb::Access;
use vhost_core::uapi::vduse_message::{VduseAnswer, VduseRequest, VduseVersion};
use vhost_core::{Iova, VirtioFeatures};
use vhost_kernel::vdpa::{Mapping, Vdpa};
use vhost_kernel::vduse::{self, Control, VduseDevice};
use vhost_kernel::{KernelError, VhostDevice};
use vhost_std::eventfd::EventFd;
use vhost_std::memory::MemoryFile;

use super::answering::{answer, options, yes};
use super::server::{SECTORS, image};
use super::vdpa_disk::{IOVA, SECTOR, VdpaDisk, memory};

/// The node that `vhost_vdpa` has made for a device on the bus.
pub(crate) fn node(name: &str) -> PathBuf {
    let folder = Path::new("/sys/bus/vdpa/devices").join(name);
    let mut entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let node = entries.find(|entry| entry.starts_with("vhost-vdpa")).unwrap();
    Path::new("/dev").join(node)
}

/// What the daemon's disk is called.
const NAME: &str = "qsd";

/// qemu-storage-daemon with a disk on the vdpa bus.
pub(crate) struct Daemon {
    process: Child,
    name: String,
}

impl Daemon {
    pub(crate) fn start(name: &str, image: &Path, queues: u16) -> Self {
        let process = Command::new("qemu-storage-daemon")
            .arg("--blockdev")
            .arg(format!("driver=file,node-name=file,filename={}", image.display()))
            .arg("--export")
            .arg(format!(
                "type=vduse-blk,id=export,node-name=file,name={name},writable=on,queue-size=128,num-queues={queues}"
            ))
            .spawn()
            .unwrap();
        let daemon = Self { process, name: name.to_owned() };
        let device = Path::new("/dev/vduse").join(name);
        super::wait_until("qemu-storage-daemon has made its device", || device.exists());
        // The daemon opens the device right after it has made it, and answers from then on.
        super::wait_until("the device can be added", || match vduse::add_to_bus(name) {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.errno, Errno::INVAL, "{error}");
                false
            }
        });
        daemon
    }

    pub(crate) fn end(mut self) {
        vduse::remove_from_bus(&self.name).unwrap();
        let process = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success());
    }
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn a_disk_of_another_program_works_across_maps_and_a_restart() {
    let image = image("qsd.img");
    let daemon = Daemon::start(NAME, &image, 1);
    let vdpa = Vdpa::open(&node(NAME)).unwrap();
    assert_eq!(vdpa.device_id(), Ok(2));
    let busy = Vdpa::open(&node(NAME)).unwrap_err();
    assert_eq!(busy.errno, Errno::BUSY);
    let memory = memory();
    let packed = vdpa.features().unwrap().contains(VirtioFeatures::RING_PACKED);
    assert!(!packed, "qemu-storage-daemon has learnt packed rings: drive it with them too");
    let mut disk = VdpaDisk::new(vdpa, &memory, VirtioFeatures::empty());
    disk.bring_up();
    let mut capacity = [0; 8];
    disk.vdpa.read_config(0, &mut capacity).unwrap();
    assert_eq!(u64::from_le_bytes(capacity), SECTORS);

    disk.write(100, 1);
    disk.flush();
    assert_eq!(disk.read(100), VdpaDisk::pattern(1));
    let written = fs::read(&image).unwrap();
    assert_eq!(written[100 * SECTOR..][..SECTOR], VdpaDisk::pattern(1), "in the image");

    // Another piece of memory comes and goes while the disk runs.
    let more = MemoryFile::create("more", 0, 0x4000).unwrap();
    let mapping = Mapping::all_of(more.mapped(), Iova(IOVA + 0x100_0000), Access::ReadWrite);
    disk.vdpa.map(0, &mapping).unwrap();
    let again = disk.vdpa.map(0, &mapping).unwrap_err();
    assert!(matches!(again, KernelError::Iotlb { errno: Errno::FAULT, .. }), "{again}");
    disk.read_into(100, mapping.iova);
    let mut bytes = [0; SECTOR];
    vhost_std::driver::GuestArea::of(&more).read(0, &mut bytes).unwrap();
    assert_eq!(bytes, VdpaDisk::pattern(1)[..]);
    disk.vdpa.unmap(0, mapping.iova, mapping.size).unwrap();
    assert_eq!(disk.read(100), VdpaDisk::pattern(1));

    // The status is read back, and what has been settled stays.
    assert_eq!(disk.vdpa.set_status(DeviceStatus::ACKNOWLEDGE).unwrap_err().errno, Errno::INVAL);
    assert_eq!(disk.vdpa.set_features(disk.features).unwrap_err().errno, Errno::BUSY);

    disk.vdpa.reset().unwrap();
    disk.vdpa.unmap(0, Iova(memory.region().guest_address.0), memory.region().size).unwrap();
    disk.bring_up();
    assert_eq!(disk.read(100), VdpaDisk::pattern(1), "after a restart");
    disk.write(100, 2);
    assert_eq!(disk.read(100), VdpaDisk::pattern(2));
    drop(disk);
    daemon.end();
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn memory_that_a_device_cannot_have_is_refused() {
    let image = image("qsd.img");
    let daemon = Daemon::start(NAME, &image, 1);
    let vdpa = Vdpa::open(&node(NAME)).unwrap();
    vdpa.set_owner().unwrap();
    let offered = vdpa.backend_features().unwrap();
    assert!(offered.contains(BackendFeatures::IOTLB_BATCH | BackendFeatures::IOTLB_MSG_V2));
    vdpa.set_backend_features(offered).unwrap();
    let memory = MemoryFile::create("pages", 0, 0x4000).unwrap();
    let whole = Mapping::all_of(memory.mapped(), Iova(0x1000), Access::ReadWrite);
    let outside = Mapping { offset: 0x1000, ..whole.clone() };
    assert!(matches!(vdpa.map(0, &outside), Err(KernelError::OutsideRegion { .. })));
    let part = Mapping { size: 0x800, ..whole.clone() };
    assert!(matches!(vdpa.map(0, &part), Err(KernelError::NotWholePages { .. })));
    assert!(matches!(vdpa.map(7, &whole), Err(KernelError::Iotlb { errno: Errno::FAULT, .. })));

    let batch = vdpa.batch(0).unwrap();
    batch.map(&whole).unwrap();
    batch.map(&Mapping { iova: Iova(0x10_0000), ..whole.clone() }).unwrap();
    batch.unmap(whole.iova, 1).unwrap();
    batch.end().unwrap();
    vdpa.map(0, &whole).unwrap();

    let range = vdpa.iova_range().unwrap();
    assert_eq!((range.first(), range.last()), (Iova(0), Iova(u64::MAX)));
    let too_large = vdpa.set_vring_num(0, 0x8000).unwrap_err();
    assert_eq!(too_large, KernelError::RingSize { found: 0x8000, largest: 128 });
    drop(vdpa);
    daemon.end();
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn a_status_that_the_device_refuses_is_noticed() {
    const NAME: &str = "refusing";
    let control = Control::open(VduseVersion::V0).unwrap();
    control.create(&options(NAME)).unwrap();
    let device = VduseDevice::open(NAME, VduseVersion::V0).unwrap();
    device.set_up_vring(0, 64, 0).unwrap();
    let refuse = |request| match request {
        VduseRequest::SetStatus(status) if status.contains(DeviceStatus::FEATURES_OK) => VduseAnswer::Failed,
        request => yes(request),
    };
    let stop = EventFd::new().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| answer(&device, &stop, refuse));
        vduse::add_to_bus(NAME).unwrap();
        let vdpa = Vdpa::open(&node(NAME)).unwrap();
        vdpa.set_owner().unwrap();
        let found = vdpa.raise_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER).unwrap();
        vdpa.set_features(vdpa.features().unwrap()).unwrap();
        let wanted = found | DeviceStatus::FEATURES_OK;
        assert_eq!(vdpa.set_status(wanted), Ok(()), "the ioctl says nothing");
        assert_eq!(vdpa.raise_status(DeviceStatus::FEATURES_OK), Err(KernelError::StatusRefused { wanted, found }));
        drop(vdpa);
        vduse::remove_from_bus(NAME).unwrap();
        stop.signal().unwrap();
    });
    drop(device);
    control.destroy(NAME).unwrap();
}
