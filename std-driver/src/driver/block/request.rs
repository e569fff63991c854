//! Requests of a disk and how they lie in memory.
//!
//! Source: virtio 1.3, section "Block Device: Device Operation".

use crate::block::format::{HEADER_BYTES, SEGMENT_BYTES, SERIAL_BYTES, UNMAP, request as kind, status};

/// What a disk is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockRequest<'d> {
    /// To read.
    Read {
        /// The first sector.
        sector: u64,
        /// Bytes, a multiple of [`SECTOR`](crate::block::SECTOR).
        length: u32,
    },
    /// To write.
    Write {
        /// The first sector.
        sector: u64,
        /// A multiple of [`SECTOR`](crate::block::SECTOR) bytes.
        data: &'d [u8],
    },
    /// To make what was written durable.
    Flush,
    /// To tell the disk's id, up to 20 bytes.
    GetId,
    /// To forget what stands in some sectors.
    Discard {
        /// The first sector.
        sector: u64,
        /// How many.
        sectors: u32,
    },
    /// To fill some sectors with zeros.
    WriteZeroes {
        /// The first sector.
        sector: u64,
        /// How many.
        sectors: u32,
        /// Whether they need no room on the disk afterwards.
        unmap: Unmap,
    },
}

/// Whether sectors that are filled with zeros need no room afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmap {
    /// The room may be given back.
    Allowed,
    /// The room is kept.
    Forbidden,
}

/// How a disk carried a request out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockStatus {
    /// It did (0).
    Ok,
    /// It could not (1), or says something that no disk says.
    IoError,
    /// It does not know such requests (2).
    Unsupported,
}

impl BlockStatus {
    pub(super) fn from_byte(byte: u8) -> Self {
        match byte {
            status::OK => Self::Ok,
            status::UNSUPP => Self::Unsupported,
            _ => Self::IoError,
        }
    }
}

/// A request in memory.
pub(super) struct Encoded<'d> {
    pub(super) header: [u8; HEADER_BYTES],
    pub(super) data: Data<'d>,
}

/// What goes between header and status.
pub(super) enum Data<'d> {
    Nothing,
    /// The disk reads this.
    Out(&'d [u8]),
    /// The disk reads this too, and it is written here.
    Range([u8; SEGMENT_BYTES]),
    /// The disk writes so many bytes.
    In(u32),
}

impl<'d> BlockRequest<'d> {
    pub(super) fn encode(self) -> Encoded<'d> {
        let (kind, sector, data): (u32, u64, _) = match self {
            Self::Read { sector, length } => (kind::IN, sector, Data::In(length)),
            Self::Write { sector, data } => (kind::OUT, sector, Data::Out(data)),
            Self::Flush => (kind::FLUSH, 0, Data::Nothing),
            Self::GetId => (kind::GET_ID, 0, Data::In(SERIAL_BYTES as u32)),
            Self::Discard { sector, sectors } => (kind::DISCARD, 0, Data::Range(range(sector, sectors, 0))),
            Self::WriteZeroes { sector, sectors, unmap } => {
                let flags = match unmap {
                    Unmap::Allowed => UNMAP,
                    Unmap::Forbidden => 0,
                };
                (kind::WRITE_ZEROES, 0, Data::Range(range(sector, sectors, flags)))
            }
        };
        // Type, four reserved bytes, sector.
        let header = (u128::from(kind) | u128::from(sector) << 64).to_le_bytes();
        Encoded { header, data }
    }
}

fn range(sector: u64, sectors: u32, flags: u32) -> [u8; SEGMENT_BYTES] {
    (u128::from(sector) | u128::from(sectors) << 64 | u128::from(flags) << 96).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_its_fields_where_virtio_has_them() {
        let request = BlockRequest::WriteZeroes { sector: 0x0102, sectors: 0x0304, unmap: Unmap::Allowed };
        let Encoded { header, data: Data::Range(range) } = request.encode() else { panic!("no range") };
        assert_eq!(header, [13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(range, [2, 1, 0, 0, 0, 0, 0, 0, 4, 3, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn a_header_has_type_and_sector() {
        let header = BlockRequest::Write { sector: 0x0a0b, data: &[] }.encode().header;
        assert_eq!(header, [1, 0, 0, 0, 0, 0, 0, 0, 0x0b, 0x0a, 0, 0, 0, 0, 0, 0]);
    }
}
