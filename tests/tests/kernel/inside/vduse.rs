//! Our own disk as a VDUSE device: of the kernel's driver, and of our own.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use rustix::io::Errno;
use vhost_core::uapi::vduse_message::VduseVersion;
use vhost_core::wire::vring::VringBase;
use vhost_core::{Iova, RingLayout, VirtioFeatures};
use vhost_kernel::VhostDevice;
use vhost_kernel::vdpa::Vdpa;
use vhost_kernel::vduse::{self, Control};

use super::server::{Server, image};
use super::vdpa::node;
use super::vdpa_disk::{IOVA, SECTOR, VdpaDisk, memory};

fn bind(name: &str, from: &str, to: &str) {
    let drivers = Path::new("/sys/bus/vdpa/drivers");
    fs::write(drivers.join(from).join("unbind"), name).unwrap();
    fs::write(drivers.join(to).join("bind"), name).unwrap();
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
    bind(NAME, "vhost_vdpa", "virtio_vdpa");
    super::wait_until("the kernel has a disk", || Path::new("/dev/vda").exists());

    // A character for each bit of the acknowledged features.
    let features = fs::read_to_string("/sys/block/vda/device/features").unwrap();
    assert_eq!(&features[34..35] == "1", layout == RingLayout::Packed, "{features}");
    run("mkfs.ext4", &["-q", "/dev/vda"]);
    fs::create_dir_all("/disk").unwrap();
    run("mount", &["-t", "ext4", "/dev/vda", "/disk"]);
    let bytes: Vec<u8> = (0..8_u64 << 20).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    for file in 0..3 {
        fs::write(format!("/disk/file{file}"), &bytes[file << 16..]).unwrap();
    }
    run("umount", &["/disk"]);
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    run("mount", &["-t", "ext4", "/dev/vda", "/disk"]);
    for file in 0..3 {
        assert!(fs::read(format!("/disk/file{file}")).unwrap() == bytes[file << 16..], "file {file} has changed");
    }
    run("umount", &["/disk"]);

    server.end();
    assert!(!Path::new("/dev/vda").exists());
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
