//! Calls every wrapper of an ioctl, and keeps what the kernel answered for the table that guest.rs compares.

mod vdpa;
mod vhost;

use std::fs::OpenOptions;
use std::io::Write as _;

use rustix::io::Errno;
use vhost_kernel::KernelError;
use vhost_std::system_error::SystemError;

/// Where the lines are, for the script to print.
const FILE: &str = "/table";

/// Errors that the kernel is expected to answer with.
const NAMES: [(Errno, &str); 11] = [
    (Errno::PERM, "EPERM"),
    (Errno::NOENT, "ENOENT"),
    (Errno::FAULT, "EFAULT"),
    (Errno::BUSY, "EBUSY"),
    (Errno::EXIST, "EEXIST"),
    (Errno::NODEV, "ENODEV"),
    (Errno::INVAL, "EINVAL"),
    (Errno::NOTTY, "ENOTTY"),
    (Errno::OPNOTSUPP, "EOPNOTSUPP"),
    (Errno::NOBUFS, "ENOBUFS"),
    (Errno::ADDRINUSE, "EADDRINUSE"),
];

/// The lines of one device.
pub(super) struct Table(pub(super) &'static str);

impl Table {
    /// Keeps what an ioctl answered.
    pub(super) fn note<T>(&self, ioctl: &str, outcome: Result<T, impl Into<KernelError>>) -> Option<T> {
        let (text, value) = match outcome.map_err(Into::into) {
            Ok(value) => ("ok".to_owned(), Some(value)),
            Err(KernelError::System(SystemError { call, errno })) => {
                assert_eq!(call, ioctl);
                (name(errno), None)
            }
            Err(error) => panic!("{ioctl}: {error}"),
        };
        self.line(ioctl, &text);
        value
    }

    /// Keeps what an ioctl answered that the kernel may not know; `None` if so.
    fn note_if_known<T>(&self, ioctl: &str, outcome: Result<Option<T>, impl Into<KernelError>>) {
        match outcome.map_err(Into::into).unwrap() {
            Some(_) => self.line(ioctl, "ok"),
            None => self.line(ioctl, "none"),
        }
    }

    fn line(&self, ioctl: &str, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(FILE).unwrap();
        writeln!(file, "ioctl {ioctl} {} {text}", self.0).unwrap();
    }
}

fn name(errno: Errno) -> String {
    let known = NAMES.iter().find(|(known, _)| *known == errno);
    known.map_or_else(|| errno.to_string(), |(_, name)| (*name).to_owned())
}
