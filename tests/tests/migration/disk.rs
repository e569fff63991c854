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
use vhost_tests::guest::{Guest, Report};
use vhost_tests::program::{Running, built};

/// For a whole guest, under software emulation on a machine that is busy with other things too. Only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(240);

/// What the guest reads in one of the first rounds. It is more than its own processes take and free, so that most of it goes
/// into memory that nobody but the device has written to for long; so that it stays more, it is read with a small buffer.
const READ: usize = 2 << 20;
/// How many of these there are, at the start of the disk.
const READS: usize = 32;
/// What the guest writes in one round, behind them.
const WRITE: usize = 64 << 10;
/// Rounds at most.
const ROUNDS: usize = 1024;
/// Rounds after all memory was sent once. What they read is sent again only if it was logged.
const LOGGED_ROUNDS: usize = 8;

/// A round reads a part of the disk through the page cache, which only the device writes to: QEMU itself does not see these
/// pages change. It also writes past the cache, and compares what is on the disk. In the end all that was read is summed up
/// in memory, where it has been since, on whichever side.
const READ_AND_WRITE: &str = r#"
stty -F /dev/ttyS2 raw -echo
(read line </dev/ttyS2; touch /stop) &
# As long as it is open, what was read of it stays in memory.
exec 3</dev/vda
dd if=/dev/urandom of=/data bs=64k count=1
echo "data $(sha256sum </data | cut -d ' ' -f 1)"
round=0
reads=0
while [ ! -e /stop ] && [ $round -lt 1024 ]; do
    if [ $reads -lt 32 ]; then
        dd if=/dev/vda of=/dev/null bs=16k skip=$((reads * 128)) count=128
        reads=$((reads + 1))
    fi
    dd if=/data of=/dev/vda bs=64k seek=$((1024 + round)) count=1 oflag=direct conv=notrunc
    dd if=/dev/vda of=/read bs=64k skip=$((1024 + round)) count=1 iflag=direct
    cmp /data /read
    round=$((round + 1))
    echo "round $round"
done
echo "rounds $round"
echo "reads $reads"
echo "cached $(awk '/^Buffers:/ { print $2 }' /proc/meminfo)"
echo "memory $(dd if=/dev/vda bs=64k count=$((reads * 32)) | sha256sum | cut -d ' ' -f 1)"
"#;

#[test]
fn a_guest_that_reads_and_writes_moves_with_all_that_the_device_wrote_into_its_memory() {
    let Some(guest) = Guest::find() else { return };
    // A kernel that clears pages before it uses them would have QEMU see that they change.
    let guest = guest.memory(320).kernel_arguments("init_on_alloc=0").module("virtio_blk");
    let pair = Pair::new();
    let [mut source_backend, mut destination_backend] = [&pair.source, &pair.destination].map(|side| pair.serve(side));
    let mut source = pair.with_disk(&guest, &pair.source).boot(READ_AND_WRITE);
    let mut destination = pair.with_disk(&guest, &pair.destination).take_over(READ_AND_WRITE, &pair.channel());
    source.wait_for_line("round 2", LIMIT);
    let mut monitor = source.monitor();
    let mut arrival = destination.monitor();
    for side in [&mut monitor, &mut arrival] {
        let events = json!([{ "capability": "events", "state": true }]);
        side.execute("migrate-set-capabilities", json!({ "capabilities": events }));
    }
    monitor.execute("migrate-set-parameters", json!({ "downtime-limit": 1, "max-bandwidth": 64 << 20 }));
    monitor.execute("migrate", json!({ "uri": format!("unix:{}", pair.channel().display()) }));
    monitor.wait_for_pass(2);
    // All memory was sent once. The rest waits while the guest goes on, unless it went out just now.
    monitor.execute("migrate-set-parameters", json!({ "max-bandwidth": 4096 }));
    let sent_once = last_round(&source.lines());
    source.wait_for("ran more rounds", LIMIT, |lines| {
        let is_over = monitor.execute("query-migrate", json!({}))["status"] != "active";
        (is_over || last_round(lines) >= sent_once + LOGGED_ROUNDS).then_some(())
    });
    monitor.execute("migrate-set-parameters", json!({ "downtime-limit": 1000, "max-bandwidth": 0 }));
    monitor.wait_for_migration("completed");
    arrival.wait_for_migration("completed");
    let moved_after = last_round(&source.lines());
    // It goes on where it was, and is told to end.
    destination.wait_for("went on", LIMIT, |lines| (last_round(lines) >= moved_after + 3).then_some(()));
    writeln!(UnixStream::connect(&pair.destination.control).unwrap(), "stop").unwrap();
    let beginning = source.hand_over(LIMIT);
    let report = destination.finish_after(&beginning, LIMIT);

    pair.check(&report);
    for backend in [&mut source_backend, &mut destination_backend] {
        let status = backend.terminate(LIMIT);
        assert!(status.success(), "{status}: {}", backend.output());
    }
}

/// How many rounds the guest has run.
fn last_round(lines: &[String]) -> usize {
    lines.iter().rev().find_map(|line| line.strip_prefix("round ")?.parse().ok()).unwrap_or(0)
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
        let pattern = Vec::from_iter((0..READ * READS).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 16) as u8));
        fs::write(&image, pattern).unwrap();
        let file = File::options().write(true).open(&image).unwrap();
        file.set_len((READ * READS + WRITE * ROUNDS) as u64).unwrap();
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
        let number = |name| report.value(name).parse::<usize>().unwrap();
        let (rounds, read, cached) = (number("rounds"), number("reads") * READ, number("cached") << 10);
        assert!(cached >= read, "{cached} of {read} bytes are still in memory");
        let memory = report.value("memory");
        assert_eq!(memory, sum(&self.image, 0, read), "what the device wrote into the guest's memory");
        for round in 0..rounds {
            let written = sum(&self.image, READ * READS + WRITE * round, WRITE);
            assert_eq!(written, report.value("data"), "written in round {round}");
        }
    }
}

/// The sum of some bytes of the image.
fn sum(image: &Path, first: usize, count: usize) -> String {
    let mut bytes = vec![0; count];
    File::open(image).unwrap().read_exact_at(&mut bytes, first as u64).unwrap();
    let part = tempfile::NamedTempFile::new().unwrap();
    fs::write(&part, bytes).unwrap();
    let output = Command::new("sha256sum").arg(part.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}
