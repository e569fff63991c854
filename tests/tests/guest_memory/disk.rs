//! Our disk for a guest, in a process of its own, and somebody who listens.

use core::time::Duration;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;
use vhost_tests::dialog::Relay;
use vhost_tests::program::{Running, built};

/// For a whole guest, under software emulation on a machine that is busy with other things too. Only a hang reaches it.
pub(crate) const GUEST_LIMIT: Duration = Duration::from_secs(240);
/// For a program to begin and to end.
const LIMIT: Duration = Duration::from_secs(20);

/// A disk that is served.
pub(crate) struct Disk {
    pub(crate) relay: Relay,
    backend: Running,
    folder: TempDir,
}

impl Disk {
    /// Serves an empty disk of so many MiB, with so many queues.
    pub(crate) fn serve(mebibytes: u64, queues: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [image, backend, relay] = ["image", "backend", "relay"].map(|file| folder.path().join(file));
        File::create(&image).unwrap().set_len(mebibytes << 20).unwrap();
        let mut command = Command::new(built("vhost-std", "vhost-user"));
        command.arg("blk").arg(format!("--socket-path={}", backend.display()));
        command.arg(format!("--blk-file={}", image.display())).arg(format!("--num-queues={queues}"));
        let mut running = Running::start(&mut command);
        running.wait_for_socket(&backend, LIMIT);
        Self { relay: Relay::listen(&relay, &backend), backend: running, folder }
    }

    /// Where a front-end reaches the disk, through the listener.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("relay")
    }

    /// Bytes of each mapping of shared guest memory that the back-end has touched, the oldest memory first.
    pub(crate) fn touched(&self) -> Vec<u64> {
        let maps = fs::read_to_string(format!("/proc/{}/smaps", self.backend.process_id().as_raw_pid())).unwrap();
        let mut touched = Vec::<(u64, u64)>::new();
        let mut inode = None;
        for line in maps.lines() {
            let words = Vec::from_iter(line.split_whitespace());
            match words[..] {
                [_, _, _, _, number, "/memfd:memory-backend-memfd", ..] => inode = Some(number.parse().unwrap()),
                ["Rss:", kibibytes, _] => {
                    let Some(inode) = inode.take() else { continue };
                    let bytes = kibibytes.parse::<u64>().unwrap() << 10;
                    match touched.iter_mut().find(|(known, _)| *known == inode) {
                        Some((_, sum)) => *sum += bytes,
                        None => touched.push((inode, bytes)),
                    }
                }
                [_, _, _, _, _, ..] => inode = None,
                _ => {}
            }
        }
        touched.sort_unstable();
        touched.into_iter().map(|(_, bytes)| bytes).collect()
    }

    /// Ends the back-end the way a service is ended; it must have nothing to complain of.
    pub(crate) fn end(mut self) {
        let status = self.backend.terminate(LIMIT);
        assert!(status.success(), "{status}");
        assert_eq!(self.backend.output(), "", "it complained");
    }
}
