//! QEMU's own interface to whoever runs it (QMP): commands, and the events of a migration.
#![allow(clippy::panic, reason = "the tests' own support: a test fails by panicking")]

use core::time::Duration;
use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

/// A conversation with one QEMU.
#[derive(Debug)]
pub struct Monitor {
    stream: BufReader<UnixStream>,
    /// What happened and was not asked for yet.
    events: VecDeque<Value>,
}

impl Monitor {
    /// Connects to a QEMU that listens already. Whatever takes longer than `limit` from now on is a failure.
    pub(super) fn connect(socket: &Path, limit: Duration) -> Self {
        let stream = UnixStream::connect(socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        stream.set_read_timeout(Some(limit)).unwrap_or_else(|error| panic!("a limit: {error}"));
        let mut monitor = Self { stream: BufReader::new(stream), events: VecDeque::new() };
        let greeting = monitor.receive();
        assert!(greeting.get("QMP").is_some(), "QEMU greets with {greeting}");
        monitor.execute("qmp_capabilities", json!({}));
        monitor
    }

    /// Has QEMU do something; what it returns.
    ///
    /// # Panics
    /// If QEMU refuses.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Value {
        self.try_execute(command, arguments).unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Has QEMU do something; what it returns, or why it refuses.
    ///
    /// # Errors
    /// QEMU's description.
    pub fn try_execute(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        let request = json!({ "execute": command, "arguments": arguments });
        let sent = writeln!(self.stream.get_mut(), "{request}");
        sent.unwrap_or_else(|error| panic!("{command}: {error}"));
        loop {
            let answer = self.receive();
            if let Some(value) = answer.get("return") {
                return Ok(value.clone());
            }
            if let Some(error) = answer.get("error") {
                return Err(error["desc"].as_str().unwrap_or_default().to_owned());
            }
            self.events.push_back(answer);
        }
    }

    /// Waits for an event of this name whose data `wanted` takes; earlier events are forgotten.
    pub fn wait_for_event<T>(&mut self, name: &str, mut wanted: impl FnMut(&Value) -> Option<T>) -> T {
        loop {
            let event = self.events.pop_front().unwrap_or_else(|| self.receive());
            if event["event"] == name
                && let Some(value) = wanted(&event["data"])
            {
                return value;
            }
        }
    }

    /// Waits until a migration has come so far.
    ///
    /// # Panics
    /// If it fails or is cancelled first.
    pub fn wait_for_migration(&mut self, status: &str) {
        self.wait_for_event("MIGRATION", |data| {
            let now = data["status"].as_str().unwrap_or_default();
            assert!(now == status || !matches!(now, "failed" | "cancelled" | "completed"), "the migration has {now}");
            (now == status).then_some(())
        });
    }

    fn receive(&mut self) -> Value {
        let mut line = String::new();
        let received = self.stream.read_line(&mut line);
        assert!(received.is_ok_and(|count| count > 0), "QEMU says nothing more");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line:?}: {error}"))
    }
}
