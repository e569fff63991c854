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

/// One line of the table of dialects. Zero stands for no id.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// How requests about mappings are laid out; `None` if there are none.
    layout: Option<Layout>,
    /// The ids of map, unmap, synchronise and read or write.
    ids: [u16; 4],
    /// The id of what the dialect says besides and is not spoken here.
    other: u16,
}

/// The requests that the ids of a line stand for.
const CODES: [BackendCode; 4] = [BackendCode::FS_MAP, BackendCode::FS_UNMAP, BackendCode::FS_SYNC, BackendCode::FS_IO];

const STANDARD: Row = Row { layout: None, ids: [0; 4], other: 0 };
const FS_A1: Row = Row { layout: Some(Layout::Columns), ids: [4, 5, 6, 7], other: 0 };
const FS_A2: Row = Row { ids: [6, 7, 8, 9], ..FS_A1 };
const FS_A2_GEN: Row = Row { layout: Some(Layout::FlagsAndColumns), ids: [6, 7, 0, 8], other: 9 };
const FS_B: Row = Row { layout: Some(Layout::List), ids: [6, 7, 0, 8], other: 0 };
const PRIVATE_1000: Row = Row { ids: [1000, 1001, 1002, 1003], ..FS_A1 };
const CROSVM_1002: Row = Row { ids: [1002, 1003, 1004, 1005], ..FS_A1 };

impl Row {
    /// Which of [`CODES`] has this id, which is not zero.
    fn place(&self, id: u16) -> Option<usize> {
        self.ids.iter().position(|known| *known == id)
    }
}

impl Dialect {
    fn row(self) -> &'static Row {
        match self {
            Self::Standard | Self::Auto => &STANDARD,
            Self::FsA1 => &FS_A1,
            Self::FsA2 => &FS_A2,
            Self::FsA2Gen => &FS_A2_GEN,
            Self::FsB => &FS_B,
            Self::Private1000 => &PRIVATE_1000,
            Self::Crosvm1002 => &CROSVM_1002,
        }
    }

    /// How requests about mappings are laid out; `None` if there are none.
    #[inline(never)]
    pub(crate) fn layout(self) -> Option<Layout> {
        self.row().layout
    }

    /// The request of the back-end that this id means; `None` if it means nothing that is spoken
    /// here. Requests that are in no table are passed through.
    #[must_use]
    #[inline(never)]
    pub fn code(self, id: u32) -> Option<BackendCode> {
        if let Ok(id @ 1..) = u16::try_from(id) {
            let row = self.row();
            if let Some(place) = row.place(id) {
                return CODES.get(place).copied();
            }
            if row.other == id {
                return None;
            }
        }
        let code = BackendCode(id);
        if place(code).is_none() { Some(code) } else { None }
    }

    /// The id that means this request of the back-end; `None` if it cannot be said.
    #[must_use]
    #[inline(never)]
    pub fn id(self, code: BackendCode) -> Option<u32> {
        let row = self.row();
        if let Some(place) = place(code) {
            return row.ids.get(place).filter(|id| **id != 0).map(|id| u32::from(*id));
        }
        match u16::try_from(code.0) {
            Ok(id @ 1..) if row.other == id || row.place(id).is_some() => None,
            _ => Some(code.0),
        }
    }

    /// The dialect that a request which has just come in makes of this one.
    #[inline]
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

/// Where in [`CODES`] a request is.
fn place(code: BackendCode) -> Option<usize> {
    CODES.iter().position(|known| *known == code)
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
    #[inline]
    pub(crate) fn on_wire(self, message: MessageName) -> Result<MessageName, ApiMisuse> {
        match message.channel {
            Channel::Backend => match self.dialect.id(BackendCode(message.id)) {
                Some(id) => Ok(MessageName { id, ..message }),
                None => Err(self.not_spoken(message)),
            },
            Channel::Frontend | Channel::Gpu => Ok(message),
        }
    }

    #[cold]
    #[inline(never)]
    fn not_spoken(self, message: MessageName) -> ApiMisuse {
        let violation = Violation::Dialect(DialectViolation::NotSpoken { dialect: self.dialect });
        ApiMisuse::Violation { message, violation }
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
