//! The tables and layouts against this machine's kernel headers, as a C compiler reads them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use vhost_core::uapi::layout::{self, VringAddr, VringState};
use vhost_core::uapi::vduse::VduseIoctl;
use vhost_core::uapi::vduse_layout;
use vhost_core::uapi::vhost::VhostIoctl;
use vhost_core::{GuestAddress, Iova, RingAddress, UserAddress};
use vhost_tests::program::{not_run, require};
use zerocopy::{Immutable, IntoBytes};

/// What tells how C programs of this machine's architecture see the headers.
struct Machine {
    headers: &'static str,
    compiler: &'static str,
    /// Runs what was compiled, where the processor cannot.
    emulator: Option<&'static str>,
}

const MACHINE: Machine = if cfg!(target_arch = "s390x") {
    // The big-endian machine of `.ci/big-endian`.
    Machine {
        headers: "/usr/s390x-linux-gnu/include/linux",
        compiler: "s390x-linux-gnu-gcc",
        emulator: Some("qemu-s390x"),
    }
} else {
    Machine { headers: "/usr/include/linux", compiler: "cc", emulator: None }
};

/// A type of the headers, its fields as C sets them, and the same value made by us. Only types of Linux 6.0 or before.
fn layouts() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let name: [u8; 256] = core::array::from_fn(|at| at as u8);
    let target = core::array::from_fn(|at| at as u8);
    let (iova, user) = (Iova, UserAddress);
    vec![
        ("vhost_vring_state", "1, 2", bytes(&VringState::new(1, 2))),
        ("vhost_vring_file", "1, -1", bytes(&layout::VringFile::new(1, layout::NO_FILE))),
        (
            "vhost_vring_addr",
            ".index = 1, .flags = 2, .desc_user_addr = 3, .avail_user_addr = 4, .used_user_addr = 5, .log_guest_addr = 6",
            bytes(&VringAddr::new(1, 2, RingAddress(3), RingAddress(5), RingAddress(4), GuestAddress(6))),
        ),
        ("vhost_memory", "1, 2", bytes(&layout::MemoryTable::new(1, 2))),
        ("vhost_memory_region", "1, 2, 3, 4", bytes(&layout::MemoryRegion::new(GuestAddress(1), 2, user(3), 4))),
        (
            "vhost_scsi_target",
            ".abi_version = -1, .vhost_wwpn = COUNT, .vhost_tpgt = 3, .reserved = 4",
            bytes(&layout::ScsiTarget::new(-1, target, 3, 4)),
        ),
        ("vhost_vdpa_config", "1, 2", bytes(&layout::ConfigRange::new(1, 2))),
        ("vhost_vdpa_iova_range", "1, 2", bytes(&layout::IovaRange::new(iova(1), iova(2)))),
        (
            "vduse_dev_config",
            ".name = COUNT, .vendor_id = 1, .device_id = 2, .features = 3, .vq_num = 4, .vq_align = 5, .config_size = 6",
            bytes(&vduse_layout::DeviceConfig::new(name, 1, 2, 3, 4, 5, 0, 0, [0; 44], 6)),
        ),
        ("vduse_iotlb_entry", "1, 2, 3, 4", bytes(&vduse_layout::IotlbEntry::new(1, iova(2), iova(3), 4))),
        ("vduse_config_data", "1, 2", bytes(&vduse_layout::ConfigData::new(1, 2))),
        ("vduse_vq_config", "1, 2", bytes(&vduse_layout::VringConfig::new(1, 2, 0, [0; 20]))),
        (
            "vduse_vq_info",
            "1, 2, 3, 4, 5, .packed = {1, 2, 3, 4}, .ready = 7",
            bytes(&vduse_layout::VringInfo::new(1, 2, iova(3), iova(4), iova(5), position(), 7)),
        ),
        ("vduse_vq_eventfd", "1, -1", bytes(&vduse_layout::VringEventfd::new(1, -1))),
        ("vduse_iova_umem", "1, 2, 3", bytes(&vduse_layout::UserMemory::new(user(1), iova(2), 3, 0, [0; 20]))),
        ("vduse_iova_info", "1, 2, 3", bytes(&vduse_layout::IovaInfo::new(iova(1), iova(2), 3, 0, [0; 20]))),
    ]
}

fn position() -> [u8; 8] {
    zerocopy::transmute!(vduse_layout::VringPosition::new(1, 2, 3, 4))
}

fn bytes<T: IntoBytes + Immutable>(value: &T) -> Vec<u8> {
    value.as_bytes().to_vec()
}

/// Prints a value's bytes, padding zero, and counts from 0 on for `COUNT`.
const START: &str = r#"
#include <stdio.h>
#include <string.h>
#include <linux/vhost.h>
#include <linux/vduse.h>
#define COUNT {%COUNT%}
static void show(const char *name, const void *value, size_t size) {
    const unsigned char *bytes = value;
    printf("%s ", name);
    for (size_t at = 0; at < size; at++) printf("%02x", bytes[at]);
    printf("\n");
}
int main(void) {
"#;

#[test]
fn the_headers_of_this_machine_have_the_same_numbers_and_sizes() {
    let Some(compiler) = require(MACHINE.compiler) else { return };
    let headers = ["vhost.h", "vduse.h"].map(|name| Path::new(MACHINE.headers).join(name));
    if let Some(missing) = headers.iter().find(|header| !header.is_file()) {
        return not_run(&format!("{} is missing", missing.display()));
    }
    let ioctls = VhostIoctl::ALL.iter().map(|ioctl| (ioctl.name(), ioctl.number().0));
    let ioctls: BTreeMap<_, _> =
        ioctls.chain(VduseIoctl::ALL.iter().map(|ioctl| (ioctl.name(), ioctl.number().0))).collect();

    let count: Vec<_> = (0..=u8::MAX).map(|number| format!("(char){number}")).collect();
    let mut source = START.replace("%COUNT%", &count.join(","));
    for name in ioctls.keys() {
        source += &format!("#ifdef {name}\nprintf(\"{name} %#lx\\n\", (unsigned long){name});\n#endif\n");
    }
    for (name, fields, _) in layouts() {
        source +=
            &format!("{{ static struct {name} value = {{ {fields} }}; show(\"{name}\", &value, sizeof(value)); }}\n");
    }
    source += "return 0;\n}\n";

    let printed = compile_and_run(&compiler, &source);
    let layouts: BTreeMap<_, _> = layouts().into_iter().map(|(name, _, bytes)| (name, hexadecimal(&bytes))).collect();
    let mut compared = 0;
    for line in printed.lines() {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let ours = layouts.get(name).cloned().unwrap_or_else(|| format!("{:#x}", ioctls[name]));
        assert_eq!(ours, value, "{name}");
        compared += 1;
    }
    // The headers of Linux 6.1 have 57 ioctls, newer ones have more.
    assert!(compared >= 57 + layouts.len(), "only {compared} compared");
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn compile_and_run(compiler: &Path, source: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let [code, program] = ["numbers.c", "numbers"].map(|name| folder.path().join(name));
    fs::write(&code, source).unwrap();
    let mut compile = Command::new(compiler);
    compile.args(["-w", "-o"]).args([&program, &code]);
    let mut run = Command::new(&program);
    if let Some(emulator) = MACHINE.emulator {
        // Without the folder of the libraries.
        compile.arg("-static");
        run = Command::new(emulator);
        run.arg(&program);
    }
    let compiled = compile.output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let output = run.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
