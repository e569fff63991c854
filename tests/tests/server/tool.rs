//! The built tool `vhost-user blk` as its users start it, with front-ends made by hand.

use core::time::Duration;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command as Process, Output};
use std::sync::{Arc, LazyLock};

use rustix::io::FdFlags;
use rustix::process::{Pid, Signal, kill_process};
use vhost_std::deadline::Deadline;
use vhost_std::socket::Socket;
use vhost_tests::descriptors::in_own_process;
use vhost_tests::dialog::{FakeFrontend, event};
use vhost_tests::driver::{BLOCK, Command, GuestMemory, Ring, SECTOR};
use vhost_tests::program::{Running, built};
use vhost_tests::wire::{REQUEST, feature};

use crate::support::{Dialog, EVERYTHING, OFFER, message, number, state};

/// Never reached where things work.
const LIMIT: Duration = Duration::from_secs(20);

static TOOL: LazyLock<PathBuf> = LazyLock::new(|| built("vhost-std", "vhost-user"));

/// A folder with a disk of 64 sectors, each filled with its number.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let contents = Vec::from_iter((0..64 * SECTOR).map(|at| u8::try_from(at / SECTOR).unwrap()));
        fs::write(folder.disk(), contents).unwrap();
        folder
    }

    fn disk(&self) -> PathBuf {
        self.0.path().join("disk")
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("socket")
    }

    /// `vhost-user blk` with this disk and these arguments.
    fn tool(&self, arguments: &[&str]) -> Process {
        let mut tool = Process::new(&*TOOL);
        tool.arg("blk").arg(format!("--blk-file={}", self.disk().display())).args(arguments);
        tool
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let path = format!("--socket-path={}", self.socket().display());
        let mut running = Running::start(self.tool(arguments).arg(path));
        running.wait_for_socket(&self.socket(), LIMIT);
        running
    }
}

/// A front-end that has set a ring up.
fn front_end(path: &Path) -> (FakeFrontend, Ring) {
    set_up(FakeFrontend::connect(path))
}

fn set_up(mut frontend: FakeFrontend) -> (FakeFrontend, Ring) {
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let ring = Ring::new(&memory, 0, 16);
    Dialog::negotiate(&mut frontend, OFFER, EVERYTHING);
    frontend.share(&[&memory]);
    Dialog::start(&mut frontend, &ring);
    frontend.enable(&ring, 1);
    (frontend, ring)
}

#[track_caller]
fn assert_reads(ring: &mut Ring, sector: u8) {
    ring.request(0, Command::Read(SECTOR as u32), sector.into());
    ring.kick();
    assert_eq!(ring.wait_used(), (0, SECTOR as u32 + 1));
    assert_eq!((ring.status(0), ring.data(0, SECTOR)), (0, vec![sector; SECTOR]));
}

/// Ends the tool, which must end well and take its socket with it.
#[track_caller]
fn end(mut running: Running, folder: &Folder) {
    let status = running.terminate(LIMIT);
    assert_eq!(status.code(), Some(0), "{status:?}");
    assert!(!folder.socket().exists(), "the socket goes with the tool");
}

#[test]
fn data_arrives_in_the_file_through_any_number_of_queues_and_threads() {
    for arguments in [vec![], vec!["--num-queues=4"], vec!["--num-queues=4", "--threads=1"], vec!["--num-queues=256"]] {
        let folder = Folder::new();
        let running = folder.start(&arguments);
        let (mut frontend, mut ring) = front_end(&folder.socket());
        let queues = arguments.first().map_or(1, |queues| queues.trim_start_matches("--num-queues=").parse().unwrap());
        assert_eq!(Dialog::ask_number(&mut frontend, "GET_QUEUE_NUM"), queues);
        let mut last = Ring::new(&ring.memory.clone(), 0, 16);
        if queues > 1 {
            // The last queue, in the other half of the first one's memory.
            last.index = u32::try_from(queues).unwrap() - 1;
            (last.descriptors, last.available, last.used) =
                (ring.descriptors + 0x4000, ring.available + 0x4000, ring.used + 0x4000);
            last.restart_at(0);
            Dialog::start(&mut frontend, &last);
            frontend.enable(&last, 1);
            last.request(1, Command::Flush, 0);
            last.kick();
            assert_eq!(last.wait_used(), (3, 1));
        }
        assert_reads(&mut ring, 9);
        ring.request(0, Command::Write(&[0xaa; 2 * SECTOR]), 10);
        ring.request(1, Command::Flush, 0);
        ring.kick();
        assert_eq!([ring.wait_used(), ring.wait_used()], [(0, 1), (3, 1)]);
        let file = fs::read(folder.disk()).unwrap();
        assert_eq!(file[10 * SECTOR..12 * SECTOR], [0xaa; 2 * SECTOR]);
        assert_eq!((file[10 * SECTOR - 1], file[12 * SECTOR]), (9, 12));
        end(running, &folder);
    }
}

#[test]
fn a_read_only_disk_says_so_and_refuses_writes() {
    let folder = Folder::new();
    let running = folder.start(&["--read-only"]);
    let (mut frontend, mut ring) = front_end(&folder.socket());
    assert_eq!(Dialog::barrier(&mut frontend) >> 5 & 1, 1, "VIRTIO_BLK_F_RO");
    assert_reads(&mut ring, 3);
    ring.request(1, Command::Write(&[0xaa; SECTOR]), 3);
    ring.kick();
    assert_eq!((ring.wait_used(), ring.status(1)), ((3, 1), 1));
    assert_reads(&mut ring, 3);
    assert_eq!(fs::read(folder.disk()).unwrap()[3 * SECTOR..4 * SECTOR], [3; SECTOR]);
    end(running, &folder);
}

#[test]
fn s51_the_tool_takes_the_next_front_end_whatever_the_last_one_did() {
    let folder = Folder::new();
    let running = folder.start(&[]);
    for round in 0..12 {
        let (mut frontend, mut ring) = front_end(&folder.socket());
        assert_reads(&mut ring, round);
        match round % 4 {
            0 => {}
            1 => frontend.say(&message("SET_VRING_CALL", REQUEST, &number(0))[..15], &[event().as_fd()]),
            2 => frontend.say(&message("SET_VRING_CALL", 2, &number(0)), &[event().as_fd()]),
            _ => Dialog::request(&mut frontend, "SET_MEM_TABLE", &number(7), &[]),
        }
    }
    let (_frontend, mut ring) = front_end(&folder.socket());
    assert_reads(&mut ring, 63);
    end(running, &folder);
}

#[test]
fn sigterm_ends_the_tool_well_whatever_its_front_end_does() {
    // Nobody; somebody with a running ring; somebody in the middle of a message; somebody who talks all the time.
    for case in 0..4 {
        let folder = Folder::new();
        let running = folder.start(&[]);
        let mut frontend = (case > 0).then(|| front_end(&folder.socket()).0);
        if let Some(frontend) = frontend.as_mut().filter(|_| case == 2) {
            frontend.say(&message("GET_CONFIG", REQUEST, &[0; 40])[..20], &[]);
        }
        std::thread::scope(|scope| {
            if let Some(frontend) = frontend.as_ref().filter(|_| case == 3) {
                let many = message("SET_OWNER", REQUEST, &[]).repeat(1000);
                scope.spawn(move || while frontend.try_send(&many, &[]).is_ok() {});
            }
            end(running, &folder);
        });
    }
}

#[test]
fn sigint_ends_the_tool_well() {
    let folder = Folder::new();
    let mut child = folder.tool(&[&format!("--socket-path={}", folder.socket().display())]).spawn().unwrap();
    let socket = Socket::connect_when_ready(folder.socket(), Deadline::after(LIMIT)).unwrap();
    let frontend = FakeFrontend::new(UnixStream::from(OwnedFd::from(socket)));
    frontend.barrier();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    frontend.assert_closed();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!folder.socket().exists());
}

fn output(tool: &mut Process) -> Output {
    tool.output().unwrap()
}

#[test]
fn capabilities_are_json() {
    let folder = Folder::new();
    let json = |arguments: &[&str]| -> serde_json::Value {
        let output = output(Process::new(&*TOOL).args(arguments));
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let disk = serde_json::json!({ "type": "block", "features": ["read-only", "blk-file"] });
    assert_eq!(json(&["blk", "--print-capabilities"]), disk);
    assert_eq!(json(&["rng", "--print-capabilities"]), serde_json::json!({ "type": "rng" }));
    let all = serde_json::json!([disk, { "type": "console" }, { "type": "net" }, { "type": "rng" }]);
    assert_eq!(json(&["--print-capabilities"]), all);
    // Whatever else is said.
    let path = format!("--socket-path={}", folder.socket().display());
    assert_eq!(json(&["blk", &path, "--print-capabilities"]), disk);
    assert!(!folder.socket().exists());
}

#[test]
fn wrong_arguments_are_named_and_leave_no_socket() {
    let folder = Folder::new();
    let path = format!("--socket-path={}", folder.socket().display());
    let missing = folder.0.path().join("missing");
    for (arguments, named) in [
        (vec!["blk".to_owned(), path.clone()], "--blk-file"),
        (vec!["blk".to_owned(), path.clone(), format!("--blk-file={}", missing.display())], "No such file"),
        (vec!["blk".to_owned(), path.clone(), "--blk-file=/".to_owned()], "director"),
        (vec!["blk".to_owned(), format!("--blk-file={}", folder.disk().display())], "--socket-path"),
        (vec!["blk".to_owned(), path.clone(), "--num-queues=0".to_owned()], "--num-queues"),
        (vec!["blk".to_owned(), path.clone(), "--num-queues=257".to_owned()], "--num-queues"),
        (vec!["blk".to_owned(), "--fd=999".to_owned(), format!("--blk-file={}", folder.disk().display())], "--fd=999"),
        (vec!["blk".to_owned(), "--fd=2".to_owned(), format!("--blk-file={}", folder.disk().display())], "--fd"),
    ] {
        let output = output(Process::new(&*TOOL).args(&arguments));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.status.signal().is_none(), "{arguments:?}");
        assert!(said.contains(named), "{arguments:?}: {said}");
        assert!(!folder.socket().exists(), "{arguments:?}");
    }
}

#[test]
fn a_dead_socket_is_replaced_and_a_living_one_is_left_alone() {
    let folder = Folder::new();
    drop(UnixListener::bind(folder.socket()).unwrap());
    assert!(fs::metadata(folder.socket()).unwrap().file_type().is_socket());
    let running = folder.start(&[]);
    let second = output(folder.tool(&[]).arg(format!("--socket-path={}", folder.socket().display())));
    assert!(!second.status.success());
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("is the socket of a living process"), "{said}");
    assert_reads(&mut front_end(&folder.socket()).1, 5);
    end(running, &folder);
}

/// Starts the tool with a descriptor that it inherits under the number that it has here. No other test may start a program
/// meanwhile, which would inherit it too.
fn inheriting(folder: &Folder, descriptor: OwnedFd) -> Running {
    rustix::io::fcntl_setfd(&descriptor, FdFlags::empty()).unwrap();
    Running::start(&mut folder.tool(&[&format!("--fd={}", descriptor.as_raw_fd())]))
}

#[test]
fn a_connected_socket_is_inherited_and_its_end_is_the_end() {
    in_own_process("tool::a_connected_socket_is_inherited_and_its_end_is_the_end", || {
        let folder = Folder::new();
        let _ = &*TOOL;
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut running = inheriting(&folder, theirs.into());
        let (frontend, mut ring) = set_up(FakeFrontend::new(ours));
        assert_reads(&mut ring, 40);
        drop(frontend);
        assert_eq!(running.wait(LIMIT).code(), Some(0));

        // A front-end that breaks the protocol is told apart from one that has gone.
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut running = inheriting(&folder, theirs.into());
        let frontend = FakeFrontend::new(ours);
        frontend.send(&message("GET_FEATURES", 3, &[]), &[]);
        frontend.assert_closed();
        assert_eq!(running.wait(LIMIT).code(), Some(1));
        assert!(running.output().contains("expected protocol version 1, found 3"), "{}", running.output());
    });
}

#[test]
fn a_listening_socket_is_inherited_and_stays_where_it_is() {
    in_own_process("tool::a_listening_socket_is_inherited_and_stays_where_it_is", || {
        let folder = Folder::new();
        let _ = &*TOOL;
        let listener = UnixListener::bind(folder.socket()).unwrap();
        let mut running = inheriting(&folder, listener.into());
        for sector in 0..3 {
            assert_reads(&mut front_end(&folder.socket()).1, sector);
        }
        assert_eq!(running.terminate(LIMIT).code(), Some(0));
        assert!(folder.socket().exists(), "it belongs to whoever made it");
    });
}

#[test]
fn an_inherited_descriptor_that_is_no_socket_is_refused_by_name() {
    in_own_process("tool::an_inherited_descriptor_that_is_no_socket_is_refused_by_name", || {
        let folder = Folder::new();
        let _ = &*TOOL;
        let mut running = inheriting(&folder, vhost_tests::dialog::memory(4096));
        assert_eq!(running.wait(LIMIT).code(), Some(1));
        assert!(running.output().contains("a socket was expected, /memfd:"), "{}", running.output());
    });
}

#[test]
fn a_broken_ring_of_one_queue_leaves_the_tool_and_the_other_queues_alone() {
    let folder = Folder::new();
    let running = folder.start(&["--num-queues=2", "--threads=1"]);
    let (mut frontend, mut ring) = front_end(&folder.socket());
    ring.set_available_index(1000);
    ring.kick();
    vhost_tests::driver::wait_readable(&ring.error);
    assert_eq!(Dialog::barrier(&mut frontend) & feature::VERSION_1, feature::VERSION_1);
    assert_eq!(Dialog::stop(&mut frontend, &ring), 0);
    ring.restart_at(0);
    Dialog::start(&mut frontend, &ring);
    assert_reads(&mut ring, 8);
    assert_eq!(frontend.acknowledged("SET_VRING_ENABLE", &state(2, 1), &[]), 1);
    end(running, &folder);
}
