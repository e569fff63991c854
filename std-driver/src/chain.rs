//! One request of the driver: a descriptor chain, checked and translated, as bytes to read and bytes to write.
//!
//! The bytes are guest memory: another processor may change them at any moment. [`Segments::read`] therefore *consumes*
//! what it copies, so that nothing is decided twice on bytes that were fetched twice.

use core::fmt;

use vm_memory::VolatileSlice;

use crate::memory::{WriteLog, copy_in, copy_out, read_u128};

/// A descriptor chain taken from a ring, to be handed back with [`Queue::complete`](crate::device::Queue::complete).
///
/// Every slice lies inside guest memory and is not empty; all readable ones come before all writable ones.
#[must_use = "a chain belongs back into its ring: Queue::complete"]
pub struct Chain<'m> {
    token: vhost_core::Chain,
    slices: Vec<VolatileSlice<'m>>,
    /// Where writes are logged, while a front-end migrates the guest.
    log: Option<&'m WriteLog<'m>>,
}

impl<'m> Chain<'m> {
    /// `slices` holds the readable ones first, as `token` says.
    pub(crate) fn new(token: vhost_core::Chain, slices: Vec<VolatileSlice<'m>>, log: Option<&'m WriteLog<'m>>) -> Self {
        Self { token, slices, log }
    }

    /// What goes back into the ring, and the vector of slices, for the next chain to fill.
    pub(crate) fn into_parts(self) -> (vhost_core::Chain, Vec<VolatileSlice<'m>>) {
        (self.token, self.slices)
    }

    /// Logs what the device says that it wrote, if a migration is under way: what there is of so many bytes.
    #[inline]
    pub(crate) fn log_written(&self, count: u32) {
        if self.log.is_some() {
            let writable = self.writable();
            let count = u64::from(count).min(writable.len());
            if let Ok((written, _)) = writable.split_front(count) {
                written.log();
            }
        }
    }

    /// By what the driver knows the chain: in a split ring its first descriptor, in a packed one its buffer id.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.token.id()
    }

    /// The bytes the driver wrote for the device.
    #[inline]
    #[must_use]
    pub fn readable(&self) -> Readable<'_> {
        let (readable, _) = self.token.split(&self.slices);
        Segments::new(readable, self.token.readable_len().into())
    }

    /// The bytes the device may write for the driver.
    #[inline]
    #[must_use]
    pub fn writable(&self) -> Writable<'_> {
        let (_, writable) = self.token.split(&self.slices);
        Segments { direction: ToDriver { log: self.log }, ..Segments::new(writable, self.token.writable_len().into()) }
    }
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain").field("token", &self.token).finish_non_exhaustive()
    }
}

/// Marks bytes that the driver wrote and the device reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct FromDriver(());

/// Marks bytes that the device writes and the driver reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct ToDriver<'a> {
    log: Option<&'a WriteLog<'a>>,
}

/// The readable bytes of a chain, or a part of them.
pub type Readable<'a> = Segments<'a, FromDriver>;

/// The writable bytes of a chain, or a part of them.
pub type Writable<'a> = Segments<'a, ToDriver<'a>>;

/// A run of bytes that lies scattered over guest memory: a cheap view that can be cut, copied and walked through.
pub struct Segments<'a, Direction> {
    slices: &'a [VolatileSlice<'a>],
    /// Bytes of the first slice that lie before the view.
    skip: usize,
    /// Bytes of the view, never more than the slices hold after `skip`.
    len: u64,
    direction: Direction,
}

impl<'a, Direction: Copy> Segments<'a, Direction> {
    pub(crate) fn new(slices: &'a [VolatileSlice<'a>], len: u64) -> Self
    where
        Direction: Default,
    {
        Self { slices, skip: 0, len, direction: Direction::default() }
    }

    /// Bytes in view.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True when no byte is in view.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The pieces of guest memory in order, none of them empty.
    ///
    /// What a device writes there by itself must be counted when the chain is completed: only these bytes, and those that
    /// were written by methods, are logged for a migration.
    pub fn slices(&self) -> impl Iterator<Item = VolatileSlice<'a>> + use<'a, Direction> {
        let (mut skip, mut left) = (self.skip, self.len);
        self.slices.iter().map_while(move |slice| {
            let rest = slice.offset(core::mem::take(&mut skip)).ok()?;
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
            left = left.saturating_sub(wanted as u64);
            if wanted == 0 { None } else { rest.subslice(0, wanted).ok() }
        })
    }

    /// The piece of guest memory that all bytes in view lie in, if it is one.
    #[inline]
    pub(crate) fn only(&self) -> Option<VolatileSlice<'a>> {
        let length = usize::try_from(self.len).ok()?;
        self.slices.first()?.subslice(self.skip, length).ok()
    }

    /// Moves the start of the view `count` bytes on, which are in view and all in the first slice.
    #[inline]
    fn skip_in_first(&mut self, count: usize) {
        self.len = self.len.saturating_sub(count as u64);
        self.skip = self.skip.saturating_add(count);
        if let Some((first, others)) = self.slices.split_first()
            && self.skip >= first.len()
        {
            (self.slices, self.skip) = (others, 0);
        }
    }

    /// Moves the start of the view `count` bytes on.
    ///
    /// # Errors
    /// When fewer bytes are in view; the view stays as it was.
    pub fn skip(&mut self, count: u64) -> Result<(), TooShort> {
        *self = self.split_front(count)?.1;
        Ok(())
    }

    /// The first `count` bytes, and the rest.
    ///
    /// # Errors
    /// When fewer bytes are in view.
    #[inline]
    pub fn split_front(&self, count: u64) -> Result<(Self, Self), TooShort> {
        let too_short = TooShort { wanted: count, available: self.len };
        let rest_len = self.len.checked_sub(count).ok_or(too_short)?;
        let front = Self { len: count, ..*self };
        if rest_len == 0 {
            return Ok((front, Self { slices: &[], skip: 0, len: 0, ..*self }));
        }
        let (mut slices, mut skip, mut left) = (self.slices, self.skip, count);
        while let Some((first, others)) = slices.split_first() {
            let here = first.len().saturating_sub(skip);
            match usize::try_from(left) {
                Ok(inside) if inside < here => {
                    skip = skip.saturating_add(inside);
                    break;
                }
                _ => {
                    left = left.saturating_sub(here as u64);
                    (slices, skip) = (others, 0);
                }
            }
        }
        Ok((front, Self { slices, skip, len: rest_len, ..*self }))
    }

    /// Everything before the last `count` bytes, and these.
    ///
    /// # Errors
    /// When fewer bytes are in view.
    #[inline]
    pub fn split_back(&self, count: u64) -> Result<(Self, Self), TooShort> {
        let front = self.len.checked_sub(count).ok_or(TooShort { wanted: count, available: self.len })?;
        self.split_front(front)
    }
}

impl Readable<'_> {
    /// Copies the next `out.len()` bytes and moves past them.
    ///
    /// # Errors
    /// When fewer bytes are in view; then nothing is copied and the view stays as it was.
    #[inline(always)]
    pub fn read(&mut self, out: &mut [u8]) -> Result<(), TooShort> {
        if let Some(first) = self.slices.first()
            && out.len() as u64 <= self.len
            && copy_out(first, self.skip, out).is_some()
        {
            self.skip_in_first(out.len());
            return Ok(());
        }
        *self = self.read_scattered(out)?;
        Ok(())
    }

    /// Copies the next sixteen bytes, as a little-endian number, and moves past them.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    #[inline]
    pub(crate) fn read_u128(&mut self) -> Result<u128, TooShort> {
        if let Some(first) = self.slices.first()
            && size_of::<u128>() as u64 <= self.len
            && let Some(number) = read_u128(first, self.skip)
        {
            self.skip_in_first(size_of::<u128>());
            return Ok(number);
        }
        let mut bytes = [0; size_of::<u128>()];
        *self = self.read_scattered(&mut bytes)?;
        Ok(u128::from_le_bytes(bytes))
    }

    /// The view behind the bytes that were read.
    #[cold]
    fn read_scattered(self, out: &mut [u8]) -> Result<Self, TooShort> {
        let (wanted, rest) = self.split_front(out.len() as u64)?;
        let mut out = out;
        for slice in wanted.slices() {
            let copied = slice.copy_to(out);
            out = out.get_mut(copied..).unwrap_or_default();
        }
        Ok(rest)
    }
}

impl Writable<'_> {
    /// Copies `bytes` to the start of the view and moves past them.
    ///
    /// # Errors
    /// When fewer bytes are in view; then nothing is written and the view stays as it was.
    #[inline(always)]
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), TooShort> {
        if let Some(first) = self.slices.first()
            && bytes.len() as u64 <= self.len
            && !self.is_logged()
            && copy_in(first, self.skip, bytes).is_some()
        {
            self.skip_in_first(bytes.len());
            return Ok(());
        }
        *self = self.write_scattered(bytes)?;
        Ok(())
    }

    /// The view behind the bytes that were written.
    #[cold]
    fn write_scattered(self, bytes: &[u8]) -> Result<Self, TooShort> {
        let (target, rest) = self.split_front(bytes.len() as u64)?;
        let mut bytes = bytes;
        for slice in target.slices() {
            slice.copy_from(bytes);
            bytes = bytes.get(slice.len()..).unwrap_or_default();
        }
        target.log();
        Ok(rest)
    }

    /// Overwrites every byte in view with zero.
    #[inline]
    pub fn fill_zero(&self) {
        if !self.is_empty() {
            self.fill_bytes_with_zero();
        }
    }

    fn fill_bytes_with_zero(&self) {
        const ZEROES: [u8; 4096] = [0; 4096];
        for slice in self.slices() {
            let mut rest = slice;
            while !rest.is_empty() {
                rest.copy_from(&ZEROES);
                match rest.offset(rest.len().min(ZEROES.len())) {
                    Ok(next) => rest = next,
                    Err(_) => break,
                }
            }
        }
        self.log();
    }

    /// Whether a migration is under way, for which writes are logged.
    #[inline]
    pub(crate) fn is_logged(&self) -> bool {
        self.direction.log.is_some()
    }

    /// Logs that every byte in view was written, if a migration is under way.
    #[inline]
    pub(crate) fn log(&self) {
        if let Some(log) = self.direction.log {
            self.slices().for_each(|slice| log.mark(&slice));
        }
    }
}

impl<Direction: Copy> Clone for Segments<'_, Direction> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Direction: Copy> Copy for Segments<'_, Direction> {}

impl<Direction> fmt::Debug for Segments<'_, Direction> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Segments").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Part of a chain has fewer bytes than were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooShort {
    /// Bytes asked for.
    pub wanted: u64,
    /// Bytes there are.
    pub available: u64,
}

impl fmt::Display for TooShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of the descriptor chain wanted, {} available", self.wanted, self.available)
    }
}

impl core::error::Error for TooShort {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Readable bytes 0..10 in slices of 3, 4, 3 bytes, and 6 writable ones in slices of 2 and 4.
    struct Parts<'a>([VolatileSlice<'a>; 5]);

    impl Parts<'_> {
        fn readable(&self) -> Readable<'_> {
            Segments::new(&self.0[..3], 10)
        }

        fn writable(&self) -> Writable<'_> {
            Segments::new(&self.0[3..], 6)
        }
    }

    fn with_chain(test: impl FnOnce(&Parts<'_>)) -> Vec<u8> {
        let mut bytes: Vec<u8> = (0..10).chain([0xff; 6]).collect();
        let (a, rest) = bytes.split_at_mut(3);
        let (b, rest) = rest.split_at_mut(4);
        let (c, rest) = rest.split_at_mut(3);
        let (d, e) = rest.split_at_mut(2);
        test(&Parts([a, b, c, d, e].map(VolatileSlice::from)));
        bytes
    }

    fn contents(segments: Readable<'_>) -> Vec<u8> {
        let mut segments = segments;
        let mut out = vec![0; usize::try_from(segments.len()).unwrap()];
        segments.read(&mut out).unwrap();
        assert!(segments.is_empty());
        out
    }

    #[test]
    fn a_header_split_over_slices_is_read_once_and_consumed() {
        with_chain(|chain| {
            let mut readable = chain.readable();
            let mut header = [0; 5];
            readable.read(&mut header).unwrap();
            assert_eq!((header, readable.len()), ([0, 1, 2, 3, 4], 5));
            assert_eq!(contents(readable), [5, 6, 7, 8, 9]);
        });
    }

    #[test]
    fn every_cut_keeps_every_byte() {
        with_chain(|chain| {
            for at in 0..=10_u8 {
                let (front, back) = chain.readable().split_front(at.into()).unwrap();
                assert_eq!(contents(front), (0..at).collect::<Vec<_>>());
                assert_eq!(contents(back), (at..10).collect::<Vec<_>>());
                let (front, back) = chain.readable().split_back(at.into()).unwrap();
                assert_eq!(contents(front), (0..10 - at).collect::<Vec<_>>());
                assert_eq!(contents(back), (10 - at..10).collect::<Vec<_>>());
                for again in 0..=10 - at {
                    let mut middle = chain.readable();
                    middle.skip(at.into()).unwrap();
                    let (middle, last) = middle.split_front(again.into()).unwrap();
                    assert_eq!(contents(middle), (at..at + again).collect::<Vec<_>>());
                    assert_eq!(contents(last), (at + again..10).collect::<Vec<_>>());
                    assert_eq!(middle.slices().map(|slice| slice.len() as u64).sum::<u64>(), middle.len());
                    assert!(middle.slices().all(|slice| !slice.is_empty()));
                }
            }
        });
    }

    #[test]
    fn too_few_bytes_change_nothing() {
        let bytes = with_chain(|chain| {
            let short = TooShort { wanted: 11, available: 10 };
            let mut readable = chain.readable();
            let mut out = [0xaa; 11];
            assert_eq!(readable.read(&mut out), Err(short));
            assert_eq!(readable.skip(11), Err(short));
            assert_eq!(readable.split_back(11).unwrap_err(), short);
            assert_eq!((out, readable.len()), ([0xaa; 11], 10));
            let mut writable = chain.writable();
            assert_eq!(writable.write(&[1; 7]), Err(TooShort { wanted: 7, available: 6 }));
            assert_eq!(writable.len(), 6);
        });
        assert_eq!(bytes[10..], [0xff; 6]);
    }

    #[test]
    fn writes_land_in_order_across_slices() {
        let bytes = with_chain(|chain| {
            let mut writable = chain.writable();
            let (_, mut status) = writable.split_back(1).unwrap();
            writable.write(&[1, 2, 3]).unwrap();
            assert_eq!(writable.len(), 3);
            status.write(&[9]).unwrap();
        });
        assert_eq!(bytes[10..], [1, 2, 3, 0xff, 0xff, 9]);
    }

    #[test]
    fn filling_with_zeroes_stays_inside_the_view() {
        let bytes = with_chain(|chain| {
            let (data, _) = chain.writable().split_back(1).unwrap();
            data.fill_zero();
        });
        assert_eq!(bytes[10..], [0, 0, 0, 0, 0, 0xff]);

        let mut large = vec![1; 10_000];
        Writable::new(&[VolatileSlice::from(large.as_mut_slice())], 10_000).fill_zero();
        assert!(large.iter().all(|byte| *byte == 0));
    }
}
