//! Boots the guest and runs the tests of [`inside`](crate::inside) there.

use core::time::Duration;
use std::env;
use std::io::{self, Write as _};

use vhost_tests::guest::Guest;
use vhost_tests::program::{built, require};

use crate::results;

/// For the whole guest, under software emulation on a machine that is busy with other things too. Only a hang reaches it.
const LIMIT: Duration = Duration::from_secs(280);

/// Names a part of the guest's tests, to run only those.
const ONLY: &str = "VHOST_KERNEL_TESTS";

/// What the kernel loads, in this order: a new device on the vdpa bus goes to the driver that came first.
const MODULES: [&str; 9] = [
    "vhost_net",
    "vhost_vsock",
    "vhost_scsi",
    "target_core_file",
    "vduse",
    "vhost_vdpa",
    "virtio_vdpa",
    "virtio_blk",
    "loop",
];

/// Devices of the kernel that can be suspended, and that have several address spaces. Distributions leave them out.
const SIMULATORS: [&str; 2] = ["vdpa_sim_blk", "vdpa_sim_net"];

/// What runs beside the tests.
const PROGRAMS: [&str; 2] = ["qemu-storage-daemon", "mkfs.ext4"];

#[test]
fn vhost_kernel_works_on_a_real_kernel() {
    let Some(guest) = Guest::find() else { return };
    let [Some(daemon), Some(make)] = PROGRAMS.map(require) else { return };
    let program = env::current_exe().unwrap();
    let mut guest = guest.memory(768).processors(2).program(&program).program(&daemon).program(&make);
    guest = guest.program(&built("vhost-kernel", "vhost-vduse"));
    for module in MODULES {
        guest = guest.module(module);
    }
    let mut skip = "";
    for module in SIMULATORS {
        if guest.has_module(module) {
            guest = guest.module(module);
        } else {
            skip = "--skip inside::simulators::";
            // Nobody is left to be told if the terminal is gone.
            let _ = writeln!(io::stderr(), "inside::simulators: not run, the guest's kernel has no {module}");
        }
    }
    let name = program.file_name().unwrap().to_str().unwrap();
    let only = env::var(ONLY).ok();
    let script =
        SCRIPT.replace("PROGRAM", name).replace("ONLY", only.as_deref().unwrap_or("inside::")).replace("SKIP", skip);
    let report = guest.boot(&script).finish(LIMIT);
    assert_eq!(report.status, 0, "a test has failed in the guest");
    let tests = report.lines.iter().filter(|line| line.starts_with("test inside::"));
    let passed: Vec<_> = tests.filter(|line| line.ends_with(" ok")).map(String::as_str).collect();
    // Nobody is left to be told if the terminal is gone.
    let _ = writeln!(io::stderr(), "in the guest:\n{}", passed.join("\n"));
    assert!(!passed.is_empty(), "no test ran in the guest");
    if only.is_none() {
        results::check(&report.lines);
    }
}

const SCRIPT: &str = r#"
mkdir -p /config
mount -t configfs none /config
status=0
PROGRAM --ignored --test-threads=1 SKIP ONLY || status=$?
cat /table || true
exit $status
"#;
