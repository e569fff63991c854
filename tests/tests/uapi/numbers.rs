//! The tables of ioctls against the literal numbers.

use vhost_core::uapi::ioctl::{Direction, IoctlNumber};
use vhost_core::uapi::vduse::VduseIoctl;
use vhost_core::uapi::vhost::VhostIoctl;

use crate::literals::{Literal, VDUSE, VHOST};

fn sorted(mut literals: Vec<Literal>) -> Vec<Literal> {
    literals.sort_unstable();
    literals
}

#[test]
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64", target_arch = "s390x"))]
fn the_tables_compute_the_numbers_of_all_71_ioctls() {
    let vhost = VhostIoctl::ALL.iter().map(|ioctl| (ioctl.name(), ioctl.number().0)).collect();
    assert_eq!(sorted(vhost), sorted(VHOST.to_vec()));
    let vduse = VduseIoctl::ALL.iter().map(|ioctl| (ioctl.name(), ioctl.number().0)).collect();
    assert_eq!(sorted(vduse), sorted(VDUSE.to_vec()));
}

#[test]
fn a_number_becomes_its_ioctl_and_no_other_number_becomes_one() {
    for ioctl in VhostIoctl::ALL {
        assert_eq!(VhostIoctl::from_number(ioctl.number()), Some(*ioctl));
        assert_eq!(VduseIoctl::from_number(ioctl.number()), None, "{ioctl}");
    }
    for ioctl in VduseIoctl::ALL {
        assert_eq!(VduseIoctl::from_number(ioctl.number()), Some(*ioctl));
    }
    let unknown = [0, 0xaf, VhostIoctl::SetMemTable.number().0 | 0xff, u32::MAX];
    for number in unknown.map(IoctlNumber) {
        assert_eq!((VhostIoctl::from_number(number), VduseIoctl::from_number(number)), (None, None), "{number}");
    }
}

#[test]
fn a_number_is_its_parts() {
    let largest = if IoctlNumber::new(Direction::None, 0, 0, 0x2000).is_some() { 0x3fff } else { 0x1fff };
    for direction in Direction::ALL {
        for size in [0, 1, 255, 256, 336, largest] {
            let number = IoctlNumber::new(direction, 0xaf, 0x73, size).unwrap();
            assert_eq!(number.direction(), Some(direction));
            assert_eq!((number.group(), number.ordinal(), number.size()), (0xaf, 0x73, size));
        }
        assert_eq!(IoctlNumber::new(direction, 0, 0, largest + 1), None);
        assert_eq!(IoctlNumber::new(direction, 0, 0, usize::MAX), None);
    }
}

/// drivers/vhost and drivers/vdpa/vdpa_user: the calls whose declaration does not say which way the bytes go.
#[test]
fn declarations_that_are_wrong_are_known() {
    let wrong: Vec<_> = VhostIoctl::ALL
        .iter()
        .filter(|ioctl| ioctl.number().direction() != Some(ioctl.row().moves))
        .map(|ioctl| (ioctl.name(), ioctl.row().moves))
        .collect();
    let expected = [
        ("VHOST_GET_VRING_ENDIAN", Direction::ReadWrite),
        ("VHOST_GET_VRING_BUSYLOOP_TIMEOUT", Direction::ReadWrite),
        ("VHOST_SCSI_GET_ABI_VERSION", Direction::Read),
        ("VHOST_SCSI_GET_EVENTS_MISSED", Direction::Read),
        ("VHOST_VDPA_GET_CONFIG", Direction::ReadWrite),
        ("VHOST_GET_FEATURES_ARRAY", Direction::ReadWrite),
    ];
    assert_eq!(wrong, expected);
    assert!(VduseIoctl::ALL.iter().all(|ioctl| ioctl.number().direction() == Some(ioctl.row().moves)));
}

#[test]
fn what_follows_an_argument_is_in_the_table() {
    let vhost = VhostIoctl::ALL.iter().map(|ioctl| ioctl.row());
    let vduse = VduseIoctl::ALL.iter().map(|ioctl| ioctl.row());
    let followed: Vec<_> =
        vhost.chain(vduse).filter(|row| row.element != 0).map(|row| (row.name, row.element)).collect();
    let expected = [
        ("VHOST_SET_MEM_TABLE", 32),
        ("VHOST_VDPA_GET_CONFIG", 1),
        ("VHOST_VDPA_SET_CONFIG", 1),
        ("VHOST_GET_FEATURES_ARRAY", 8),
        ("VHOST_SET_FEATURES_ARRAY", 8),
        ("VDUSE_CREATE_DEV", 1),
        ("VDUSE_DEV_SET_CONFIG", 1),
    ];
    assert_eq!(followed, expected);
}
