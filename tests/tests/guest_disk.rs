//! A Linux guest uses disks that other processes serve over vhost-user, through QEMU.
//!
//! The same tests run against qemu-storage-daemon: what fails there too is the harness' fault.
#![allow(clippy::unwrap_used, reason = "the tests' own helpers")]

use core::time::Duration;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;
use vhost_tests::guest::{Guest, Report};
use vhost_tests::program::{Running, built, require};

/// For a whole guest, under software emulation on a machine that is busy with other things too.
/// Only a hang reaches it.
const GUEST_LIMIT: Duration = Duration::from_secs(240);
/// For a back-end to begin to listen, and to end.
const BACKEND_LIMIT: Duration = Duration::from_secs(20);

const MEBIBYTE: u64 = 1 << 20;
/// The guest writes one part from each of its four processors, eight MiB each.
const PARTS: [&str; 4] = ["part0", "part1", "part2", "part3"];

/// Each part is written in 32 steps and read in 32, one after the other: 64 interrupts of the queue
/// that belongs to the part's processor. Half are asked for, since one interrupt may serve the file
/// system's own requests too.
const LEAST_COMPLETIONS: u64 = 32;

#[test]
fn files_outlive_a_remount_and_the_guest() {
    files_outlive_a_remount_and_the_guest_on(Server::Ours);
}

#[test]
fn files_outlive_a_remount_and_the_guest_on_the_control() {
    files_outlive_a_remount_and_the_guest_on(Server::StorageDaemon);
}

#[test]
fn a_read_only_disk_refuses_writes_and_tells_its_serial_number() {
    a_read_only_disk_refuses_writes_on(Server::Ours, "guest-disk-20-bytes.");
}

#[test]
fn a_read_only_disk_refuses_writes_on_the_control() {
    // The storage daemon's disks all have this one.
    a_read_only_disk_refuses_writes_on(Server::StorageDaemon, "vhost_user_blk");
}

fn files_outlive_a_remount_and_the_guest_on(server: Server) {
    let (Some(guest), Some(server), Some(tools)) = (Guest::find(), server.find(), Tools::find()) else {
        return;
    };
    let disks = [("vda", 1), ("vdb", 4)].map(|(name, queues)| {
        let disk = Disk::new(name, queues);
        File::create(&disk.image).unwrap().set_len(96 * MEBIBYTE).unwrap();
        (server.serve(&disk, &Options::default()), disk)
    });
    let mut guest = guest.processors(PARTS.len() as u32).module("virtio_blk").program(&tools.make);
    for (_, disk) in &disks {
        guest = guest.vhost_user(&disk.device(), &disk.socket);
    }

    let report = finish(guest, WRITE_AND_READ_BACK);

    for (backend, disk) in disks {
        assert_eq!(report.value(&format!("{} queues", disk.name)), disk.queues.to_string());
        let completions = completions(&report, report.value(&format!("{} device", disk.name)));
        assert_eq!(completions.len(), disk.queues, "one interrupt for each queue of {}", disk.name);
        let fewest = completions.iter().min();
        assert!(fewest >= Some(&LEAST_COMPLETIONS), "{}'s queues completed {completions:?}", disk.name);
        end(backend);
        tools.check(&disk.image);
        for part in PARTS {
            let written = report.value(&format!("memory {part}"));
            assert_eq!(report.value(&format!("{} {part}", disk.name)), written, "{part} after the remount");
            let copy = disk.folder.path().join(part);
            tools.extract(&disk.image, part, &copy);
            assert_eq!(sum(&copy), written, "{part} in {}'s image on the host", disk.name);
        }
    }
}

/// The parts' sums are those of the bytes in the guest's memory. `direct` keeps the page cache out,
/// so that each part moves through the queue of the processor that its writer or reader is bound
/// to.
const WRITE_AND_READ_BACK: &str = r#"
dd if=/dev/urandom of=/data bs=1M count=32
for part in 0 1 2 3; do
    echo "memory part$part $(dd if=/data bs=1M skip=$((part * 8)) count=8 | sha256sum | cut -d ' ' -f 1)"
done
for disk in vda vdb; do
    echo "$disk queues $(ls /sys/block/$disk/mq | wc -l)"
    echo "$disk device $(basename $(readlink /sys/block/$disk/device))"
    mkfs.ext4 -q /dev/$disk
    mkdir /$disk
    mount -t ext4 /dev/$disk /$disk
    for part in 0 1 2 3; do
        taskset -c $part dd if=/data of=/$disk/part$part bs=256k skip=$((part * 32)) count=32 oflag=direct &
    done
    wait
    umount /$disk
    mount -t ext4 /dev/$disk /$disk
    for part in 0 1 2 3; do
        taskset -c $part dd if=/$disk/part$part of=/read$part bs=256k iflag=direct &
    done
    wait
    for part in 0 1 2 3; do
        echo "$disk part$part $(sha256sum </read$part | cut -d ' ' -f 1)"
    done
    umount /$disk
done
grep virtio /proc/interrupts | sed 's/^/interrupt /'
"#;

/// How many interrupts each request queue of `device` has raised: "24: 5 0 7 0
/// PCI-MSIX-0000:00:02.0 1-edge virtio0-req.0".
fn completions(report: &Report, device: &str) -> Vec<u64> {
    let queue = format!("{device}-req.");
    let lines = report.lines.iter().filter_map(|line| line.strip_prefix("interrupt "));
    let lines = lines.filter(|line| line.split_whitespace().any(|word| word.starts_with(&queue)));
    lines.map(|line| line.split_whitespace().skip(1).map_while(|word| word.parse::<u64>().ok()).sum()).collect()
}

fn a_read_only_disk_refuses_writes_on(server: Server, serial: &'static str) {
    let (Some(guest), Some(server), Some(tools)) = (Guest::find(), server.find(), Tools::find()) else {
        return;
    };
    let disk = Disk::new("vda", 1);
    let contents = disk.folder.path().join("contents");
    let bytes: Vec<u8> =
        (0..4 * MEBIBYTE).map(|position| (position.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    fs::create_dir(&contents).unwrap();
    fs::write(contents.join("file"), bytes).unwrap();
    File::create(&disk.image).unwrap().set_len(32 * MEBIBYTE).unwrap();
    tools.make(&disk.image, &contents);
    let before = sum(&disk.image);
    let backend = server.serve(&disk, &Options { read_only: true, serial: Some(serial) });
    let guest = guest.module("virtio_blk").vhost_user(&disk.device(), &disk.socket);

    let report = finish(guest, READ_AND_TRY_TO_WRITE);

    end(backend);
    assert_eq!(report.value("read-only"), "1");
    assert_eq!(report.value("serial"), serial);
    assert_eq!(report.value("sum"), sum(&contents.join("file")));
    assert_eq!(report.value("block"), "refused");
    assert_eq!(report.value("file"), "refused");
    assert_eq!(sum(&disk.image), before, "the image has changed");
}

const READ_AND_TRY_TO_WRITE: &str = r#"
echo "read-only $(cat /sys/block/vda/ro)"
echo "serial $(cat /sys/block/vda/serial)"
mkdir /disk
mount -t ext4 -o ro /dev/vda /disk
echo "sum $(sha256sum </disk/file | cut -d ' ' -f 1)"
umount /disk
if dd if=/dev/zero of=/dev/vda bs=4k count=1 conv=fsync; then echo "block written"; else echo "block refused"; fi
mount -t ext4 /dev/vda /disk
if touch /disk/new; then echo "file written"; else echo "file refused"; fi
umount /disk
"#;

/// Runs the guest and checks what holds for every one of them.
fn finish(guest: Guest, script: &str) -> Report {
    let report = guest.boot(script).finish(GUEST_LIMIT);
    assert_eq!(report.status, 0, "the script's status");
    assert!(!report.console.contains("I/O error"), "the guest complains of its disk:\n{}", report.console);
    report
}

/// A back-end may end with its client or wait for the next one; either way without a fault.
fn end(mut backend: Running) {
    let status = backend.terminate(BACKEND_LIMIT);
    let asked = status.signal() == Some(Signal::TERM.as_raw());
    assert!(status.success() || asked, "the back-end's end: {status}");
    assert!(!backend.output().contains("panicked"), "a thread of the back-end failed");
}

/// An image on the host, and the socket of whoever serves it.
struct Disk {
    folder: TempDir,
    /// As the guest calls it.
    name: &'static str,
    queues: usize,
    image: PathBuf,
    socket: PathBuf,
}

impl Disk {
    fn new(name: &'static str, queues: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [image, socket] = ["image", "socket"].map(|file| folder.path().join(file));
        Self { folder, name, queues, image, socket }
    }

    /// QEMU's name for the device, with its properties.
    fn device(&self) -> String {
        format!("vhost-user-blk-pci,num-queues={}", self.queues)
    }
}

/// How a disk is served.
#[derive(Default)]
struct Options {
    read_only: bool,
    serial: Option<&'static str>,
}

/// Which program serves the disks.
#[derive(Clone, Copy)]
enum Server {
    Ours,
    StorageDaemon,
}

/// A [`Server`] whose program is there.
struct Found {
    server: Server,
    program: PathBuf,
}

impl Server {
    fn find(self) -> Option<Found> {
        let program = match self {
            Self::Ours => built("vhost-std", "vhost-user"),
            Self::StorageDaemon => require("qemu-storage-daemon")?,
        };
        Some(Found { server: self, program })
    }
}

impl Found {
    fn serve(&self, disk: &Disk, options: &Options) -> Running {
        let (image, socket, queues) = (disk.image.display(), disk.socket.display(), disk.queues);
        let mut command = Command::new(&self.program);
        match self.server {
            Server::Ours => {
                command.arg("blk").arg(format!("--socket-path={socket}")).arg(format!("--blk-file={image}"));
                command.arg(format!("--num-queues={queues}"));
                command.args(options.read_only.then_some("--read-only"));
                command.args(options.serial.map(|serial| format!("--serial={serial}")));
            }
            Server::StorageDaemon => {
                let (read_only, writable) = if options.read_only { ("on", "off") } else { ("off", "on") };
                command.arg("--blockdev");
                command.arg(format!("driver=file,node-name=file,filename={image},read-only={read_only},discard=unmap"));
                command.arg("--export").arg(format!(
                    "type=vhost-user-blk,id=export,node-name=file,addr.type=unix,addr.path={socket},\
                     writable={writable},num-queues={queues}"
                ));
            }
        }
        let mut backend = Running::start(&mut command);
        backend.wait_for_socket(&disk.socket, BACKEND_LIMIT);
        backend
    }
}

/// The host's own programs for ext4, which know nothing of the guest.
struct Tools {
    make: PathBuf,
    check: PathBuf,
    debug: PathBuf,
}

impl Tools {
    fn find() -> Option<Self> {
        let [make, check, debug] = ["mkfs.ext4", "e2fsck", "debugfs"].map(require);
        Some(Self { make: make?, check: check?, debug: debug? })
    }

    fn make(&self, image: &Path, contents: &Path) {
        run(Command::new(&self.make).arg("-q").arg("-d").arg(contents).arg(image));
    }

    /// Looks at the whole file system and repairs nothing: a fault is a status other than 0.
    fn check(&self, image: &Path) {
        run(Command::new(&self.check).arg("-fn").arg(image));
    }

    fn extract(&self, image: &Path, name: &str, to: &Path) {
        run(Command::new(&self.debug).arg("-R").arg(format!("dump /{name} {}", to.display())).arg(image));
    }
}

fn sum(file: &Path) -> String {
    run(Command::new("sha256sum").arg(file)).split_whitespace().next().unwrap().to_owned()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
