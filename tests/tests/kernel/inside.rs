//! What runs in the guest, as root on a kernel of its own.

mod answering;
mod backends;
mod kernel_backends;
mod net;
mod refusals;
mod ring;
mod scsi;
mod scsi_target;
mod server;
mod simulators;
mod table;
mod vdpa;
mod vdpa_disk;
mod vduse;
mod vsock;

use core::time::Duration;

use vhost_std::deadline::Deadline;

/// Waits for something that the system does not announce.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let limit = Deadline::after(Duration::from_secs(60));
    while !condition() {
        assert!(limit.remaining().is_some_and(|left| !left.is_zero()), "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
