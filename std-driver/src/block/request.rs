//! One request to a block device (virtio specification, 5.2.6): decoded once, checked, carried out.

use rustix::io::Errno;

use super::Access;
use super::config::{DISCARD_SECTORS_MAX, DISCARD_SEGMENTS_MAX, WRITE_ZEROES_SECTORS_MAX, WRITE_ZEROES_SEGMENTS_MAX};
use super::disk::{Disk, Space};
use super::format::{SECTOR, SEGMENT_BYTES, SERIAL_BYTES, UNMAP, request as kind, status};
use crate::chain::{Chain, Readable, TooShort, Writable};
use crate::guest_io;

const SEGMENTS_BYTES: usize = SEGMENT_BYTES * DISCARD_SEGMENTS_MAX as usize;

/// The last byte of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Status {
    Ok = status::OK,
    IoError = status::IOERR,
    Unsupported = status::UNSUPP,
}

impl From<TooShort> for Status {
    fn from(_: TooShort) -> Self {
        Self::IoError
    }
}

impl From<Errno> for Status {
    fn from(_: Errno) -> Self {
        Self::IoError
    }
}

/// What a request meets: the disk, its name, and whether writes must be durable when they are done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'d> {
    pub(super) disk: &'d Disk,
    pub(super) serial: &'d [u8; SERIAL_BYTES],
    pub(super) write_through: bool,
}

/// Carries out the request in `chain` and writes its status; returns the length for the used ring.
///
/// Every writable byte is written: what the request leaves becomes zero, so that the length says the truth and the driver
/// sees nothing stale. Without a byte for the status nothing is done, and the length is 0.
pub(super) fn serve(target: Target<'_>, chain: &Chain<'_>) -> u32 {
    let writable = chain.writable();
    let Ok((data, mut status)) = writable.split_back(1) else {
        return 0;
    };
    let (filled, result) = match target.run(chain.readable(), data) {
        Ok(filled) => (filled, Status::Ok),
        Err(failure) => (0, failure),
    };
    if filled < data.len()
        && let Ok((_, rest)) = data.split_front(filled)
    {
        rest.fill_zero();
    }
    match status.write(&[result as u8]) {
        Ok(()) => u32::try_from(writable.len()).unwrap_or(u32::MAX),
        Err(_) => 0,
    }
}

impl Target<'_> {
    /// Returns how many bytes of `data` the request filled.
    #[inline]
    fn run(self, request: Readable<'_>, data: Writable<'_>) -> Result<u64, Status> {
        let mut request = request;
        let header = request.read_u128()?;
        // Type, a reserved number, sector.
        let sector = (header >> 64) as u64;
        match header as u32 {
            kind::IN => self.read(sector, data),
            kind::OUT => self.write(sector, request).map(|()| 0),
            other => self.rare(other, request, data),
        }
    }

    /// A request that is neither a read nor a write.
    #[inline(never)]
    fn rare(self, kind: u32, request: Readable<'_>, data: Writable<'_>) -> Result<u64, Status> {
        match kind {
            kind::FLUSH => self.disk.flush()?,
            kind::GET_ID => return self.name(data),
            kind::DISCARD => self.discard(request)?,
            kind::WRITE_ZEROES => self.write_zeroes(request)?,
            _ => return Err(Status::Unsupported),
        }
        Ok(0)
    }

    #[inline]
    fn read(self, sector: u64, data: Writable<'_>) -> Result<u64, Status> {
        let offset = self.range(sector, data.len())?;
        if guest_io::read_at(self.disk.fd(), offset, data)? != data.len() {
            return Err(Status::IoError);
        }
        Ok(data.len())
    }

    #[inline]
    fn write(self, sector: u64, data: Readable<'_>) -> Result<(), Status> {
        self.writable()?;
        let offset = self.range(sector, data.len())?;
        if guest_io::write_at(self.disk.fd(), offset, data)? != data.len() {
            return Err(Status::IoError);
        }
        self.settle()
    }

    fn name(self, data: Writable<'_>) -> Result<u64, Status> {
        let mut data = data;
        let room = usize::try_from(data.len()).unwrap_or(usize::MAX).min(SERIAL_BYTES);
        data.write(self.serial.get(..room).unwrap_or(self.serial))?;
        Ok(room as u64)
    }

    fn discard(self, request: Readable<'_>) -> Result<(), Status> {
        self.writable()?;
        let segments = Segments::read(request, DISCARD_SEGMENTS_MAX)?;
        for segment in segments.iter() {
            // Specification, 5.2.6.2: a discard has no flags.
            if segment.flags != 0 {
                return Err(Status::Unsupported);
            }
            self.segment(segment, DISCARD_SECTORS_MAX)?;
        }
        for segment in segments.iter() {
            let (offset, length) = self.segment(segment, DISCARD_SECTORS_MAX)?;
            if length > 0 {
                self.disk.discard(offset, length)?;
            }
        }
        Ok(())
    }

    fn write_zeroes(self, request: Readable<'_>) -> Result<(), Status> {
        self.writable()?;
        let segments = Segments::read(request, WRITE_ZEROES_SEGMENTS_MAX)?;
        for segment in segments.iter() {
            if segment.flags & !UNMAP != 0 {
                return Err(Status::Unsupported);
            }
            self.segment(segment, WRITE_ZEROES_SECTORS_MAX)?;
        }
        for segment in segments.iter() {
            let (offset, length) = self.segment(segment, WRITE_ZEROES_SECTORS_MAX)?;
            let space = if segment.flags & UNMAP != 0 { Space::MayFree } else { Space::Keep };
            if length > 0 {
                self.disk.write_zeroes(offset, length, space)?;
            }
        }
        self.settle()
    }

    fn writable(self) -> Result<(), Status> {
        match self.disk.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => Err(Status::IoError),
        }
    }

    /// Without a write cache, what is done must be durable.
    fn settle(self) -> Result<(), Status> {
        if self.write_through {
            self.disk.flush()?;
        }
        Ok(())
    }

    /// Byte offset of `length` bytes from `sector` on, if they are whole sectors of this disk.
    fn range(self, sector: u64, length: u64) -> Result<u64, Status> {
        let end = sector.checked_add(length / SECTOR).ok_or(Status::IoError)?;
        if !length.is_multiple_of(SECTOR) || end > self.disk.sectors {
            return Err(Status::IoError);
        }
        sector.checked_mul(SECTOR).ok_or(Status::IoError)
    }

    /// Byte offset and length of a segment of a discard or write-zeroes request.
    fn segment(self, segment: Segment, sectors_max: u32) -> Result<(u64, u64), Status> {
        if segment.sectors > sectors_max {
            return Err(Status::IoError);
        }
        let length = u64::from(segment.sectors) * SECTOR;
        Ok((self.range(segment.sector, length)?, length))
    }
}

/// The segments of a discard or write-zeroes request, copied out of guest memory before any is looked at: all are checked
/// before the first is carried out.
struct Segments {
    bytes: [u8; SEGMENTS_BYTES],
    count: usize,
}

#[derive(Clone, Copy)]
struct Segment {
    sector: u64,
    sectors: u32,
    flags: u32,
}

impl Segments {
    /// One segment or more, `most` at most and not beyond [`DISCARD_SEGMENTS_MAX`].
    fn read(request: Readable<'_>, most: u32) -> Result<Self, Status> {
        let mut request = request;
        let length = usize::try_from(request.len()).map_err(|_| Status::IoError)?;
        let mut segments = Self { bytes: [0; SEGMENTS_BYTES], count: length / SEGMENT_BYTES };
        let fits = length > 0 && length.is_multiple_of(SEGMENT_BYTES) && segments.count as u64 <= u64::from(most);
        let room = segments.bytes.get_mut(..length).filter(|_| fits).ok_or(Status::IoError)?;
        request.read(room)?;
        Ok(segments)
    }

    fn iter(&self) -> impl Iterator<Item = Segment> {
        let (segments, _) = self.bytes.as_chunks::<SEGMENT_BYTES>();
        segments.iter().take(self.count).map(|bytes| {
            let whole = u128::from_le_bytes(*bytes);
            Segment { sector: whole as u64, sectors: (whole >> 64) as u32, flags: (whole >> 96) as u32 }
        })
    }
}
