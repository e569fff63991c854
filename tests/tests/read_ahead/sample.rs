//! The messages of each channel.

use vhost_core::{Channel, Dialect};
use vhost_tests::wire::{self, Fixture, REPLY, REQUEST, header};

/// A message with the number of its descriptors, and whether that follows from the message itself.
#[derive(Clone)]
pub(crate) struct Sample {
    pub(crate) bytes: Vec<u8>,
    pub(crate) image: Vec<u8>,
    pub(crate) handles: usize,
    pub(crate) tells: bool,
}

impl Sample {
    fn new(bytes: Vec<u8>, handles: usize, tells: bool) -> Self {
        Self { bytes, image: Vec::new(), handles, tells }
    }

    /// All bytes that are sent.
    pub(crate) fn whole(&self) -> Vec<u8> {
        [&self.bytes[..], &self.image].concat()
    }
}

/// Those of the main channel.
pub(crate) fn frontend() -> Vec<Sample> {
    of_fixtures(&wire::all_frontend_forms(), |fixture| {
        // The last word in the exchange about a region in postcopy looks like a region.
        let is_last_word = fixture.name == "ADD_MEM_REG" && fixture.descriptors == 0;
        !["SET_LOG_BASE", "REM_MEM_REG", "SET_DEVICE_STATE_FD"].contains(&fixture.name) && !is_last_word
    })
}

/// Those of the back-end's channel: today's, and what an older dialect has in the place of some.
pub(crate) fn backend(dialect: Dialect) -> Vec<Sample> {
    let ids: &[u32] = match dialect {
        Dialect::FsA1 => &[4, 5, 6, 7],
        Dialect::FsA2 => &[6, 7, 8, 9],
        Dialect::Private1000 => &[1000, 1001, 1002, 1003],
        Dialect::Crosvm1002 => &[1002, 1003, 1004, 1005],
        _ => &[],
    };
    let mut fixtures = wire::all_backend_forms();
    fixtures.retain(|fixture| !ids.contains(&fixture.id));
    let mut all = of_fixtures(&fixtures, |_| true);
    let message = |id| [&header(id, REQUEST, 256)[..], &[0; 256]].concat();
    if let [map, unmap, synchronise, access] = *ids {
        all.push(Sample::new(message(map), 1, true));
        all.push(Sample::new(message(unmap), 0, true));
        all.push(Sample::new(message(synchronise), 0, true));
        // Reading or writing a file: the descriptor is optional.
        all.push(Sample::new(message(access), 0, false));
        all.push(Sample::new(message(access), 1, false));
    }
    all
}

fn of_fixtures(fixtures: &[Fixture], tells: impl Fn(&Fixture) -> bool) -> Vec<Sample> {
    let mut all = Vec::new();
    for fixture in fixtures {
        all.push(Sample::new(fixture.request(), fixture.descriptors, tells(fixture)));
        for answer in fixture.answers() {
            all.push(Sample::new(answer.message(fixture.id), answer.descriptors, false));
        }
    }
    all.retain(|sample| sample.bytes.len() < 400);
    all
}

/// Those of the GPU channel, with images of different sizes.
pub(crate) fn gpu() -> Vec<Sample> {
    let message = |id: u32, size: usize, fill: u8, handles: usize| {
        Sample::new([&header(id, 0, size as u32)[..], &vec![fill; size]].concat(), handles, true)
    };
    let mut all = vec![
        message(1, 0, 0, 0),
        message(4, 12, 1, 0),
        message(7, 12, 1, 0),
        message(9, 40, 1, 1),
        message(9, 40, 0, 0),
        message(12, 48, 1, 1),
        message(12, 48, 0, 0),
        Sample::new([&header(1, REPLY & !1, 8)[..], &[0; 8]].concat(), 0, false),
    ];
    for size in [0, 1, 4, 11, 12, 13, 100, 300] {
        let front = [&header(8, 0, 20 + size as u32)[..], &[1; 20]].concat();
        let image = (0..251).cycle().take(size).collect();
        all.push(Sample { image, ..Sample::new(front, 0, true) });
    }
    all
}

/// Every channel with its messages.
pub(crate) fn channels() -> Vec<(Channel, Dialect, Vec<Sample>)> {
    let backend = |dialect| (Channel::Backend, dialect, self::backend(dialect));
    vec![
        (Channel::Frontend, Dialect::Standard, frontend()),
        (Channel::Gpu, Dialect::Standard, gpu()),
        backend(Dialect::Standard),
        backend(Dialect::FsA1),
        backend(Dialect::FsA2),
        backend(Dialect::Private1000),
        backend(Dialect::Crosvm1002),
    ]
}
