//! What is mapped where in a shared memory region: numbers only.

use std::collections::BTreeMap;

use super::WindowError;

/// The most mappings of a region unless it is [set](super::SharedWindow::set_limit): as many chunks of 2 MiB as 16 GiB have. A
/// process has 65530 mappings for everything (`vm.max_map_count`), and each of these may take two of them.
pub const DEFAULT_LIMIT: usize = 8192;

/// What a back-end may do to mappings that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MapRules {
    /// Those of `SHMEM_MAP`: a mapping is made only where nothing is, and removed exactly as it was made.
    Exact,
    /// Those of the dialects of virtio-fs: a mapping takes the place of whatever is there, and any pages can be removed,
    /// whether something is mapped there or not.
    Replacing,
}

/// A mapping of a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Offset in the region, in bytes.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// Bytes of a page: it can be cut only between two.
    pub page: u64,
}

impl Mapped {
    fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// All mappings of a region. They do not overlap, and lie within it.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    size: u64,
    rules: MapRules,
    limit: usize,
    /// By their offsets: length and page.
    parts: BTreeMap<u64, (u64, u64)>,
}

impl Layout {
    pub(super) fn new(size: u64, rules: MapRules) -> Self {
        Self { size, rules, limit: DEFAULT_LIMIT, parts: BTreeMap::new() }
    }

    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    pub(super) fn clear(&mut self) {
        self.parts.clear();
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = Mapped> {
        self.parts.iter().map(|(offset, (length, page))| Mapped { offset: *offset, length: *length, page: *page })
    }

    /// Refuses what is no range of whole pages in the region.
    pub(super) fn check(&self, offset: u64, length: u64, page: u64) -> Result<(), WindowError> {
        if length == 0 {
            return Err(WindowError::Empty);
        }
        if offset.checked_add(length).is_none_or(|end| end > self.size) {
            return Err(WindowError::OutOfBounds { offset, length, size: self.size });
        }
        match [offset, length].into_iter().find(|number| !number.is_multiple_of(page)) {
            Some(found) => Err(WindowError::Misaligned { found, page }),
            None => Ok(()),
        }
    }

    /// Adds a mapping. Nothing changes if it is refused.
    pub(super) fn insert(&mut self, new: Mapped) -> Result<(), WindowError> {
        self.check(new.offset, new.length, new.page)?;
        if self.rules == MapRules::Exact
            && let Some(Mapped { offset, length, .. }) = self.overlapping(new.offset, new.end()).next()
        {
            return Err(WindowError::Occupied { offset, length });
        }
        self.cut(new.offset, new.end(), 1)?;
        self.parts.insert(new.offset, (new.length, new.page));
        Ok(())
    }

    /// Removes what is mapped in a range of pages of the system. Nothing changes if that is refused.
    pub(super) fn remove(&mut self, offset: u64, length: u64, page: u64) -> Result<(), WindowError> {
        self.check(offset, length, page)?;
        if self.rules == MapRules::Exact && self.parts.get(&offset).is_none_or(|(found, _)| *found != length) {
            return Err(WindowError::NotMapped { offset, length });
        }
        self.cut(offset, offset.saturating_add(length), 0)
    }

    /// Removes whatever has a byte from `start` to before `end`, as a whole.
    pub(super) fn take(&mut self, start: u64, end: u64) -> Vec<Mapped> {
        let hit = Vec::from_iter(self.overlapping(start, end));
        for part in &hit {
            self.parts.remove(&part.offset);
        }
        hit
    }

    /// The mappings that have a byte from `start` to before `end`, the last one first.
    fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = Mapped> {
        let before_end = self.parts.range(..end).rev();
        let all = before_end.map(|(offset, (length, page))| Mapped { offset: *offset, length: *length, page: *page });
        all.take_while(move |part| part.end() > start)
    }

    /// Takes these bytes out of whatever is mapped there, where `added` mappings more will be.
    fn cut(&mut self, start: u64, end: u64, added: usize) -> Result<(), WindowError> {
        let hit = Vec::from_iter(self.overlapping(start, end));
        let mut rests = Vec::new();
        for part in &hit {
            let before = (part.offset, start.saturating_sub(part.offset));
            let after = (end, part.end().saturating_sub(end));
            for (offset, length) in [before, after].into_iter().filter(|(_, length)| *length > 0) {
                if !length.is_multiple_of(part.page) {
                    return Err(WindowError::Misaligned { found: length, page: part.page });
                }
                rests.push((offset, (length, part.page)));
            }
        }
        if self.parts.len() - hit.len() + rests.len() + added > self.limit {
            return Err(WindowError::TooMany { limit: self.limit });
        }
        for part in &hit {
            self.parts.remove(&part.offset);
        }
        self.parts.extend(rests);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u64 = 0x1000;

    fn layout(rules: MapRules, parts: &[(u64, u64)]) -> Layout {
        let mut layout = Layout::new(16 * PAGE, rules);
        for (offset, length) in parts {
            layout.insert(mapped(*offset, *length)).unwrap();
        }
        layout
    }

    fn mapped(offset: u64, length: u64) -> Mapped {
        Mapped { offset: offset * PAGE, length: length * PAGE, page: PAGE }
    }

    fn parts(layout: &Layout) -> Vec<(u64, u64)> {
        layout.iter().map(|part| (part.offset / PAGE, part.length / PAGE)).collect()
    }

    #[test]
    fn what_is_outside_empty_or_no_whole_page_is_refused() {
        let mut layout = layout(MapRules::Replacing, &[]);
        let mut refused = |offset, length| layout.insert(Mapped { offset, length, page: PAGE }).unwrap_err();
        let size = 16 * PAGE;
        assert_eq!(refused(0, 0), WindowError::Empty);
        for (offset, length) in [(0, size + PAGE), (size, PAGE), (u64::MAX - PAGE + 1, PAGE), (PAGE, u64::MAX)] {
            assert_eq!(refused(offset, length), WindowError::OutOfBounds { offset, length, size });
        }
        assert_eq!(refused(1, PAGE), WindowError::Misaligned { found: 1, page: PAGE });
        assert_eq!(refused(0, 0x800), WindowError::Misaligned { found: 0x800, page: PAGE });
        assert_eq!(layout.remove(0x10, PAGE, PAGE), Err(WindowError::Misaligned { found: 0x10, page: PAGE }));
        assert!(parts(&layout).is_empty());
        assert_eq!(layout.insert(mapped(0, 16)), Ok(()));
    }

    #[test]
    fn exact_rules_let_nothing_be_replaced_or_cut() {
        let mut layout = layout(MapRules::Exact, &[(2, 3), (8, 1)]);
        for (offset, length) in [(2, 3), (1, 2), (4, 1), (0, 16), (3, 6)] {
            assert!(matches!(layout.insert(mapped(offset, length)), Err(WindowError::Occupied { .. })));
        }
        for (offset, length) in [(2, 2), (3, 2), (1, 4), (0, 1), (2, 7)] {
            let (offset, length) = (offset * PAGE, length * PAGE);
            assert_eq!(layout.remove(offset, length, PAGE), Err(WindowError::NotMapped { offset, length }));
        }
        assert_eq!(layout.insert(mapped(5, 3)), Ok(()));
        assert_eq!(layout.remove(2 * PAGE, 3 * PAGE, PAGE), Ok(()));
        assert_eq!(parts(&layout), [(5, 3), (8, 1)]);
    }

    #[test]
    fn other_rules_cut_whatever_is_there() {
        let mut layout = layout(MapRules::Replacing, &[(0, 4), (4, 4), (10, 6)]);
        layout.insert(mapped(3, 2)).unwrap();
        assert_eq!(parts(&layout), [(0, 3), (3, 2), (5, 3), (10, 6)]);
        layout.remove(12 * PAGE, PAGE, PAGE).unwrap();
        layout.remove(9 * PAGE, PAGE, PAGE).unwrap();
        assert_eq!(parts(&layout), [(0, 3), (3, 2), (5, 3), (10, 2), (13, 3)]);
        layout.remove(PAGE, 13 * PAGE, PAGE).unwrap();
        assert_eq!(parts(&layout), [(0, 1), (14, 2)]);
    }

    #[test]
    fn huge_pages_are_cut_only_between_two() {
        let mut layout = layout(MapRules::Replacing, &[]);
        layout.insert(Mapped { offset: 0, length: 8 * PAGE, page: 4 * PAGE }).unwrap();
        let misaligned = |found| Err(WindowError::Misaligned { found: found * PAGE, page: 4 * PAGE });
        assert_eq!(layout.remove(PAGE, 4 * PAGE, PAGE), misaligned(1));
        assert_eq!(layout.insert(mapped(4, 3)), misaligned(1));
        assert_eq!(parts(&layout), [(0, 8)]);
        layout.remove(4 * PAGE, 4 * PAGE, PAGE).unwrap();
        assert_eq!(parts(&layout), [(0, 4)]);
    }

    #[test]
    fn the_limit_counts_what_would_be_left() {
        let mut layout = layout(MapRules::Replacing, &[(0, 3), (4, 1)]);
        layout.set_limit(2);
        let too_many = Err(WindowError::TooMany { limit: 2 });
        assert_eq!(layout.insert(mapped(6, 1)), too_many);
        assert_eq!(layout.remove(PAGE, PAGE, PAGE), too_many);
        assert_eq!(parts(&layout), [(0, 3), (4, 1)]);
        layout.insert(mapped(2, 3)).unwrap();
        assert_eq!(parts(&layout), [(0, 2), (2, 3)]);
    }
}
