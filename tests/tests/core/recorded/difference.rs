//! Where a recorded byte may differ from ours, and the check that nothing is allowed for nothing.

use core::cell::Cell;
use core::ops::Range;
use vhost_tests::vectors::{Direction, Message};

/// Bytes that a real program sends otherwise than we do.
pub(super) struct Difference {
    /// How the names of the sessions begin.
    pub(super) sessions: &'static str,
    /// Who sends it.
    pub(super) direction: Direction,
    /// The requests, or the requests that are answered.
    pub(super) ids: &'static [u32],
    /// The bytes of the message.
    pub(super) bytes: Range<usize>,
    /// Why.
    pub(super) reason: &'static str,
}

/// A list of differences that notices which of them are there.
pub(super) struct Differences {
    list: Vec<(Difference, Cell<usize>)>,
}

impl Differences {
    pub(super) fn new(list: impl IntoIterator<Item = Difference>) -> Self {
        Self { list: list.into_iter().map(|difference| (difference, Cell::new(0))).collect() }
    }

    /// Fails unless ours is what was recorded, but for the bytes of the list.
    #[track_caller]
    pub(super) fn compare(&self, session: &str, message: &Message, ours: &[u8]) {
        let recorded = message.bytes();
        let title =
            || format!("{session}: {} {:?}: ours {ours:02x?}, recorded {recorded:02x?}", message.name, message.header);
        assert_eq!(ours.len(), recorded.len(), "{}", title());
        let different = (0..ours.len()).filter(|&place| ours[place] != recorded[place]);
        for place in different {
            let (_, seen) = self
                .list
                .iter()
                .find(|(difference, _)| difference.covers(session, message, place))
                .unwrap_or_else(|| panic!("byte {place}: {}", title()));
            seen.set(seen.get() + 1);
        }
    }

    /// Fails if a difference was listed that is none.
    #[track_caller]
    pub(super) fn assert_all_seen(&self) {
        for (difference, seen) in &self.list {
            assert!(
                seen.get() > 0,
                "no longer different: {} {:?}: {}",
                difference.sessions,
                difference.ids,
                difference.reason
            );
        }
    }
}

impl Difference {
    fn covers(&self, session: &str, message: &Message, place: usize) -> bool {
        session.starts_with(self.sessions)
            && message.direction == self.direction
            && self.ids.contains(&message.header.request)
            && self.bytes.contains(&place)
    }
}

/// The byte of the flags that has a meaning.
pub(super) const FLAGS: Range<usize> = if cfg!(target_endian = "big") { 7..8 } else { 4..5 };
