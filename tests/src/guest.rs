//! A Linux guest under QEMU's software emulation: built, booted and asked for each test, from
//! nothing but a script.
//!
//! The guest's memory can be shared with a back-end's process. What the script prints comes over a
//! serial port of its own; what it complains of, and the kernel's messages, go to the console,
//! which is shown when something fails.
#![allow(clippy::panic, reason = "the tests' own support: a test fails by panicking")]

mod archive;
mod booted;
mod kernel;
mod monitor;

use core::fmt::Write as _;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::program::{Running, require};
use archive::Archive;
pub use booted::{Booted, Report};
use kernel::Kernel;
pub use kernel::{GUESTS, KERNEL_FOLDER};
pub use monitor::Monitor;

/// The guest's first program. The second serial port is the script's alone, so that no kernel
/// message gets into its lines.
const INIT: &str = r#"#!/bin/busybox sh
# Should a command fail, the kernel misses its first program and ends the guest.
set -e
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /sys /tmp
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
while read -r module; do
    insmod "/modules/$module"
done </modules/order
port=/dev/ttyS1
status=0
echo "@@BEGIN" >$port
sh -eux /script >$port || status=$?
echo "@@END $status" >$port
# To change a port's settings waits until all of its output has left.
stty -F $port raw
poweroff -f
"#;

/// A guest that has not been booted yet.
#[derive(Clone, Debug)]
pub struct Guest {
    emulator: PathBuf,
    kernel: Kernel,
    archive: Archive,
    modules: Vec<String>,
    memory: u32,
    processors: u32,
    hot_plug: String,
    kernel_arguments: String,
    arguments: Vec<OsString>,
    devices: u32,
}

impl Guest {
    /// A guest of 256 MiB with one processor, busybox and no module; `None` if this machine cannot
    /// boot one, after saying that the calling test was not run.
    #[must_use]
    pub fn find() -> Option<Self> {
        let emulator = require("qemu-system-x86_64")?;
        let busybox = require("busybox")?;
        let kernel = Kernel::find()?;
        let mut archive = Archive::new();
        archive.program("bin/busybox", &busybox);
        archive.script("init", INIT);
        Some(Self {
            emulator,
            kernel,
            archive,
            modules: Vec::new(),
            memory: 256,
            processors: 1,
            hot_plug: String::new(),
            kernel_arguments: String::new(),
            arguments: Vec::new(),
            devices: 0,
        })
    }

    /// With this much memory, in MiB.
    #[must_use]
    pub fn memory(self, mebibytes: u32) -> Self {
        Self { memory: mebibytes, ..self }
    }

    /// With room for so many memory modules that are plugged in later, up to this much memory in all, in MiB.
    #[must_use]
    pub fn hot_plug(self, slots: u32, mebibytes: u32) -> Self {
        Self { hot_plug: format!(",slots={slots},maxmem={mebibytes}M"), ..self }
    }

    /// Gives the guest's kernel more arguments.
    #[must_use]
    pub fn kernel_arguments(self, arguments: &str) -> Self {
        Self { kernel_arguments: format!("{} {arguments}", self.kernel_arguments), ..self }
    }

    /// With this many processors.
    #[must_use]
    pub fn processors(self, processors: u32) -> Self {
        Self { processors, ..self }
    }

    /// Loads a module of the guest's kernel, and what it needs, before the script runs.
    #[must_use]
    pub fn module(mut self, name: &str) -> Self {
        self.modules.push(name.to_owned());
        self
    }

    /// Whether the guest's kernel has a module, or has it built in.
    #[must_use]
    pub fn has_module(&self, name: &str) -> bool {
        self.kernel.has(name)
    }

    /// Gives the guest a file.
    #[must_use]
    pub fn file(mut self, name: &str, contents: &[u8]) -> Self {
        self.archive.file(name.trim_start_matches('/'), contents);
        self
    }

    /// Gives the guest a program of this machine, under its own name, with the libraries it loads.
    #[must_use]
    pub fn program(mut self, host: &Path) -> Self {
        let name = host.file_name().unwrap_or_default().to_string_lossy();
        self.archive.program(&format!("bin/{name}"), host);
        self
    }

    /// Gives QEMU more arguments.
    #[must_use]
    pub fn arguments<A: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Gives the guest a vhost-user device: QEMU's name for it with its properties, and the socket
    /// its back-end listens on.
    #[must_use]
    pub fn vhost_user(mut self, device: &str, socket: &Path) -> Self {
        let id = self.devices;
        self.devices += 1;
        let channel = format!("socket,id=vhost-user-{id},path={}", socket.display());
        self.arguments([
            "-chardev".to_owned(),
            channel,
            "-device".to_owned(),
            format!("{device},chardev=vhost-user-{id}"),
        ])
    }

    /// Starts the guest, which runs `script` with busybox' shell and powers off. The shell ends at
    /// the first command that fails and shows each command on the console.
    ///
    /// # Panics
    /// If QEMU cannot be started.
    #[must_use]
    pub fn boot(self, script: &str) -> Booted {
        self.start(script, |_| {})
    }

    /// Starts QEMU without running the guest: it waits at `socket` for another QEMU, with the same devices and the same
    /// `script`, to hand its guest over.
    ///
    /// # Panics
    /// If QEMU cannot be started.
    #[must_use]
    pub fn take_over(self, script: &str, socket: &Path) -> Booted {
        let mut booted = self.start(script, |command| {
            command.arg("-incoming").arg(format!("unix:{}", socket.display()));
        });
        booted.wait_for_monitor();
        booted
    }

    fn start(mut self, script: &str, more: impl FnOnce(&mut Command)) -> Booted {
        let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("a temporary folder: {error}"));
        self.archive.file("script", script.as_bytes());
        self.add_modules();
        let [archive, console, output, monitor] =
            ["archive", "console", "output", "monitor"].map(|name| folder.path().join(name));
        fs::write(&archive, self.archive.finish()).unwrap_or_else(|error| panic!("{}: {error}", archive.display()));

        let mut command = Command::new(&self.emulator);
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-cpu", "max"]);
        // All processors on one thread: with a thread each, QEMU 10 now and then fails an assertion of its own
        // (`iotlb_to_section`) while many devices are being mapped.
        command.args(["-machine", "q35,memory-backend=memory", "-accel", "tcg,thread=single"]);
        command.args(["-smp", &self.processors.to_string()]);
        // Back-ends map the guest's memory: it is a file that can be passed to them.
        command.arg("-object").arg(format!("memory-backend-memfd,id=memory,size={}M,share=on", self.memory));
        command.arg("-m").arg(format!("{}M{}", self.memory, self.hot_plug));
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", monitor.display()));
        for port in [&console, &output] {
            command.arg("-serial").arg(format!("file:{}", port.display()));
        }
        command.arg("-kernel").arg(&self.kernel.image).arg("-initrd").arg(&archive);
        let kernel_arguments = format!("console=ttyS0 quiet panic=-1 no_timer_check{}", self.kernel_arguments);
        command.arg("-append").arg(kernel_arguments).args(&self.arguments);
        more(&mut command);
        Booted { emulator: Running::start(&mut command), folder }
    }

    fn add_modules(&mut self) {
        let mut order = String::new();
        for path in self.kernel.load_order(&self.modules) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let contents = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            self.archive.file(&format!("modules/{name}"), &contents);
            // Writing to a string cannot fail.
            let _ = writeln!(order, "{name}");
        }
        self.archive.file("modules/order", order.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    /// Never reached where things work.
    const LONG: Duration = Duration::from_secs(240);

    #[test]
    fn a_script_runs_with_its_files_and_modules_and_reports_lines_and_status() {
        let Some(guest) = Guest::find() else { return };
        let guest = guest.processors(2).memory(192).module("vhost_net").file("/some/file", b"contents");
        let script = r#"
            cat /some/file
            echo
            echo "processors $(nproc)"
            echo "module $(grep -c '^vhost_net ' /proc/modules)"
            echo ready
            (exit 7)
            echo "never reached"
        "#;
        let mut booted = guest.boot(script);
        booted.wait_for_line("ready", LONG);
        let report = booted.finish(LONG);
        assert_eq!(report.lines, ["contents", "processors 2", "module 1", "ready"]);
        assert_eq!((report.value("processors"), report.status), ("2", 7));
        assert!(report.console.contains("+ exit 7"), "the console shows the script's commands");
    }

    #[test]
    #[should_panic(expected = "the guest did not run its script to the end")]
    fn a_guest_that_goes_down_early_is_a_failure() {
        let Some(guest) = Guest::find() else {
            // Said already; this is the failure that the test runner waits for.
            panic!("the guest did not run its script to the end");
        };
        let _ = guest.boot("echo 'early'; poweroff -f").finish(LONG);
    }
}
