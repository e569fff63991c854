//! QEMU's monitor: what can be done to a guest from outside (QMP, one JSON value a line).
#![allow(clippy::panic, reason = "the tests' own support: a test fails by panicking")]

use core::time::Duration;
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

/// For QEMU to answer, and for an event to come. Only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(120);

/// A conversation with QEMU.
#[derive(Debug)]
pub struct Monitor {
    lines: BufReader<UnixStream>,
    /// What QEMU has told and nobody has waited for yet.
    events: VecDeque<Value>,
}

impl Monitor {
    /// Talks to the QEMU that listens at `socket`.
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        stream.set_read_timeout(Some(LIMIT)).unwrap_or_else(|error| panic!("a limit for QEMU: {error}"));
        let mut monitor = Self { lines: BufReader::new(stream), events: VecDeque::new() };
        let greeting = monitor.line();
        assert!(greeting.get("QMP").is_some(), "QEMU's greeting: {greeting}");
        monitor.execute("qmp_capabilities", json!({}));
        monitor
    }

    /// Has QEMU execute a command; what it returns.
    ///
    /// # Panics
    /// If QEMU refuses.
    #[allow(clippy::needless_pass_by_value, reason = "it is made for the call")]
    pub fn execute(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.lines.get_mut(), "{request}").unwrap_or_else(|error| panic!("{request}: {error}"));
        loop {
            let mut line = self.line();
            if line.get("event").is_some() {
                self.events.push_back(line);
                continue;
            }
            match line.get_mut("return") {
                Some(returned) => return returned.take(),
                None => panic!("{request}: {line}"),
            }
        }
    }

    /// Waits for an event of this name; its data.
    ///
    /// # Panics
    /// If it does not come.
    pub fn wait_for_event(&mut self, name: &str) -> Value {
        loop {
            let mut event = self.events.pop_front().unwrap_or_else(|| self.line());
            if event.get("event").and_then(Value::as_str) == Some(name) {
                return event.get_mut("data").map(Value::take).unwrap_or_default();
            }
        }
    }

    /// Waits until a migration has come so far. The capability `events` must be on.
    ///
    /// # Panics
    /// If it ends in another way first.
    pub fn wait_for_migration(&mut self, status: &str) {
        self.follow_migration(|event, data| event == "MIGRATION" && data["status"] == status);
    }

    /// Waits until a migration goes through the guest's memory for this time, counted from 1.
    ///
    /// # Panics
    /// If it ends first.
    pub fn wait_for_pass(&mut self, pass: u64) {
        self.follow_migration(|event, data| event == "MIGRATION_PASS" && data["pass"].as_u64() >= Some(pass));
    }

    fn follow_migration(&mut self, mut is_there: impl FnMut(&str, &Value) -> bool) {
        loop {
            let event = self.events.pop_front().unwrap_or_else(|| self.line());
            let (name, data) = (event["event"].as_str().unwrap_or_default(), &event["data"]);
            if is_there(name, data) {
                return;
            }
            let ended =
                name == "MIGRATION" && matches!(data["status"].as_str(), Some("failed" | "cancelled" | "completed"));
            assert!(!ended, "the migration has ended: {data}");
        }
    }

    fn line(&mut self) -> Value {
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).unwrap_or_else(|error| panic!("QEMU's monitor: {error}"));
        assert!(read > 0, "QEMU has ended its monitor");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("QEMU's monitor said {line:?}: {error}"))
    }
}
