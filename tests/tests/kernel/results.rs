//! The table of ioctls and what a real kernel answers them with.

use std::collections::BTreeMap;
use std::io::{self, Write as _};

use vhost_core::uapi::vduse::VduseIoctl;
use vhost_core::uapi::vhost::VhostIoctl;

/// The last one is what the kernel simulates behind vhost-vdpa, where it does.
const DEVICES: [&str; 6] = ["net", "vsock", "scsi", "vdpa", "vduse", "sim"];

/// Answers other than success that are documented; a newer kernel may know more. "none" means that the wrapper says so
/// instead of an error.
const DOCUMENTED: [(&str, &str, &str); 25] = [
    // Before Linux 6.17.
    ("VHOST_GET_FEATURES_ARRAY", "net", "none"),
    ("VHOST_SET_FEATURES_ARRAY", "net", "none"),
    // Other devices have no array.
    ("VHOST_GET_FEATURES_ARRAY", "vsock", "none"),
    ("VHOST_SET_FEATURES_ARRAY", "vsock", "none"),
    ("VHOST_GET_FEATURES_ARRAY", "scsi", "none"),
    ("VHOST_SET_FEATURES_ARRAY", "scsi", "none"),
    ("VHOST_GET_FEATURES_ARRAY", "vdpa", "none"),
    // Without CONFIG_VHOST_CROSS_ENDIAN_LEGACY.
    ("VHOST_SET_VRING_ENDIAN", "net", "ENOTTY"),
    ("VHOST_GET_VRING_ENDIAN", "net", "ENOTTY"),
    ("VHOST_SET_VRING_ENDIAN", "vsock", "ENOTTY"),
    ("VHOST_GET_VRING_ENDIAN", "vsock", "ENOTTY"),
    ("VHOST_SET_VRING_ENDIAN", "scsi", "ENOTTY"),
    ("VHOST_GET_VRING_ENDIAN", "scsi", "ENOTTY"),
    ("VHOST_SET_VRING_ENDIAN", "vdpa", "ENOTTY"),
    ("VHOST_GET_VRING_ENDIAN", "vdpa", "ENOTTY"),
    // There is nothing to negotiate.
    ("VHOST_GET_BACKEND_FEATURES", "scsi", "ENOTTY"),
    ("VHOST_SET_BACKEND_FEATURES", "scsi", "ENOTTY"),
    // VDUSE has no such operation, or only in its version 1.
    ("VHOST_VDPA_GET_VRING_GROUP", "vdpa", "EOPNOTSUPP"),
    ("VHOST_VDPA_GET_VRING_DESC_GROUP", "vdpa", "EOPNOTSUPP"),
    ("VHOST_VDPA_GET_VRING_DESC_GROUP", "sim", "EOPNOTSUPP"),
    ("VHOST_VDPA_SET_GROUP_ASID", "vdpa", "EOPNOTSUPP"),
    ("VHOST_VDPA_SET_GROUP_ASID", "vdpa", "EINVAL"),
    ("VHOST_VDPA_SUSPEND", "vdpa", "EOPNOTSUPP"),
    ("VHOST_VDPA_RESUME", "vdpa", "EOPNOTSUPP"),
    ("VDUSE_IOTLB_GET_FD2", "vduse", "ENOTTY"),
];

/// Prints the table past the test runner's capture, and compares it: every ioctl was called, and answered with success or a
/// documented error.
pub(crate) fn check(lines: &[String]) {
    let mut results: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for line in lines.iter().filter_map(|line| line.strip_prefix("ioctl ")) {
        let [ioctl, device, result] = *line.split(' ').collect::<Vec<_>>() else { panic!("{line}") };
        results.insert((ioctl, device), result);
    }
    let names =
        VhostIoctl::ALL.iter().map(|ioctl| ioctl.name()).chain(VduseIoctl::ALL.iter().map(|ioctl| ioctl.name()));
    let names: Vec<_> = names.collect();
    // Nobody is left to be told if the terminal is gone.
    let _ = io::stderr().write_all(table(&names, &results).as_bytes());

    let missing = |name: &&&str| !results.keys().any(|(ioctl, _)| ioctl == *name);
    assert_eq!(names.iter().filter(missing).collect::<Vec<_>>(), [&""; 0], "never called");
    let undocumented = results
        .iter()
        .filter(|((ioctl, device), result)| **result != "ok" && !DOCUMENTED.contains(&(ioctl, device, result)));
    assert_eq!(undocumented.collect::<Vec<_>>(), []);
}

fn table(names: &[&str], results: &BTreeMap<(&str, &str), &str>) -> String {
    let row = |first: &str, cells: [&str; DEVICES.len()]| {
        let cells: String = cells.iter().map(|cell| format!(" {cell:<10}")).collect();
        format!("{}\n", format!("{first:<34}{cells}").trim_end())
    };
    let mut text = row("ioctl", DEVICES);
    for name in names {
        text += &row(name, DEVICES.map(|device| results.get(&(*name, device)).copied().unwrap_or("-")));
    }
    text
}
