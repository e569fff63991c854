//! DPDK's testpmd, which forwards packets by polling, told what to do line by line.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use vhost_tests::program::Running;

use crate::machine::PATIENCE;

/// It polls, so that two of them take each other's time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A running testpmd with one port. It swaps the addresses of each frame that comes, and sends it back.
pub(crate) struct Testpmd {
    running: Running,
    commands: File,
    ordered: usize,
    _turn: MutexGuard<'static, ()>,
}

impl Testpmd {
    /// Starts it with the port `device`. `folder` is a place for its commands.
    pub(crate) fn start(program: &Path, folder: &Path, device: &str) -> Self {
        // A test that failed has ended its own.
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let pipe = folder.join("commands");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        // Both ends, so that opening it never waits for the other side.
        let commands = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "input=$1; shift; exec \"$@\" <\"$input\"", "sh"]).arg(pipe).arg(program);
        // Without huge pages all memory is one file, which can be shared.
        command.args(["--no-huge", "-m", "128", "--no-pci", "--no-shconf", "--no-telemetry"]);
        // Two threads, of which only one polls, on whichever processor is free.
        command.args([
            "--lcores",
            &format!("(0-1)@({})", processors()),
            "--log-level=pmd.net.virtio.init:debug",
            "--vdev",
            device,
            "--",
            "-i",
        ]);
        command.args(["--disable-link-check", "--no-flush-rx", "--total-num-mbufs=4096", "--forward-mode=macswap"]);
        command.arg("--auto-start");
        Self { running: Running::start(&mut command), commands, ordered: 0, _turn: turn }
    }

    pub(crate) fn running(&mut self) -> &mut Running {
        &mut self.running
    }

    /// Gives it a command, and waits until it has carried it out.
    pub(crate) fn order(&mut self, command: &str) {
        /// It is printed at once, unlike everything else, and before each command is read.
        const PROMPT: &str = "testpmd> ";
        writeln!(self.commands, "{command}").unwrap();
        self.ordered += 1;
        let ordered = self.ordered;
        let is_done = |output: &str| output.matches(PROMPT).count() > ordered;
        self.running.wait_for_output(&format!("did {command:?}"), PATIENCE, is_done);
    }

    /// Ends it; all that it printed.
    pub(crate) fn end(mut self) -> String {
        writeln!(self.commands, "stop\nquit").unwrap();
        assert!(self.running.wait(PATIENCE).success());
        self.running.output()
    }
}

/// The processors that this process may run on, such as `0-3,8`.
fn processors() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    list.trim().to_owned()
}

/// The first number behind `name` in what testpmd printed.
pub(crate) fn value(output: &str, name: &str) -> u64 {
    let Some((_, rest)) = output.split_once(name) else { panic!("no {name} in {output}") };
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// The features that its driver has accepted in the end.
pub(crate) fn features(output: &str) -> u64 {
    let Some((_, rest)) = output.rsplit_once("features after negotiate = ") else { panic!("{output}") };
    let digits: String = rest.chars().take_while(char::is_ascii_hexdigit).collect();
    u64::from_str_radix(&digits, 16).unwrap()
}

/// A frame with two addresses, a type that nobody handles, and a number.
pub(crate) fn frame(number: u32, length: usize) -> Vec<u8> {
    let head = [&[0x52, 0x54, 0, 0, 0, 1][..], &[0x52, 0x54, 0, 0, 0, 2], &[0x88, 0xb5], &number.to_be_bytes()];
    let mut frame = head.concat();
    let start = frame.len();
    frame.extend((start..length).map(|at| (at as u8).wrapping_mul(7).wrapping_add(number as u8)));
    frame
}

/// A frame with its addresses swapped.
pub(crate) fn swapped(frame: &[u8]) -> Vec<u8> {
    [&frame[6..12], &frame[..6], &frame[12..]].concat()
}

/// A place for a socket.
pub(crate) fn socket(folder: &Path) -> PathBuf {
    folder.join("socket")
}
