//! A Linux guest writes to disks whose back-ends are killed every second. QEMU connects to the next one with the record of
//! the requests in flight, and the guest notices nothing.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod blocks;
mod inside;

use core::time::Duration;
use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use vhost_tests::guest::Guest;
use vhost_tests::program::{Running, built, require};

use crate::blocks::BLOCKS_FILE;

/// For how many seconds the guest writes.
const SECONDS: &str = "VHOST_GUEST_CRASH_SECONDS";

/// Where [`SECONDS`] is not set.
const FEW_SECONDS: u32 = 8;

/// For the rest of the guest's life, under software emulation on a machine that is busy with other things too.
const GUEST_LIMIT: Duration = Duration::from_secs(240);
const BACKEND_LIMIT: Duration = Duration::from_secs(20);

/// From one kill to the next, and from QEMU's one attempt to connect to the next, in milliseconds.
const INTERVAL: Duration = Duration::from_secs(1);
const RECONNECT: u32 = 50;

#[test]
fn a_guest_does_not_notice_that_its_back_ends_are_killed_every_second() {
    let Some(guest) = Guest::find() else { return };
    let [Some(make), Some(check), Some(debug)] = ["mkfs.ext4", "e2fsck", "debugfs"].map(require) else { return };
    let seconds = env::var(SECONDS).map_or(FEW_SECONDS, |seconds| seconds.parse().unwrap());
    let program = env::current_exe().unwrap();
    let tool = built("vhost-std", "vhost-user");
    let disks = [("vda", "off"), ("vdb", "on")].map(|(name, packed)| Disk::new(name, packed, &tool));
    let mut guest = guest.processors(2).memory(512).module("virtio_blk").program(&make).program(&program);
    for disk in &disks {
        guest = guest.arguments(disk.arguments());
    }
    let name = program.file_name().unwrap().to_str().unwrap();
    let script = SCRIPT.replace("PROGRAM", name).replace("SECONDS", &seconds.to_string());
    let mut backends = disks.each_ref().map(Disk::serve);
    let mut booted = guest.boot(&script);
    booted.wait_for_line("ready", GUEST_LIMIT);
    let mut kills = 0;
    let mut records = disks.each_ref().map(|_| Vec::new());
    while !booted.prints_within("written", INTERVAL) {
        assert!(kills < 2 * seconds, "the guest does not come to an end");
        for ((backend, disk), records) in backends.iter_mut().zip(&disks).zip(&mut records) {
            records.extend(record_of(backend));
            backend.kill();
            *backend = disk.serve();
        }
        kills += 1;
    }
    for (records, disk) in records.iter().zip(&disks) {
        let handed_on = records.windows(2).filter(|pair| pair[0] == pair[1]).count();
        assert!(handed_on as u32 > kills / 2, "{}: of {kills} back-ends {handed_on} got the record on", disk.name);
    }

    let report = booted.finish(GUEST_LIMIT);

    assert_eq!(report.status, 0, "the script's status");
    assert!(kills > seconds / 2, "{kills} kills in {seconds} seconds");
    for complaint in ["I/O error", "EXT4-fs error", "EXT4-fs warning"] {
        assert!(!report.console.contains(complaint), "the guest complains:\n{}", report.console);
    }
    for (mut backend, disk) in backends.into_iter().zip(disks) {
        assert_eq!(report.value(&format!("{} packed", disk.name)), if disk.packed == "on" { "1" } else { "0" });
        let steps = report.value(&format!("{} steps", disk.name)).parse::<u64>().unwrap();
        assert!(steps > u64::from(seconds), "{}: {steps} steps", disk.name);
        let status = backend.terminate(BACKEND_LIMIT);
        assert!(status.success(), "{status}: {}", backend.output());
        run(Command::new(&check).arg("-fn").arg(&disk.image));
        let copy = disk.folder.path().join("copy");
        let dump = format!("dump /{BLOCKS_FILE} {}", copy.display());
        run(Command::new(&debug).arg("-R").arg(dump).arg(&disk.image));
        let sum = run(Command::new("sha256sum").arg(&copy));
        assert_eq!(sum.split_whitespace().next(), Some(report.value(&format!("{} sum", disk.name))), "{}", disk.name);
    }
}

/// Sums and steps are those of a fresh mount, and of what the guest's program wrote down.
const SCRIPT: &str = r#"
for disk in vda vdb; do
    echo "$disk packed $(cut -c 35 /sys/block/$disk/device/features)"
    mkfs.ext4 -q /dev/$disk
    mkdir /$disk
    mount -t ext4 /dev/$disk /$disk
done
echo ready
VHOST_GUEST_CRASH_LOAD=SECONDS PROGRAM --ignored --exact inside::load
echo written
cat /steps
for disk in vda vdb; do
    umount /$disk
    mount -t ext4 /dev/$disk /$disk
    echo "$disk sum $(sha256sum </$disk/blocks | cut -d ' ' -f 1)"
    umount /$disk
done
"#;

/// An image on the host, the socket of whoever serves it, and how its rings are.
struct Disk {
    name: &'static str,
    packed: &'static str,
    tool: PathBuf,
    folder: TempDir,
    image: PathBuf,
    socket: PathBuf,
}

impl Disk {
    fn new(name: &'static str, packed: &'static str, tool: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [image, socket] = ["image", "socket"].map(|file| folder.path().join(file));
        File::create(&image).unwrap().set_len(64 << 20).unwrap();
        Self { name, packed, tool: tool.to_owned(), folder, image, socket }
    }

    fn arguments(&self) -> [String; 4] {
        let (name, socket) = (self.name, self.socket.display());
        let device = format!("vhost-user-blk-pci,chardev={name},num-queues=2,packed={}", self.packed);
        let channel = format!("socket,id={name},path={socket},reconnect-ms={RECONNECT}");
        ["-chardev".to_owned(), channel, "-device".to_owned(), device]
    }

    fn serve(&self) -> Running {
        let mut command = Command::new(&self.tool);
        command.arg("blk").arg(format!("--socket-path={}", self.socket.display()));
        command.arg(format!("--blk-file={}", self.image.display())).arg("--num-queues=2");
        let mut backend = Running::start(&mut command);
        backend.wait_for_socket(&self.socket, BACKEND_LIMIT);
        backend
    }
}

/// The file of the inflight record that a back-end has mapped, if QEMU has given it one already.
fn record_of(backend: &Running) -> Option<String> {
    let maps = fs::read_to_string(format!("/proc/{}/maps", backend.process_id())).unwrap();
    // Addresses, permissions, offset, device, inode, name.
    let record = maps.lines().find(|line| line.contains("memfd:inflight"))?;
    record.split_whitespace().nth(4).map(str::to_owned)
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}
