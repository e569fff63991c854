//! A network device: frames between a guest and a tap interface, or a datagram socket.
//!
//! ```no_run
//! use std::sync::Arc;
//! use vhost_std::{
//!     eventfd::EventFd,
//!     net::{NetDevice, NetLink, NetOptions},
//!     server::{BackendServer, ServerOptions},
//!     socket::Listener,
//! };
//!
//! # fn main() -> Result<(), Box<dyn core::error::Error>> {
//! let device = NetDevice::new(NetLink::tap("tap0", 2)?, &NetOptions::default())?; // two pairs of queues
//! let mut server = BackendServer::new(Arc::new(device), ServerOptions::default())?;
//! let stop = EventFd::new()?; // whoever signals it ends the service
//! server.listen(&Listener::bind("net.sock")?, &stop, |end| println!("{end:?}"))?;
//! # Ok(())
//! # }
//! ```
//!
//! Queues 0, 2, ... are those of what the guest receives, 1, 3, ... those of what it sends. There is no control queue: where
//! the driver has one, the VMM processes it, as QEMU does.

mod config;
mod error;
mod link;
mod receive;
mod tap;
#[cfg(test)]
mod tests;
mod transmit;

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use self::error::NetError;
pub use self::link::NetLink;

use self::config::feature;
use self::receive::Received;
use crate::device::{Device, Queue, Readiness, WakeOn, copy_config};

/// The virtio device type of a network device.
const DEVICE_ID: u32 = 1;

/// Pairs of queues that fit the 256 rings of vhost-user.
const MAX_PAIRS: usize = 128;

/// Bytes of the header before each frame, on our side and of all drivers but the oldest.
const HEADER: usize = 12;

/// Bytes of the largest frame: 64 KiB of IP with an Ethernet header and a VLAN tag.
const FRAME: usize = (64 << 10) + 18;

/// Header and frame.
type Packet = [u8; HEADER + FRAME];

/// How a network device appears to the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetOptions {
    /// The guest's address; without one the driver or the VMM chooses.
    pub mac: Option<[u8; 6]>,
    /// The largest packet of the network in bytes, 68 or more; without one the driver takes the usual 1500.
    pub mtu: Option<u16>,
}

/// A virtio network device.
pub struct NetDevice {
    pairs: Vec<Pair>,
    options: NetOptions,
    acknowledged: AtomicU64,
}

/// A pair of queues, and where their frames go to and come from.
struct Pair {
    link: NetLink,
    received: Mutex<Received>,
    /// Where frames are put together that the guest sends.
    sending: Mutex<Box<Packet>>,
}

impl NetDevice {
    /// A device with a pair of queues for each link.
    ///
    /// # Errors
    /// When there is no link or there are too many, or an option is out of its range.
    pub fn new(links: Vec<NetLink>, options: &NetOptions) -> Result<Self, NetError> {
        if links.is_empty() || links.len() > MAX_PAIRS {
            return Err(NetError::Pairs { found: links.len(), most: MAX_PAIRS });
        }
        if let Some(found) = options.mtu.filter(|mtu| *mtu < config::LEAST_MTU) {
            return Err(NetError::Mtu { found, least: config::LEAST_MTU });
        }
        let pair = |link| Pair { link, received: Mutex::default(), sending: Mutex::new(Box::new([0; HEADER + FRAME])) };
        Ok(Self { pairs: links.into_iter().map(pair).collect(), options: *options, acknowledged: AtomicU64::new(0) })
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// The pair of a queue, and whether it is the one that receives.
    fn pair_of(&self, queue: u16) -> Option<(&Pair, Direction)> {
        let direction = if queue.is_multiple_of(2) { Direction::ToDriver } else { Direction::FromDriver };
        Some((self.pairs.get(usize::from(queue / 2))?, direction))
    }

    /// All but the first, which is always in use.
    fn spare_pairs(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.iter().skip(1)
    }
}

/// Which way the frames of a queue go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToDriver,
    FromDriver,
}

impl Device for NetDevice {
    fn device_id(&self) -> u32 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        let mac = if self.options.mac.is_some() { feature::MAC } else { 0 };
        let mtu = if self.options.mtu.is_some() { feature::MTU } else { 0 };
        let pairs = if self.pairs.len() > 1 { feature::MQ } else { 0 };
        let offloads = self.pairs.iter().map(|pair| pair.link.offloads()).fold(u64::MAX, |all, one| all & one);
        feature::MRG_RXBUF | mac | mtu | pairs | offloads
    }

    fn queues(&self) -> u16 {
        self.queue_num() * 2
    }

    /// Pairs of them (QEMU and DPDK).
    fn queue_num(&self) -> u16 {
        self.pairs.len() as u16
    }

    fn process(&self, queue: &mut Queue<'_>) {
        match self.pair_of(queue.index()) {
            Some((pair, Direction::ToDriver)) => {
                pair.link.attach();
                lock(&pair.received).deliver(&pair.link, queue, self.acknowledged());
            }
            Some((pair, Direction::FromDriver)) => {
                transmit::send(&pair.link, queue, self.acknowledged(), &mut lock(&pair.sending));
            }
            None => {}
        }
    }

    fn wake_on(&self, queue: u16) -> Option<WakeOn<'_>> {
        match self.pair_of(queue)? {
            (pair, Direction::ToDriver) => {
                Some(WakeOn { descriptor: pair.link.descriptor(), when: Readiness::Readable })
            }
            // What the link does not take is lost, as on any network.
            (_, Direction::FromDriver) => None,
        }
    }

    fn queue_disabled(&self, queue: u16) {
        if let Some((pair, Direction::ToDriver)) = self.pair_of(queue)
            && queue > 0
        {
            pair.link.detach();
        }
    }

    fn config_size(&self) -> u32 {
        config::SIZE as u32
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        copy_config(&config::encode(&self.options, self.queue_num()), offset, data);
    }

    fn features_acknowledged(&self, features: u64) {
        if self.acknowledged.swap(features, Ordering::Relaxed) == 0 {
            // A driver that begins need not use all pairs; those that it uses come back when their queues run.
            self.spare_pairs().for_each(|pair| pair.link.detach());
        }
        for pair in &self.pairs {
            pair.link.set_offloads(features);
        }
    }

    fn reset(&self) {
        self.acknowledged.store(0, Ordering::Relaxed);
        self.spare_pairs().for_each(|pair| pair.link.detach());
        for pair in &self.pairs {
            lock(&pair.received).forget();
            pair.link.set_offloads(0);
        }
    }
}

impl fmt::Debug for NetDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetDevice")
            .field("pairs", &self.pairs.len())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Bytes of the header before each frame, for a driver that acknowledged these features (specification, 5.1.6.1).
fn header_size(acknowledged: u64) -> usize {
    if acknowledged & (feature::VERSION_1 | feature::MRG_RXBUF) == 0 { HEADER - 2 } else { HEADER }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
