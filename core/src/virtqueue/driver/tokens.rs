//! The driver's tokens: which are free, and what it remembers of the chains that are out.

use super::{DriverFault, Used};

/// What the driver remembers of each token; the device can write to rings, not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Slot {
    /// The next free token, or the next descriptor of a split chain.
    next: u16,
    /// Ring descriptors of the chain that has this token; 0 when none has.
    count: u16,
    /// Bytes of its writable part.
    writable: u32,
}

/// Tokens, free and in use, and what of the chains that are out does not depend on the layout.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tokens<const N: usize> {
    slots: [Slot; N],
    free: u16,
    pub(super) first_free: u16,
    last_free: u16,
    /// Chains that are out.
    pub(super) outstanding: u16,
    /// In order: the oldest chain that is out, and the end of the batch that is being polled.
    oldest: u16,
    pub(super) batch: Option<Used>,
}

/// A chain that came back.
pub(super) struct Settled {
    pub(super) used: Used,
    /// Its ring descriptors.
    pub(super) count: u16,
}

impl<const N: usize> Tokens<N> {
    /// All of `size` tokens free.
    pub(super) fn new(size: u16) -> Self {
        let mut slots = [Slot { next: 0, count: 0, writable: 0 }; N];
        for (slot, next) in slots.iter_mut().zip(1..size) {
            slot.next = next;
        }
        let last_free = size.wrapping_sub(1);
        Self { slots, free: size, first_free: 0, last_free, outstanding: 0, oldest: 0, batch: None }
    }

    /// The token behind this one in its chain or in the free list.
    pub(super) fn next(&self, token: u16) -> u16 {
        self.slots.get(usize::from(token)).map_or(0, |slot| slot.next)
    }

    /// Takes the first `tokens` free ones, of which `last` is the last, for a chain of `count` ring
    /// descriptors that has the first one as its token.
    pub(super) fn take(&mut self, tokens: u16, last: u16, count: u16, writable: u32) -> u16 {
        let token = self.first_free;
        self.first_free = self.next(last);
        self.free = self.free.wrapping_sub(tokens);
        self.outstanding = self.outstanding.wrapping_add(1);
        if let Some(slot) = self.slots.get_mut(usize::from(token)) {
            (slot.count, slot.writable) = (count, writable);
        }
        token
    }

    /// The next chain that came back, as the used `entry` at `position` says. With `each`, every ring descriptor has a token.
    pub(super) fn settle(
        &mut self,
        entry: Used,
        position: u16,
        in_order: bool,
        each: bool,
    ) -> Result<Settled, DriverFault> {
        // An entry that names no chain would never be reached in order.
        let token = if in_order && self.count_of(entry.token) > 0 { self.oldest } else { entry.token };
        let unknown = DriverFault::UnknownToken { position, token: token.into() };
        let slot = self.slots.get_mut(usize::from(token)).ok_or(unknown)?;
        let count = core::mem::take(&mut slot.count);
        if count == 0 {
            return Err(unknown);
        }
        // Of the chains before the last of a batch the device wrote everything.
        let written = if token == entry.token { entry.written.min(slot.writable) } else { slot.writable };
        self.batch = (token != entry.token).then_some(entry);
        self.give(token, if each { count } else { 1 }, in_order);
        self.outstanding = self.outstanding.wrapping_sub(1);
        Ok(Settled { used: Used { token, written }, count })
    }

    /// The ring descriptors of the chain with this token; 0 when there is none.
    fn count_of(&self, token: u16) -> u16 {
        self.slots.get(usize::from(token)).map_or(0, |slot| slot.count)
    }

    /// The chain with this token, of `tokens` tokens, came back. In order tokens go round; otherwise the last one that came
    /// back is given out first, because its descriptors are in the processor's cache.
    fn give(&mut self, token: u16, tokens: u16, in_order: bool) {
        let mut last = token;
        for _ in 1..tokens {
            last = self.next(last);
        }
        self.oldest = self.next(last);
        let (link, target) = if in_order { (self.last_free, token) } else { (last, self.first_free) };
        let was_empty = self.free == 0;
        self.free = self.free.wrapping_add(tokens);
        if was_empty || !in_order {
            self.first_free = token;
        }
        if was_empty || in_order {
            self.last_free = last;
        }
        if let Some(slot) = self.slots.get_mut(usize::from(link)).filter(|_| !was_empty) {
            slot.next = target;
        }
    }
}
