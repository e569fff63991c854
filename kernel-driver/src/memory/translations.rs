//! Which memory the kernel reaches through its IOTLB.

use std::sync::Arc;

use vhost_core::Iova;
use vhost_std::memory::MappedRegion;

/// The regions behind the IOTLB's entries.
///
/// The kernel may have dropped some of them by itself; holding a region for longer than needed does no harm.
#[derive(Debug, Default)]
pub(crate) struct Translations(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    asid: u32,
    first: u64,
    last: u64,
    region: Arc<MappedRegion>,
}

impl Translations {
    /// The kernel was told that `size` bytes at `iova`, one or more, are in `region`.
    pub(crate) fn add(&mut self, asid: u32, iova: Iova, size: u64, region: &Arc<MappedRegion>) {
        let last = iova.0.saturating_add(size - 1);
        let known = |entry: &Entry| {
            (entry.asid, entry.first, entry.last) == (asid, iova.0, last) && Arc::ptr_eq(&entry.region, region)
        };
        if !self.0.iter().any(known) {
            self.0.push(Entry { asid, first: iova.0, last, region: Arc::clone(region) });
        }
    }

    /// The kernel was told to forget this range. It drops every entry that has a part in it as a whole.
    pub(crate) fn remove(&mut self, asid: u32, iova: Iova, size: u64) {
        let Some(to_last) = size.checked_sub(1) else { return };
        // The kernel's sum wraps too, and what it keeps must stay mapped.
        let last = iova.0.wrapping_add(to_last);
        self.0.retain(|entry| entry.asid != asid || entry.last < iova.0 || entry.first > last);
    }
}

#[cfg(test)]
mod tests {
    use vhost_std::memory::MemoryFile;

    use super::*;

    #[test]
    fn a_region_is_held_until_every_range_in_it_is_invalidated() {
        let file = MemoryFile::create("translations", 0, 0x4000).unwrap();
        let region = file.mapped();
        let mut translations = Translations::default();
        let holders = Arc::strong_count(region);
        translations.add(0, Iova(0x1000), 0x1000, region);
        translations.add(0, Iova(0x1000), 0x1000, region);
        translations.add(1, Iova(0x1000), 0x1000, region);
        translations.add(0, Iova(u64::MAX - 0xfff), 0x1000, region);
        assert_eq!(Arc::strong_count(region), holders + 3);
        translations.remove(0, Iova(0), 0x1000);
        translations.remove(0, Iova(0x2000), 0x1000);
        translations.remove(0, Iova(0x1000), 0);
        // It ends below its beginning, and so removes nothing in the kernel either.
        translations.remove(0, Iova(0x1000), u64::MAX);
        assert_eq!(Arc::strong_count(region), holders + 3, "none of these has a part of an entry");
        translations.remove(0, Iova(0x1fff), 1);
        assert_eq!(Arc::strong_count(region), holders + 2, "one byte of an entry takes all of it away");
        translations.remove(1, Iova(0), u64::MAX);
        translations.remove(0, Iova(u64::MAX), 1);
        assert_eq!(Arc::strong_count(region), holders);
    }
}
