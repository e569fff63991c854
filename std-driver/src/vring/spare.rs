//! Keeps the memory of slice vectors from one batch to the next, so that taking a chain allocates nothing.

use vm_memory::VolatileSlice;

/// As large as a slice and aligned like one, but without its borrow of guest memory, which ends with the batch.
type Blank = [usize; size_of::<VolatileSlice<'static>>() / size_of::<usize>()];

/// Vectors kept; a device that takes more chains at once pays for the rest.
const KEPT_VECTORS: usize = 64;

/// Slices a kept vector may have room for; a hostile driver cannot make the ring hoard more.
const KEPT_SLICES: usize = 2048;

/// Empty vectors that still own their memory.
#[derive(Debug, Default)]
pub(super) struct Spares(Vec<Vec<Blank>>);

/// The same vectors, ready to be filled during one batch.
pub(super) struct Lent<'m>(Vec<Vec<VolatileSlice<'m>>>);

impl Spares {
    pub(super) fn lend<'m>(&mut self) -> Lent<'m> {
        Lent(core::mem::take(&mut self.0).into_iter().map(emptied).collect())
    }

    pub(super) fn keep(&mut self, lent: Lent<'_>) {
        self.0 = lent.0.into_iter().map(emptied).collect();
    }
}

impl<'m> Lent<'m> {
    /// An empty vector.
    pub(super) fn take(&mut self) -> Vec<VolatileSlice<'m>> {
        self.0.pop().unwrap_or_default()
    }

    /// For the next chain.
    pub(super) fn give(&mut self, mut slices: Vec<VolatileSlice<'m>>) {
        if self.0.len() < KEPT_VECTORS && slices.capacity() <= KEPT_SLICES {
            slices.clear();
            self.0.push(slices);
        }
    }
}

/// The memory of `from`, without its elements. The standard library collects in place where both types have the same
/// layout; if it ever stopped doing so, this would cost an allocation and stay right.
fn emptied<From, To>(from: Vec<From>) -> Vec<To> {
    let mut from = from;
    from.clear();
    from.into_iter().filter_map(|_| None).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_survives_from_batch_to_batch() {
        let mut spares = Spares::default();
        let mut bytes = [0; 8];
        let mut lent = spares.lend();
        let mut slices = lent.take();
        slices.extend([VolatileSlice::from(bytes.as_mut_slice()); 5]);
        let (place, capacity) = (slices.as_ptr().addr(), slices.capacity());
        lent.give(slices);
        let list = lent.0.as_ptr().addr();
        spares.keep(lent);

        let mut lent = spares.lend();
        assert_eq!(lent.0.as_ptr().addr(), list);
        let slices = lent.take();
        assert_eq!((slices.as_ptr().addr(), slices.capacity(), slices.len()), (place, capacity, 0));
    }

    #[test]
    fn no_more_than_a_bound_is_kept() {
        let mut lent = Spares::default().lend();
        for _ in 0..KEPT_VECTORS + 5 {
            lent.give(Vec::with_capacity(1));
        }
        assert_eq!(lent.0.len(), KEPT_VECTORS);
        let mut lent = Spares::default().lend();
        lent.give(Vec::with_capacity(KEPT_SLICES + 1));
        assert_eq!(lent.0.len(), 0);
    }
}
