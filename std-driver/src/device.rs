//! What a virtio device is, apart from how its queues reach it.
//!
//! A [`Device`] knows its type, its features, its configuration space and what to do with the requests in a queue. Who
//! carries the queues is somebody else's matter, so the same device runs behind vhost-user, inside the VMM's own process,
//! and behind VDUSE.
//!
//! The shortest useful device is an entropy source:
//!
//! ```
//! use std::fs::File;
//! use std::os::fd::AsFd;
//! use vhost_std::device::{Device, Queue};
//! use vhost_std::guest_io;
//!
//! struct Entropy(File);
//!
//! impl Device for Entropy {
//!     fn device_id(&self) -> u32 {
//!         4
//!     }
//!     fn queues(&self) -> u16 {
//!         1
//!     }
//!     fn process(&self, queue: &mut Queue<'_>) {
//!         while let Some(chain) = queue.next() {
//!             let filled = guest_io::read_at(self.0.as_fd(), 0, chain.writable()).unwrap_or(0);
//!             queue.complete(chain, filled as u32);
//!         }
//!     }
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! let device: std::sync::Arc<dyn Device> = std::sync::Arc::new(Entropy(File::open("/dev/urandom")?));
//! assert_eq!(device.features(), 0);
//! # Ok(())
//! # }
//! ```

mod state;

use core::fmt;
use std::os::fd::BorrowedFd;

pub use self::state::{DeviceState, StateError};
pub use crate::poller::Readiness;
pub use crate::vring::Queue;

/// A virtio device: its identity, its configuration space and the work it does on a queue.
///
/// Different queues may be processed by different threads at the same time, the same queue never.
pub trait Device: Send + Sync + 'static {
    /// The virtio device type: 1 network, 2 block, 4 entropy, ...
    fn device_id(&self) -> u32;

    /// Number of queues, 1 or more.
    fn queues(&self) -> u16;

    /// Does the work that waits in `queue`: takes chains and completes them.
    ///
    /// Called after a kick, and whenever the queue may have work. A chain that was taken and not completed goes back to the
    /// driver with length 0 when this returns. A device that cannot use chains now (a network device without packets) takes
    /// none, and has its queue woken when it can, see [`wake_on`](Self::wake_on): the driver need not kick again for them.
    fn process(&self, queue: &mut Queue<'_>);

    /// Feature bits of this device type (0 to 23 and 50 up); the bits of rings and transports are not the device's.
    fn features(&self) -> u64 {
        0
    }

    /// The largest queue size, a power of two, for transports that ask for a limit.
    fn queue_size_max(&self) -> u16 {
        1024
    }

    /// How many queues the device has for a front-end that asks: a network device counts pairs.
    fn queue_num(&self) -> u16 {
        self.queues()
    }

    /// A descriptor that tells, beside kicks, that a queue may have work: a socket with packets, a terminal with input.
    ///
    /// Each time that it becomes ready the queue is processed; it is watched edge-triggered and nobody else reads it, so a
    /// device that leaves something in it hears of it again with the next kick or the next arrival. It is the same one for
    /// as long as the device lives, and each queue has one of its own (a duplicate will do). What is always ready, such as a
    /// regular file, is not watched. A device that knows without a descriptor uses a
    /// [`RingWaker`](crate::worker::RingWaker).
    fn wake_on(&self, queue: u16) -> Option<WakeOn<'_>> {
        let _ = queue;
        None
    }

    /// A queue that was enabled is disabled: the driver does not use it for now. After a [`reset`](Self::reset) no queue is
    /// enabled.
    fn queue_disabled(&self, queue: u16) {
        let _ = queue;
    }

    /// Bytes of configuration space.
    fn config_size(&self) -> u32 {
        0
    }

    /// Copies configuration bytes from `offset` on; what lies past the end reads as zero.
    fn read_config(&self, offset: u32, data: &mut [u8]) {
        let _ = offset;
        data.fill(0);
    }

    /// The driver writes `data` to its configuration space.
    ///
    /// # Errors
    /// When the bytes are not writable, or the value is not allowed; then nothing changes.
    fn write_config(&self, offset: u32, data: &[u8]) -> Result<(), ConfigRefused> {
        Err(ConfigRefused { offset, length: data.len() })
    }

    /// What of the device must move along when the guest does, and is not in its rings. `None`: nothing.
    fn state(&self) -> Option<&dyn DeviceState> {
        None
    }

    /// The sizes of the device's shared memory regions in bytes, by their ids, of which there are 256; zero for none. Each is a
    /// whole number of pages, and all together a power of two (QEMU makes a PCI BAR of them).
    ///
    /// Over vhost-user the device has parts of files mapped into them with a
    /// [`DeviceNotifier`](crate::server::DeviceNotifier); other transports have no such regions yet.
    fn shared_memory(&self) -> &[u64] {
        &[]
    }

    /// The driver accepted these features. Zero again after a reset.
    fn features_acknowledged(&self, features: u64) {
        let _ = features;
    }

    /// Back to the state before a driver came. No queue is running then.
    fn reset(&self) {}
}

/// What wakes a queue beside kicks.
#[derive(Clone, Copy, Debug)]
pub struct WakeOn<'d> {
    /// What to watch.
    pub descriptor: BorrowedFd<'d>,
    /// What to watch it for.
    pub when: Readiness,
}

/// Serves a read of configuration space from its `config` bytes: zeroes past the end.
pub fn copy_config(config: &[u8], offset: u32, data: &mut [u8]) {
    data.fill(0);
    let rest = usize::try_from(offset).ok().and_then(|offset| config.get(offset..)).unwrap_or_default();
    for (to, from) in data.iter_mut().zip(rest) {
        *to = *from;
    }
}

/// The device does not take a write to its configuration space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigRefused {
    /// First byte of the refused write.
    pub offset: u32,
    /// Bytes of the refused write.
    pub length: usize,
}

impl fmt::Display for ConfigRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the device refuses a write of {} bytes at offset {} of its configuration", self.length, self.offset)
    }
}

impl core::error::Error for ConfigRefused {}

#[cfg(test)]
mod tests {
    use super::*;

    struct Null;

    impl Device for Null {
        fn device_id(&self) -> u32 {
            42
        }
        fn queues(&self) -> u16 {
            1
        }
        fn process(&self, _: &mut Queue<'_>) {}
    }

    #[test]
    fn a_device_without_configuration_reads_zero_and_refuses_writes() {
        let device: std::sync::Arc<dyn Device> = std::sync::Arc::new(Null);
        let mut data = [7; 3];
        device.read_config(0, &mut data);
        assert_eq!(data, [0; 3]);
        assert_eq!(device.write_config(5, &data), Err(ConfigRefused { offset: 5, length: 3 }));
    }

    #[test]
    fn configuration_reads_zero_past_the_end() {
        let config = [1, 2, 3, 4];
        for (offset, expected) in [(0, [1, 2, 3]), (2, [3, 4, 0]), (4, [0; 3]), (5, [0; 3]), (u32::MAX, [0; 3])] {
            let mut data = [9; 3];
            copy_config(&config, offset, &mut data);
            assert_eq!(data, expected, "from offset {offset}");
        }
    }
}
