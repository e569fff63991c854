//! Which rings are kicked, and whose turn it is: the work of a worker without its thread.

use core::fmt;
use core::sync::atomic::AtomicBool;
use core::time::Duration;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::device::Device;
use crate::poller::{Poller, Token, WatchError};
use crate::system_error::SystemError;
use crate::vring::{Company, SharedVring, Turn};

/// Serves rings of one device, from a [`Worker`](crate::worker::Worker) or from the caller's own loop.
///
/// In the caller's loop: wait until [`RingLoop::fd`] is readable, then call [`RingLoop::turn`] with a timeout of zero.
pub struct RingLoop {
    device: Arc<dyn Device>,
    poller: Arc<Poller>,
    /// A ring's token is its place here.
    rings: Mutex<Vec<Option<Arc<SharedVring>>>>,
    /// Memory for the tokens of a turn.
    reported: Mutex<Vec<Token>>,
    /// How long rings are looked at before a kick is waited for.
    busy_poll: Duration,
}

impl RingLoop {
    /// A loop without rings.
    ///
    /// # Errors
    /// When the process or the system has no descriptors left.
    pub fn new(device: Arc<dyn Device>) -> Result<Self, SystemError> {
        let poller = Arc::new(Poller::new()?);
        let (rings, reported) = Default::default();
        Ok(Self { device, poller, rings, reported, busy_poll: Duration::ZERO })
    }

    /// Has a [`Worker`](crate::worker::Worker) look at the rings for so long after it took a chain, before it waits for a kick.
    /// That takes a processor, and spares the driver its kicks and both sides their waking up. Default: not at all.
    #[must_use]
    pub fn with_busy_poll(mut self, busy_poll: Duration) -> Self {
        self.busy_poll = busy_poll;
        self
    }

    /// Serves `ring` from now on: its kicks now and later, whatever descriptor they come on, and what else the device has to
    /// [wake](Device::wake_on) it.
    ///
    /// # Errors
    /// When a descriptor cannot be watched; then the ring is not served.
    pub fn add(&self, ring: Arc<SharedVring>) -> Result<RingWaker, WatchError> {
        let slot = {
            let mut rings = lock(&self.rings);
            let slot = rings.iter().position(Option::is_none).unwrap_or(rings.len());
            if slot == rings.len() {
                rings.push(None);
            }
            if let Some(place) = rings.get_mut(slot) {
                *place = Some(Arc::clone(&ring));
            }
            slot
        };
        let token = Token(slot as u64);
        let index = ring.lock().index();
        let watched = self.watch_device(index, token).and_then(|()| {
            let watched = ring.lock().watch(Arc::clone(&self.poller), token);
            watched.inspect_err(|_| self.unwatch_device(index))
        });
        match watched {
            Ok(()) => Ok(RingWaker { poller: Arc::clone(&self.poller), token }),
            Err(error) => {
                self.forget(token);
                Err(error)
            }
        }
    }

    /// Serves the ring of `waker` no longer. A turn under way on another thread may still finish its batch.
    pub fn remove(&self, waker: &RingWaker) {
        if !Arc::ptr_eq(&waker.poller, &self.poller) {
            return;
        }
        if let Some(ring) = self.forget(waker.token) {
            let mut ring = ring.lock();
            ring.unwatch();
            self.unwatch_device(ring.index());
        }
    }

    /// Waits for work, at most `timeout` (`None`: for ever), and gives every ring that has some one turn.
    ///
    /// A ring whose turn was too short is reported again at once, after the others. A broken ring stops by itself and is
    /// found in its [faults](crate::vring::Vring::faults).
    ///
    /// # Errors
    /// When waiting fails, which only a bug can cause.
    pub fn turn(&self, timeout: Option<Duration>) -> Result<(), SystemError> {
        if self.take_turns(timeout)?.turn == Turn::More {
            // The next turn would not wait; this tells whoever waits for the descriptor.
            self.poller.wake();
        }
        Ok(())
    }

    /// A turn of a thread that does nothing else.
    pub(super) fn step(&self, stop: &AtomicBool) -> Result<(), SystemError> {
        let taken = self.take_turns(None)?;
        if self.busy_poll.is_zero() || !taken.chains {
            return Ok(());
        }
        let rings = Vec::from_iter(lock(&self.rings).iter().flatten().cloned());
        self.keep_looking(&rings, self.busy_poll, stop)
    }

    pub(super) fn take_turns(&self, timeout: Option<Duration>) -> Result<Taken, SystemError> {
        let mut taken = Taken { turn: Turn::Idle, chains: false };
        let mut tokens = core::mem::take(&mut *lock(&self.reported));
        let waited = self.poller.wait(timeout, &mut tokens);
        // A ring may be both kicked and scheduled, and still has one turn.
        tokens.sort_unstable();
        tokens.dedup();
        let company = if tokens.len() > 1 { Company::Others } else { Company::None };
        for token in tokens.drain(..) {
            let Some(ring) = self.ring(token) else {
                continue;
            };
            let (turn, chains) = ring.lock().takes_chains(&*self.device, company);
            taken.chains |= chains;
            if turn == Ok(Turn::More) {
                self.poller.keep(token);
                taken.turn = Turn::More;
            }
        }
        *lock(&self.reported) = tokens;
        waited.map(|()| taken)
    }

    pub(super) fn device(&self) -> &dyn Device {
        &*self.device
    }

    /// Becomes readable when [`RingLoop::turn`] has something to do.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.poller.fd()
    }

    /// Makes a waiting [`RingLoop::turn`] return soon.
    pub fn wake(&self) {
        self.poller.wake();
    }

    fn watch_device(&self, queue: u16, token: Token) -> Result<(), WatchError> {
        let Some(wake) = self.device.wake_on(queue) else { return Ok(()) };
        match self.poller.watch_for(wake.descriptor, wake.when, token) {
            // Always ready: there is nothing to wait for.
            Err(WatchError::NotPollable) => Ok(()),
            watched => watched,
        }
    }

    fn unwatch_device(&self, queue: u16) {
        if let Some(wake) = self.device.wake_on(queue) {
            self.poller.unwatch(wake.descriptor);
        }
    }

    fn ring(&self, token: Token) -> Option<Arc<SharedVring>> {
        lock(&self.rings).get(slot_of(token)?)?.clone()
    }

    fn forget(&self, token: Token) -> Option<Arc<SharedVring>> {
        lock(&self.rings).get_mut(slot_of(token)?)?.take()
    }
}

/// What came of turns.
pub(super) struct Taken {
    /// Whether a ring has another turn already.
    turn: Turn,
    /// Whether there was a chain.
    chains: bool,
}

impl Drop for RingLoop {
    fn drop(&mut self) {
        for ring in lock(&self.rings).drain(..).flatten() {
            ring.lock().unwatch();
        }
    }
}

impl fmt::Debug for RingLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rings = lock(&self.rings).iter().flatten().count();
        f.debug_struct("RingLoop").field("poller", &self.poller).field("rings", &rings).finish_non_exhaustive()
    }
}

/// Has one ring processed without a kick: for a device that has something for the driver.
#[derive(Clone, Debug)]
pub struct RingWaker {
    poller: Arc<Poller>,
    token: Token,
}

impl RingWaker {
    /// Gives the ring a turn soon.
    pub fn wake(&self) {
        self.poller.schedule(self.token);
    }
}

fn slot_of(token: Token) -> Option<usize> {
    usize::try_from(token.0).ok()
}

/// A device that panics in one ring's turn must not take the bookkeeping of the others with it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
