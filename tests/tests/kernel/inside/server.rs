//! A process of ours that serves a disk on the vdpa bus.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Sectors of a disk.
pub(crate) const SECTORS: u64 = 65536;

/// An empty file for a disk.
pub(crate) fn image(name: &str) -> PathBuf {
    let path = Path::new("/tmp").join(name);
    File::create(&path).unwrap().set_len(SECTORS * 512).unwrap();
    path
}

/// A process that serves a disk of ours.
pub(crate) struct Server {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Server {
    /// Starts it, and waits until it says so.
    pub(crate) fn start(name: &str, image: &Path, arguments: &[&str], says: &str) -> Self {
        let mut process = Command::new("vhost-vduse")
            .args(["blk", "--name", name, "--blk-file"])
            .arg(image)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), format!("{name} {says}"));
        Self { process, output }
    }

    /// Ends it, which must go well.
    pub(crate) fn end(mut self) {
        kill_process(Pid::from_child(&self.process), Signal::TERM).unwrap();
        assert!(self.process.wait().unwrap().success());
        let mut rest = String::new();
        self.output.read_line(&mut rest).unwrap();
        assert_eq!(rest, "");
    }
}
