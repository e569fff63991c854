//! libblkio's vhost-user front-end, as QEMU's block layer uses it, with our disk.

use core::time::Duration;
use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;
use vhost_tests::program::{Daemon, Running, require};

/// Bytes of the disk.
const DISK: usize = 16 << 20;
/// Only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs commands of qemu-io on the disk behind `socket`; all must go well.
fn run(program: &Path, socket: &Path, commands: &[String]) {
    let image = format!("driver=virtio-blk-vhost-user,path={},cache.direct=on", socket.display());
    let mut command = Command::new(program);
    command.args(["--image-opts", &image]);
    for one in commands {
        command.args(["-c", one]);
    }
    let mut running = Running::start(&mut command);
    let status = running.wait(LIMIT);
    let output = running.output();
    assert!(status.success() && !output.contains("failed"), "{status}: {output}");
}

fn pattern(seed: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| ((at + seed).wrapping_mul(0x9e37_79b9) >> 13) as u8).collect()
}

#[test]
fn libblkio_writes_reads_back_flushes_and_discards_on_our_disk() {
    let Some(program) = require("qemu-io-blkio") else { return };
    let folder = TempDir::new().unwrap();
    let [disk, source] = ["disk", "source"].map(|name| folder.path().join(name));
    let mut expected = pattern(1, DISK);
    fs::write(&disk, &expected).unwrap();
    let written = pattern(2, 3 << 20);
    fs::write(&source, &written).unwrap();
    let daemon = Daemon::start("blk", [format!("--blk-file={}", disk.display()), "--num-queues=2".to_owned()]);

    // 128 requests are under way at a time, of 4 KiB each and all over the disk.
    let place = |number: usize| (number * 37 % 128) * 0x1_0000 + 0x3000;
    let filled = |number: usize| u8::try_from(number + 1).unwrap();
    let mut many =
        Vec::from_iter((0..128).map(|number| format!("aio_write -P {} {} 4k", filled(number), place(number))));
    many.push("aio_flush".to_owned());
    many.extend((0..128).map(|number| format!("aio_read -P {} {} 4k", filled(number), place(number))));
    many.extend(["aio_flush", "flush"].map(str::to_owned));
    run(&program, &daemon.socket(), &many);
    for number in 0..128 {
        expected[place(number)..][..0x1000].fill(filled(number));
    }
    assert!(fs::read(&disk).unwrap() == expected);

    // Another session, of large requests and those that are not reads or writes.
    let large = [
        format!("write -s {} 9M 3M", source.display()),
        "flush".to_owned(),
        "write -z 1M 512k".to_owned(),
        "read -P 0 1M 512k".to_owned(),
        "discard 2M 1M".to_owned(),
        "read -P 0 2M 1M".to_owned(),
        "read 0 16M".to_owned(),
    ];
    run(&program, &daemon.socket(), &large);
    expected[9 << 20..12 << 20].copy_from_slice(&written);
    expected[1 << 20..][..512 << 10].fill(0);
    expected[2 << 20..3 << 20].fill(0);
    assert!(fs::read(&disk).unwrap() == expected);
    daemon.end();
}
