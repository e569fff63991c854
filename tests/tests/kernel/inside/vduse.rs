//! Our own disk as a VDUSE device: of the kernel's driver, and of our own.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::Arc;
use std::thread;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, setrlimit};
use vhost_core::uapi::iotlb::Access;
use vhost_core::uapi::vduse_message::VduseVersion;
use vhost_core::wire::vring::VringBase;
use vhost_core::{GuestAddress, Iova, MemoryRegion, RingLayout, UserAddress, VirtioFeatures};
use vhost_kernel::vdpa::{Mapping, Vdpa};
use vhost_kernel::vduse::{self, Control, RingChoice, VduseServer};
use vhost_kernel::{KernelError, VhostDevice};
use vhost_std::block::{BlockDevice, BlockOptions};
use vhost_std::driver::GuestArea;
use vhost_std::eventfd::EventFd;
use vhost_std::memory::{MappedRegion, MemoryFile};

use super::server::{Server, image};
use super::table::Table;
use super::vdpa::node;
use super::vdpa_disk::{IOVA, SECTOR, VdpaDisk, memory};

fn bind(name: &str, from: &str, to: &str) {
    let drivers = Path::new("/sys/bus/vdpa/drivers");
    fs::write(drivers.join(from).join("unbind"), name).unwrap();
    fs::write(drivers.join(to).join("bind"), name).unwrap();
}

/// Gives a device to the kernel's own driver; the disk that it becomes.
fn bind_as_disk(name: &str) -> String {
    bind(name, "vhost_vdpa", "virtio_vdpa");
    let entries = |folder: &Path| -> Vec<PathBuf> {
        fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    };
    let disk = || {
        let devices = entries(&Path::new("/sys/bus/vdpa/devices").join(name));
        let disks = devices.iter().flat_map(|device| entries(&device.join("block")));
        let disk = disks.into_iter().next()?;
        Some(format!("/dev/{}", disk.file_name()?.to_str()?))
    };
    super::wait_until("the kernel has a disk", || disk().is_some_and(|disk| Path::new(&disk).exists()));
    disk().unwrap()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn the_kernel_keeps_a_file_system_on_our_disk() {
    the_kernel_keeps_a_file_system(RingLayout::Split, &[]);
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn the_kernel_keeps_a_file_system_on_our_disk_by_packed_rings() {
    the_kernel_keeps_a_file_system(RingLayout::Packed, &["--packed", "--num-queues=2"]);
}

fn the_kernel_keeps_a_file_system(layout: RingLayout, arguments: &[&str]) {
    const NAME: &str = "ours";
    let image = image("ours.img");
    let server = Server::start(NAME, &image, arguments, "is on the vdpa bus");
    assert_eq!(vduse::add_to_bus(NAME).unwrap_err().errno, Errno::EXIST);
    let control = Control::open(VduseVersion::V0).unwrap();
    assert_eq!(control.destroy(NAME).unwrap_err().errno, Errno::BUSY);
    let disk = bind_as_disk(NAME);

    // A character for each bit of the acknowledged features.
    let features = fs::read_to_string(format!("/sys/block/{}/device/features", &disk[5..])).unwrap();
    assert_eq!(&features[34..35] == "1", layout == RingLayout::Packed, "{features}");
    run("mkfs.ext4", &["-q", &disk]);
    fs::create_dir_all("/disk").unwrap();
    run("mount", &["-t", "ext4", &disk, "/disk"]);
    let bytes: Vec<u8> = (0..8_u64 << 20).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    for file in 0..3 {
        fs::write(format!("/disk/file{file}"), &bytes[file << 16..]).unwrap();
    }
    run("umount", &["/disk"]);
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    run("mount", &["-t", "ext4", &disk, "/disk"]);
    for file in 0..3 {
        assert!(fs::read(format!("/disk/file{file}")).unwrap() == bytes[file << 16..], "file {file} has changed");
    }
    run("umount", &["/disk"]);

    server.end();
    assert!(!Path::new(&disk).exists());
    assert!(!Path::new("/dev/vduse").join(NAME).exists());
    // It is all in the image: the kernel's own loop device finds the same file system there.
    run("mount", &["-t", "ext4", "-o", "loop,ro", image.to_str().unwrap(), "/disk"]);
    assert!(fs::read("/disk/file0").unwrap() == bytes, "the file in the image has changed");
    run("umount", &["/disk"]);
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn our_driver_drives_our_disk_while_its_server_changes() {
    const NAME: &str = "both-ours";
    let image = image("both-ours.img");
    let server = Server::start(NAME, &image, &["--leave"], "is on the vdpa bus");
    let memory = memory();
    let mut client = VdpaDisk::new(Vdpa::open(&node(NAME)).unwrap(), &memory, VirtioFeatures::empty());
    client.bring_up();
    client.write(7, 1);
    client.flush();
    let mut sector = [0; SECTOR];
    File::open(&image).unwrap().read_exact_at(&mut sector, 7 * SECTOR as u64).unwrap();
    assert_eq!(sector, VdpaDisk::pattern(1)[..]);

    // Nobody serves the disk; a request waits for the next one who does.
    server.end();
    client.begin_write(7, 2);
    let server = Server::start(NAME, &image, &["--take-over"], "is taken over");
    client.finish();
    assert_eq!(client.read(7), VdpaDisk::pattern(2));

    // A restart of the driver, with the same memory elsewhere for the device.
    client.vdpa.reset().unwrap();
    client.vdpa.unmap(0, Iova(IOVA), memory.region().size).unwrap();
    client.bring_up();
    assert_eq!(client.read(7), VdpaDisk::pattern(2));

    drop(client);
    server.end();
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn our_driver_drives_our_disk_by_a_packed_ring() {
    const NAME: &str = "packed";
    let image = image("packed.img");
    let server = Server::start(NAME, &image, &["--packed"], "is on the vdpa bus");
    let memory = memory();
    let mut client = VdpaDisk::new(Vdpa::open(&node(NAME)).unwrap(), &memory, VirtioFeatures::RING_PACKED);
    client.bring_up();
    // Two or three descriptors each, so that the ring of 16 comes around.
    for round in 0..20 {
        client.write(round.into(), round);
        client.flush();
        assert_eq!(client.read(round.into()), VdpaDisk::pattern(round));
    }
    let descriptors = 20 * (3 + 2 + 3);
    let (place, wrap) = (descriptors % 16, descriptors / 16 % 2 == 0);
    let base = VringBase::Packed { available: place, available_wrap: wrap, used: place, used_wrap: wrap };
    assert_eq!(client.vdpa.vring_base(0, client.layout()), Ok(base));
    drop(client);
    server.end();
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn memory_that_is_not_there_or_not_to_be_written_is_out_of_reach() {
    const NAME: &str = "reach";
    const ELSEWHERE: Iova = Iova(IOVA + 0x100_0000);
    let server = Server::start(NAME, &image("reach.img"), &[], "is on the vdpa bus");
    let memory = memory();
    let mut client = VdpaDisk::new(Vdpa::open(&node(NAME)).unwrap(), &memory, VirtioFeatures::empty());
    client.bring_up();

    let other = MemoryFile::create("read only", 0, 0x1000).unwrap();
    GuestArea::of(&other).write(0, &[7; SECTOR]).unwrap();
    client.vdpa.map(0, &Mapping::all_of(other.mapped(), ELSEWHERE, Access::Read)).unwrap();
    client.read_out_of_reach(ELSEWHERE);
    let mut bytes = [0; SECTOR];
    GuestArea::of(&other).read(0, &mut bytes).unwrap();
    assert_eq!(bytes, [7; SECTOR]);
    client.vdpa.unmap(0, ELSEWHERE, 0x1000).unwrap();

    // A file that is cut off after it was mapped here.
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(std::env::temp_dir().join("cut"))
        .unwrap();
    file.set_len(0x1000).unwrap();
    let region = MemoryRegion::new(GuestAddress(0), 0x1000, UserAddress(0), 0);
    let region = Arc::new(MappedRegion::new(region, file.try_clone().unwrap().into()).unwrap());
    file.set_len(0).unwrap();
    let refused = client.vdpa.map(0, &Mapping::all_of(&region, ELSEWHERE, Access::ReadWrite));
    assert!(matches!(refused, Err(KernelError::Iotlb { errno: Errno::FAULT, .. })), "{refused:?}");
    client.read_out_of_reach(ELSEWHERE);

    // The ring itself goes and comes back.
    let all = Mapping::all_of(memory.mapped(), Iova(IOVA), Access::ReadWrite);
    client.vdpa.unmap(0, all.iova, all.size).unwrap();
    client.vdpa.map(0, &all).unwrap();
    client.write(7, 1);
    assert_eq!(client.read(7), VdpaDisk::pattern(1));
    drop(client);
    server.end();
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn version_1_of_the_interface_where_the_kernel_has_it() {
    const NAME: &str = "one";
    if Control::newest_version() == Ok(0) {
        assert_eq!(Control::open(VduseVersion::V1).unwrap_err().errno, Errno::INVAL);
        return;
    }
    let image = image("one.img");
    let server = Server::start(NAME, &image, &["--interface=1", "--leave"], "is on the vdpa bus");
    let memory = memory();
    let mut client = VdpaDisk::new(Vdpa::open(&node(NAME)).unwrap(), &memory, VirtioFeatures::empty());
    assert_eq!((client.vdpa.vring_group(0), client.vdpa.set_group_address_space(0, 0)), (Ok(0), Ok(())));
    client.bring_up();
    client.write(7, 1);
    assert_eq!(client.read(7), VdpaDisk::pattern(1));
    server.end();
    client.begin_write(7, 2);
    let server = Server::start(NAME, &image, &["--interface=1", "--take-over"], "is taken over");
    client.finish();
    assert_eq!(client.read(7), VdpaDisk::pattern(2));
    client.vdpa.reset().unwrap();
    client.vdpa.unmap(0, Iova(IOVA), memory.region().size).unwrap();
    client.bring_up();
    assert_eq!(client.read(7), VdpaDisk::pattern(2));
    drop(client);
    server.end();
}

/// Serves a device that another thread uses, which would wait for ever after a panic here.
fn serve(server: &mut VduseServer, stop: &EventFd) {
    if let Err(error) = server.run(stop) {
        // Past the test runner's capture.
        let _ = writeln!(io::stderr(), "the server has ended: {error}");
        process::exit(1);
    }
}

#[test]
#[ignore = "runs in the guest that guest.rs boots"]
fn the_bounce_buffer_can_be_memory_of_ours() {
    const NAME: &str = "bounce";
    const BOUNCE: u64 = 64 << 20;
    let image = image("bounce.img");
    let bytes: Vec<u8> = (0..1_u32 << 20).map(|at| (at.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect();
    fs::write(&image, &bytes).unwrap();
    // Memory that the kernel may write to at any time counts as locked.
    setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None }).unwrap();
    let memory = MemoryFile::create("bounce", 0, BOUNCE).unwrap();
    let area = GuestArea::of(&memory);

    let control = Control::open(VduseVersion::V0).unwrap();
    let disk = Arc::new(BlockDevice::open(&image, &BlockOptions::default()).unwrap());
    let mut server = VduseServer::create(&control, NAME, disk, RingChoice::Split).unwrap();
    server.keep_bounce_buffer_in(memory);
    let (on_the_bus, removed) = (EventFd::new().unwrap(), EventFd::new().unwrap());
    thread::scope(|scope| {
        scope.spawn(|| {
            vduse::add_to_bus(NAME).unwrap();
            assert!(fs::read(bind_as_disk(NAME)).unwrap() == bytes);
            on_the_bus.signal().unwrap();
        });
        serve(&mut server, &on_the_bus);
    });
    let mut seen = vec![0; BOUNCE as usize];
    area.read(0, &mut seen).unwrap();
    // Not any page of them is sure to be there, as the kernel uses the buffer again for the next ones.
    let has_gone_through = |page| seen.chunks(0x1000).any(|chunk| chunk == page);
    assert!(bytes.chunks(0x1000).any(has_gone_through), "the data has gone another way");

    // By hand: other memory takes its place, which the kernel fills with what is there.
    let (lines, device) = (Table("vduse"), server.vduse());
    lines.note("VDUSE_IOTLB_DEREG_UMEM", device.deregister_user_memory(0, Iova(0), BOUNCE));
    assert_eq!(device.deregister_user_memory(0, Iova(0), BOUNCE).unwrap_err().errno, Errno::NOENT);
    let other = MemoryFile::create("other", 0, BOUNCE).unwrap();
    lines.note("VDUSE_IOTLB_REG_UMEM", device.register_user_memory(0, Iova(0), other.mapped()));
    let twice = device.register_user_memory(0, Iova(0), other.mapped()).unwrap_err();
    assert_eq!((twice.call, twice.errno), ("VDUSE_IOTLB_REG_UMEM", Errno::EXIST));
    thread::scope(|scope| {
        scope.spawn(|| {
            vduse::remove_from_bus(NAME).unwrap();
            removed.signal().unwrap();
        });
        serve(&mut server, &removed);
    });
    drop(server);
    control.destroy(NAME).unwrap();
}
