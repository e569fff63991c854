//! The translations of a device behind an IOMMU: kept, asked for, and taken back. The device's rings share them.
//!
//! A ring that finds no translation notes what it needs and waits; whoever serves the front-end asks for it
//! ([`Iommu::ask`]), and looks at the rings that wait when an answer comes ([`Iommu::waiting`]). Nobody else waits.

use core::sync::atomic::{AtomicBool, Ordering};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use vhost_core::{Iotlb, IotlbMisuse, Iova, Miss, Unmapped, UserAddress, wire};

use crate::eventfd::EventFd;
use crate::system_error::SystemError;

/// Translations kept: those of 16 MiB that lie scattered over pages, more than a guest's largest requests.
pub(crate) const TRANSLATIONS: usize = 4096;

/// The translations. Their targets are user addresses, or guest addresses with `GPA_ADDRESSES`.
pub(crate) type Translations = Iotlb<UserAddress, TRANSLATIONS>;

/// What is known, and what is missing.
pub(crate) struct Iommu {
    /// Nothing is allocated for a device that is not behind an IOMMU.
    translations: RwLock<Option<Box<Translations>>>,
    /// Whether a translation was forgotten that nobody took back; written under the lock of the translations.
    dropped_some: AtomicBool,
    waiting: Mutex<Vec<Waiting>>,
    /// Whether a ring waits for what was not asked for.
    has_unasked: AtomicBool,
    event: EventFd,
}

/// A ring that waits, for one translation at a time.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    ring: u16,
    miss: Miss,
    asked: bool,
}

impl Iommu {
    /// Knows nothing.
    pub(crate) fn new() -> Result<Self, SystemError> {
        Ok(Self {
            translations: RwLock::default(),
            dropped_some: AtomicBool::new(false),
            waiting: Mutex::default(),
            has_unasked: AtomicBool::new(false),
            event: EventFd::new()?,
        })
    }

    /// Does what a message of the front-end says. Who looks a translation up afterwards finds the new one; the addresses of
    /// which somebody may have looked up another one before.
    pub(crate) fn apply(&self, message: &wire::iotlb::Iotlb) -> Result<Option<(Iova, Iova)>, IotlbMisuse> {
        let first = message.iova();
        // Zero bytes are all of them up to the end, see `Iotlb::invalidate`; those of no translation are refused.
        let last = message.size().checked_sub(1).and_then(|behind_first| first.0.checked_add(behind_first));
        let last = Iova(last.unwrap_or(u64::MAX));
        let mut translations = self.translations.write().unwrap_or_else(PoisonError::into_inner);
        let translations = translations.get_or_insert_default();
        let entries = translations.entries();
        // What answers a question takes nobody's place, unless one was dropped to make room.
        let is_new = message.message_type() != wire::iotlb::Iotlb::INVALIDATE
            && !self.dropped_some.load(Ordering::Relaxed)
            && entries.get(entries.partition_point(|entry| entry.last < first)).is_none_or(|next| last < next.first);
        if entries.len() == TRANSLATIONS {
            self.dropped_some.store(true, Ordering::Relaxed);
        }
        translations.apply(message)?;
        Ok((!is_new).then_some((first, last)))
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        let mut translations = self.translations.write().unwrap_or_else(PoisonError::into_inner);
        *translations = None;
        self.dropped_some.store(false, Ordering::Relaxed);
        drop(translations);
        self.lock().clear();
    }

    /// Looks translations up. They do not change meanwhile.
    pub(crate) fn look_up<T>(&self, look: impl FnOnce(&Translations) -> T) -> T {
        {
            let translations = self.translations.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(translations) = translations.as_deref() {
                return look(translations);
            }
        }
        let mut translations = self.translations.write().unwrap_or_else(PoisonError::into_inner);
        look(translations.get_or_insert_default())
    }

    /// Whether there still is no translation.
    pub(crate) fn misses(&self, miss: &Miss) -> bool {
        let found = self.look_up(|translations| translations.look_up(miss.iova, miss.access, &mut 0));
        matches!(found, Err(Unmapped::Miss(_)))
    }

    /// Has the front-end asked, and notes that a ring waits. The caller looks once more afterwards: what came before the ring
    /// was noted wakes nobody.
    pub(crate) fn wait_for(&self, ring: u16, miss: Miss) {
        let mut waiting = self.lock();
        let new = Waiting { ring, miss, asked: false };
        match waiting.iter_mut().find(|waiting| waiting.ring == ring) {
            Some(place) => *place = new,
            None => waiting.push(new),
        }
        self.has_unasked.store(true, Ordering::Release);
        // A full counter is readable already.
        let _ = self.event.signal();
    }

    /// A ring waits no longer.
    pub(crate) fn wait_no_longer(&self, ring: u16) {
        self.lock().retain(|waiting| waiting.ring != ring);
    }

    /// The rings that wait.
    pub(crate) fn waiting(&self) -> Vec<u16> {
        self.lock().iter().map(|waiting| waiting.ring).collect()
    }

    /// Becomes readable when there is something to ask for.
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Whether there is something to ask for, without a look at the descriptor.
    pub(crate) fn has_unasked(&self) -> bool {
        self.has_unasked.load(Ordering::Acquire)
    }

    /// Has `ask` ask the front-end for what rings wait for, as long as it can. For the rest nobody wakes: it is asked for after
    /// the next message.
    pub(crate) fn ask(&self, mut ask: impl FnMut(&Miss) -> bool) -> Result<(), SystemError> {
        self.event.drain()?;
        let mut waiting = self.lock();
        let mut unasked = waiting.iter_mut().filter(|waiting| !waiting.asked);
        let refused = unasked.find_map(|waiting| {
            waiting.asked = ask(&waiting.miss);
            (!waiting.asked).then_some(())
        });
        self.has_unasked.store(refused.is_some(), Ordering::Release);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl core::fmt::Debug for Iommu {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Iommu").field("waiting", &*self.lock()).finish_non_exhaustive()
    }
}
