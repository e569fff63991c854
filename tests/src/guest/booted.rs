//! A guest that runs, and what it leaves.
#![allow(clippy::panic, reason = "the tests' own support: a test fails by panicking")]

use core::time::Duration;
use std::fs;
use std::path::Path;
use std::time::Instant;

use tempfile::TempDir;

use super::Monitor;
use crate::program::Running;

/// For QEMU to listen for who wants to talk to it.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Comes before what the script prints.
const BEGIN: &str = "@@BEGIN";
/// Comes after it, with the script's status.
const END: &str = "@@END ";

/// A guest that runs; it is ended when this value goes.
#[derive(Debug)]
pub struct Booted {
    pub(super) emulator: Running,
    pub(super) folder: TempDir,
}

impl Booted {
    /// Waits until the script has printed `line`.
    ///
    /// # Panics
    /// If the guest ends first, or after `limit`.
    pub fn wait_for_line(&mut self, line: &str, limit: Duration) {
        let output = self.folder.path().join("output");
        let printed = || lines(&output).iter().any(|printed| printed == line).then_some(());
        self.emulator.wait_until(&format!("printed {line:?}"), limit, printed);
    }

    /// The lines that the script has printed so far.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        lines(&self.folder.path().join("output"))
    }

    /// Waits until `wanted` finds a value in the lines that the script has printed.
    ///
    /// # Panics
    /// If the guest ends first, or after `limit`; `what` says in the message what did not happen.
    pub fn wait_for<T>(&mut self, what: &str, limit: Duration, mut wanted: impl FnMut(&[String]) -> Option<T>) -> T {
        let output = self.folder.path().join("output");
        self.emulator.wait_until(what, limit, || wanted(&lines(&output)))
    }

    /// Ends a QEMU whose guest another one has taken over; what the script printed until then.
    ///
    /// # Panics
    /// If QEMU fails.
    #[must_use]
    pub fn hand_over(mut self, limit: Duration) -> String {
        let status = self.emulator.terminate(limit);
        assert!(status.success(), "QEMU: {status}");
        text(&self.folder.path().join("output"))
    }

    /// Waits until QEMU can be talked to.
    pub(super) fn wait_for_monitor(&mut self) {
        self.emulator.wait_for_socket(&self.folder.path().join("monitor"), START_LIMIT);
    }

    /// QEMU's monitor. It talks to one at a time.
    ///
    /// # Panics
    /// If QEMU has ended.
    #[must_use]
    pub fn monitor(&self) -> Monitor {
        Monitor::connect(&self.folder.path().join("monitor"))
    }

    /// Whether the script prints `line`, or has printed it already, before `limit` is over.
    ///
    /// # Panics
    /// If the guest ends first.
    pub fn prints_within(&mut self, line: &str, limit: Duration) -> bool {
        let output = self.folder.path().join("output");
        let start = Instant::now();
        let condition = || {
            let printed = lines(&output).iter().any(|printed| printed == line);
            (printed || start.elapsed() >= limit).then_some(printed)
        };
        self.emulator.wait_until(&format!("printed {line:?}"), Duration::MAX, condition)
    }

    /// Waits until the guest has powered off.
    ///
    /// # Panics
    /// If that takes longer than `limit`, if QEMU fails, or if the guest went down before the
    /// script had ended.
    #[must_use]
    pub fn finish(self, limit: Duration) -> Report {
        self.finish_after("", limit)
    }

    /// As [`finish`](Self::finish), for a guest that printed the beginning elsewhere.
    ///
    /// # Panics
    /// As [`finish`](Self::finish).
    #[must_use]
    pub fn finish_after(mut self, beginning: &str, limit: Duration) -> Report {
        let status = self.emulator.wait(limit);
        assert!(status.success(), "QEMU: {status}");
        let printed = lines_of(&[beginning, &text(&self.folder.path().join("output"))].concat());
        let begin = printed.iter().position(|line| line == BEGIN);
        let end = printed.iter().rposition(|line| line.starts_with(END));
        let (Some(begin), Some(end)) = (begin, end) else { panic!("the guest did not run its script to the end") };
        let Ok(status) = printed[end][END.len()..].parse() else { panic!("no status: {:?}", printed[end]) };
        Report { lines: printed[begin + 1..end].to_vec(), status, console: self.console() }
    }

    fn console(&self) -> String {
        lines(&self.folder.path().join("console")).join("\n")
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        show_failure(&self.console(), &lines(&self.folder.path().join("output")));
    }
}

#[allow(clippy::print_stderr, reason = "the test runner shows it with the test that failed")]
fn show_failure(console: &str, printed: &[String]) {
    if std::thread::panicking() {
        eprintln!("--- the guest's console:\n{console}");
        eprintln!("--- the guest's script printed:\n{}", printed.join("\n"));
    }
}

fn lines(port: &Path) -> Vec<String> {
    lines_of(&text(port))
}

fn lines_of(text: &str) -> Vec<String> {
    // A terminal ends its lines with two characters.
    text.lines().map(|line| line.trim_end_matches('\r').to_owned()).collect()
}

fn text(port: &Path) -> String {
    String::from_utf8_lossy(&fs::read(port).unwrap_or_default()).into_owned()
}

/// What a guest left.
#[derive(Debug)]
pub struct Report {
    /// What the script printed.
    pub lines: Vec<String>,
    /// The script's exit status.
    pub status: i32,
    /// The kernel's messages, and the script's commands and complaints.
    pub console: String,
}

impl Report {
    /// What follows `name` and a space on the one line that begins so.
    ///
    /// # Panics
    /// If no line or more than one begins so.
    #[must_use]
    pub fn value(&self, name: &str) -> &str {
        let mut found = self.lines.iter().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = found.next().unwrap_or_else(|| panic!("the guest printed no {name:?}"));
        assert!(found.next().is_none(), "the guest printed {name:?} twice");
        value
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        show_failure(&self.console, &self.lines);
    }
}
