//! A guest reads and writes its disk while it moves: what the device wrote into its memory has to move along.

use core::time::Duration;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use tempfile::TempDir;
use vhost_tests::guest::{Booted, Guest, Report};
use vhost_tests::program::{Running, built};

/// For a whole guest, under software emulation on a machine that is busy with other things too. Only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(240);

/// What the guest reads into its memory and writes to the disk in one round.
const CHUNK: usize = 256 << 10;
/// Chunks of the disk that are read, and behind them as many that are written.
const CHUNKS: usize = 256;
/// Rounds after all memory was sent once. What they read is sent again only if it was logged.
const LOGGED_ROUNDS: usize = 12;

/// Each round reads a chunk of the disk through the page cache, which only the device writes to: QEMU itself does not see
/// these pages change. It writes a chunk too, past the cache, and compares what is on the disk. In the end all that was read
/// is summed up in memory, where it has been since, on whichever side.
const READ_AND_WRITE: &str = r#"
stty -F /dev/ttyS2 raw -echo
(read line </dev/ttyS2; touch /stop) &
dd if=/dev/urandom of=/data bs=256k count=1
echo "data $(sha256sum </data | cut -d ' ' -f 1)"
round=0
while [ ! -e /stop ] && [ $round -lt 256 ]; do
    dd if=/dev/vda of=/dev/null bs=256k skip=$round count=1
    dd if=/data of=/dev/vda bs=256k seek=$((256 + round)) count=1 oflag=direct conv=notrunc
    dd if=/dev/vda of=/read bs=256k skip=$((256 + round)) count=1 iflag=direct
    cmp /data /read
    round=$((round + 1))
    echo "round $round"
done
echo "rounds $round"
echo "cached $(awk '/^Cached:|^Buffers:/ { sum += $2 } END { print sum }' /proc/meminfo)"
echo "memory $(dd if=/dev/vda bs=256k count=$round | sha256sum | cut -d ' ' -f 1)"
echo 1 >/proc/sys/vm/drop_caches
echo "disk $(dd if=/dev/vda bs=256k count=$round | sha256sum | cut -d ' ' -f 1)"
"#;

#[test]
fn a_guest_that_reads_and_writes_moves_with_all_that_the_device_wrote_into_its_memory() {
    let Some(guest) = Guest::find() else { return };
    let guest = guest.module("virtio_blk");
    let pair = Pair::new();
    let [mut source_backend, mut destination_backend] = [&pair.source, &pair.destination].map(|side| pair.serve(side));
    let mut source = pair.with_disk(&guest, &pair.source).boot(READ_AND_WRITE);
    let mut destination = pair.with_disk(&guest, &pair.destination).take_over(READ_AND_WRITE, &pair.channel());
    source.wait_for_line("round 2", LIMIT);
    let mut monitor = source.monitor(LIMIT);
    let mut arrival = destination.monitor(LIMIT);
    for side in [&mut monitor, &mut arrival] {
        let events = json!([{ "capability": "events", "state": true }]);
        side.execute("migrate-set-capabilities", json!({ "capabilities": events }));
    }
    // With no time for the rest to be sent in, the migration does not end as long as the guest changes anything.
    monitor.execute("migrate-set-parameters", json!({ "downtime-limit": 0, "max-bandwidth": 64 << 20 }));
    monitor.execute("migrate", json!({ "uri": format!("unix:{}", pair.channel().display()) }));
    monitor.wait_for_event("MIGRATION_PASS", |data| (data["pass"].as_u64() >= Some(2)).then_some(()));
    let sent_once = rounds(&mut source, 0);
    rounds(&mut source, sent_once + LOGGED_ROUNDS);
    monitor.execute("migrate-set-parameters", json!({ "downtime-limit": 1000 }));
    monitor.wait_for_migration("completed");
    arrival.wait_for_migration("completed");
    let moved_after = rounds(&mut source, 0);
    // It goes on where it was, and is told to end.
    rounds(&mut destination, moved_after + 3);
    writeln!(UnixStream::connect(&pair.destination.control).unwrap(), "stop").unwrap();
    let beginning = source.hand_over(LIMIT);
    let report = destination.finish_after(&beginning, LIMIT);

    pair.check(&report);
    for backend in [&mut source_backend, &mut destination_backend] {
        let status = backend.terminate(LIMIT);
        assert!(status.success(), "{status}: {}", backend.output());
    }
}

/// Waits until the guest has run so many rounds, here; how many it has run then.
fn rounds(guest: &mut Booted, least: usize) -> usize {
    guest.wait_for(&format!("ran {least} rounds"), LIMIT, |lines| {
        let last = lines.iter().rev().find_map(|line| line.strip_prefix("round ")?.parse::<usize>().ok());
        last.filter(|last| *last >= least).or((least == 0).then_some(0))
    })
}

/// Two sides of a migration and the image that both serve.
struct Pair {
    folder: TempDir,
    image: PathBuf,
    program: PathBuf,
    source: Side,
    destination: Side,
}

/// Where one side's back-end listens, and where its guest is talked to.
struct Side {
    socket: PathBuf,
    control: PathBuf,
}

impl Pair {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        let pattern = Vec::from_iter((0..CHUNK * CHUNKS).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 16) as u8));
        fs::write(&image, pattern).unwrap();
        File::options().write(true).open(&image).unwrap().set_len(2 * (CHUNK * CHUNKS) as u64).unwrap();
        let side = |name: &str| {
            let [socket, control] = ["socket", "control"].map(|kind| folder.path().join(format!("{name}-{kind}")));
            Side { socket, control }
        };
        let (source, destination) = (side("source"), side("destination"));
        Self { image, program: built("vhost-std", "vhost-user"), source, destination, folder }
    }

    fn serve(&self, side: &Side) -> Running {
        let mut command = Command::new(&self.program);
        command.arg("blk").arg(format!("--socket-path={}", side.socket.display()));
        command.arg(format!("--blk-file={}", self.image.display()));
        let mut backend = Running::start(&mut command);
        backend.wait_for_socket(&side.socket, LIMIT);
        backend
    }

    fn with_disk(&self, guest: &Guest, side: &Side) -> Guest {
        let control = format!("unix:{},server=on,wait=off", side.control.display());
        guest.clone().arguments(["-serial", &control]).vhost_user("vhost-user-blk-pci,num-queues=1", &side.socket)
    }

    /// Where one QEMU hands the guest to the other.
    fn channel(&self) -> PathBuf {
        self.folder.path().join("channel")
    }

    fn check(&self, report: &Report) {
        assert_eq!(report.status, 0, "the script's status");
        assert!(!report.console.contains("I/O error"), "the guest complains of its disk:\n{}", report.console);
        let rounds: usize = report.value("rounds").parse().unwrap();
        assert_eq!(report.value("disk"), sum(&self.image, 0, rounds), "the image as the guest reads it");
        assert_eq!(report.value("memory"), report.value("disk"), "what the device wrote into the guest's memory");
        for round in 0..rounds {
            assert_eq!(sum(&self.image, CHUNKS + round, 1), report.value("data"), "written in round {round}");
        }
    }
}

/// The sum of some chunks of the image.
fn sum(image: &Path, first: usize, count: usize) -> String {
    let mut bytes = vec![0; count * CHUNK];
    File::open(image).unwrap().read_exact_at(&mut bytes, (first * CHUNK) as u64).unwrap();
    let part = tempfile::NamedTempFile::new().unwrap();
    fs::write(&part, bytes).unwrap();
    let output = Command::new("sha256sum").arg(part.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}
