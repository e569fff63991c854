//! The dialects of the back-end's channel: how older peers ask for mappings in a virtio-fs DAX window.
//!
//! Before the specification had `SHMEM_MAP`, virtio-fs devices used requests of their own, whose ids mean something else
//! today. No feature bit tells them apart, so a session's dialect is part of its configuration.

mod mappings;

use core::fmt;

use crate::{
    assembler::Frame,
    error::{ApiMisuse, DecodeError},
    rules::Violation,
    wire::{
        backend_request::BackendCode,
        fs_cache::{CacheAccess, Layout},
        payload::Form,
        row::{Channel, MessageName},
    },
};

pub use mappings::MapChange;

/// What a session's back-end channel speaks.
///
/// All dialects but the standard add four requests to the back-end's: map, unmap, synchronise and
/// read or write files in a device's cache window ([`BackendCode::FS_MAP`] and the three after it).
/// They differ in ids and layout; a standard request whose id they use cannot be said in them. They
/// need `BACKEND_REQ` and `BACKEND_SEND_FD`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Dialect {
    /// Today's requests only.
    #[default]
    Standard,
    /// Ids 4 to 7: Cloud Hypervisor and rust-vmm in the first half of 2020.
    FsA1,
    /// Ids 6 to 9: rust-vmm from July 2020 on, QEMU's virtio-fs branch of 2020, the C virtiofsd.
    FsA2,
    /// Ids 6 to 8 with flags in front: a QEMU branch that drops `CAP_FSETID` when asked to. The
    /// front-end requests 39 and 40 of that branch, which start and stop this channel, are not
    /// spoken: they are `SET_STATUS` and `GET_STATUS` today. Nor is 9, which answers them.
    FsA2Gen,
    /// Ids 6 to 8 with a list of entries: what was proposed to QEMU in 2021.
    FsB,
    /// Ids 1000 to 1003: rust-vmm in 2023 and 2024.
    Private1000,
    /// Ids 1002 to 1005: crosvm.
    Crosvm1002,
    /// For a front-end: [`Self::FsA1`] or [`Self::FsA2`], whichever the first request of 256 bytes
    /// belongs to, which none of today's has. From then on the session speaks that dialect. Until
    /// then, and always for a back-end, it is the standard one.
    Auto,
}

/// One line of the table of dialects.
#[derive(Clone, Copy, Debug)]
struct Row {
    dialect: Dialect,
    layout: Layout,
    /// The ids of map, unmap, synchronise and read or write.
    ids: [Option<u32>; 4],
    /// The ids of what the dialect says besides and is not spoken here.
    others: &'static [u32],
}

impl Row {
    const fn new(dialect: Dialect, layout: Layout, ids: [Option<u32>; 4]) -> Self {
        Self { dialect, layout, ids, others: &[] }
    }
}

/// The requests that the ids of a line stand for.
const CODES: [BackendCode; 4] = [BackendCode::FS_MAP, BackendCode::FS_UNMAP, BackendCode::FS_SYNC, BackendCode::FS_IO];

const ROWS: [Row; 6] = [
    Row::new(Dialect::FsA1, Layout::Columns, [Some(4), Some(5), Some(6), Some(7)]),
    Row::new(Dialect::FsA2, Layout::Columns, [Some(6), Some(7), Some(8), Some(9)]),
    Row { others: &[9], ..Row::new(Dialect::FsA2Gen, Layout::FlagsAndColumns, [Some(6), Some(7), None, Some(8)]) },
    Row::new(Dialect::FsB, Layout::List, [Some(6), Some(7), None, Some(8)]),
    Row::new(Dialect::Private1000, Layout::Columns, [Some(1000), Some(1001), Some(1002), Some(1003)]),
    Row::new(Dialect::Crosvm1002, Layout::Columns, [Some(1002), Some(1003), Some(1004), Some(1005)]),
];

impl Dialect {
    fn row(self) -> Option<&'static Row> {
        ROWS.iter().find(|row| row.dialect == self)
    }

    /// How requests about mappings are laid out; `None` if there are none.
    pub(crate) fn layout(self) -> Option<Layout> {
        self.row().map(|row| row.layout)
    }

    /// The request of the back-end that this id means; `None` if it means nothing that is spoken
    /// here. Requests that are in no table are passed through.
    #[must_use]
    pub fn code(self, id: u32) -> Option<BackendCode> {
        if let Some(row) = self.row() {
            if row.others.contains(&id) {
                return None;
            }
            let here = row.ids.iter().zip(CODES).find(|(known, _)| **known == Some(id));
            if let Some((_, code)) = here {
                return Some(code);
            }
        }
        if CODES.contains(&BackendCode(id)) { None } else { Some(BackendCode(id)) }
    }

    /// The id that means this request of the back-end; `None` if it cannot be said.
    #[must_use]
    pub fn id(self, code: BackendCode) -> Option<u32> {
        let row = self.row();
        if let Some(place) = CODES.iter().position(|known| *known == code) {
            return row.and_then(|row| row.ids.get(place).copied().flatten());
        }
        let taken = row.is_some_and(|row| row.others.contains(&code.0) || row.ids.contains(&Some(code.0)));
        if taken { None } else { Some(code.0) }
    }

    /// The dialect that a request which has just come in makes of this one.
    pub(crate) fn chosen_by<H>(self, frame: &Frame<'_, H>) -> Self {
        if self != Self::Auto || frame.payload.len() != Layout::COLUMNS_SIZE {
            return self;
        }
        // 4 and 5 are A1's map and unmap; 8 and 9 are A2's. Of 6 and 7 one means map in A2 and has
        // a descriptor, the other means reading or writing in A1 and has one too.
        match (frame.header.request(), frame.handles.len()) {
            (4, 1) | (5 | 6, 0) | (7, 1) => Self::FsA1,
            (6, 1) | (7 | 8, 0) | (9, _) => Self::FsA2,
            _ => self,
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Form {
    /// The message that these bytes on the wire mean.
    pub(crate) fn known(self, wire: MessageName) -> Result<MessageName, DecodeError> {
        match wire.channel {
            Channel::Backend => match self.dialect.code(wire.id) {
                Some(code) => Ok(code.message()),
                None => Err(DecodeError::UnknownRequest { message: wire }),
            },
            Channel::Frontend | Channel::Gpu => Ok(wire),
        }
    }

    /// The message as it is called on the wire.
    pub(crate) fn on_wire(self, message: MessageName) -> Result<MessageName, ApiMisuse> {
        let dialect = self.dialect;
        match message.channel {
            Channel::Backend => match dialect.id(BackendCode(message.id)) {
                Some(id) => Ok(MessageName { id, ..message }),
                None => {
                    let violation = Violation::Dialect(DialectViolation::NotSpoken { dialect });
                    Err(ApiMisuse::Violation { message, violation })
                }
            },
            Channel::Frontend | Channel::Gpu => Ok(message),
        }
    }

    /// The same in another dialect. [`Dialect::Auto`] counts as the standard one.
    #[must_use]
    pub const fn with_dialect(self, dialect: Dialect) -> Self {
        Self { dialect, ..self }
    }
}

/// What a dialect cannot say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DialectViolation {
    /// There is no such request.
    NotSpoken {
        /// The dialect.
        dialect: Dialect,
    },
    /// One request cannot hold so many mappings.
    Mappings {
        /// The dialect.
        dialect: Dialect,
        /// How many were given.
        found: usize,
        /// The most it holds.
        limit: usize,
    },
    /// Flags that concern all mappings of a request.
    Flags {
        /// The dialect.
        dialect: Dialect,
        /// The flags.
        found: u64,
    },
    /// A mapping cannot have this access.
    Access {
        /// The dialect.
        dialect: Dialect,
        /// The access.
        found: CacheAccess,
    },
    /// Unmapping everything at once.
    WholeWindow {
        /// The dialect.
        dialect: Dialect,
    },
}

impl fmt::Display for DialectViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSpoken { dialect } => write!(f, "the dialect {dialect} has no such request"),
            Self::Mappings { dialect, found, limit } => {
                write!(f, "the dialect {dialect} takes at most {limit} mappings in a request, not {found}")
            }
            Self::Flags { dialect, found } => write!(f, "the dialect {dialect} cannot say the flags {found:#x}"),
            Self::Access { dialect, found } => {
                write!(f, "the dialect {dialect} cannot say the access {:#x}", found.bits())
            }
            Self::WholeWindow { dialect } => write!(f, "the dialect {dialect} cannot unmap everything at once"),
        }
    }
}

impl From<DialectViolation> for Violation {
    fn from(violation: DialectViolation) -> Self {
        Self::Dialect(violation)
    }
}
