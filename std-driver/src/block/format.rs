//! What both sides of a disk know: feature bits, and where things are in its configuration space and in requests (virtio
//! specification, 5.2.3, 5.2.4 and 5.2.6).

/// Bytes of a sector: the unit of every address and length of the protocol, whatever the disk's block size is.
pub const SECTOR: u64 = 512;

/// Bytes of the name that a driver can ask for.
pub(crate) const SERIAL_BYTES: usize = 20;

/// `struct virtio_blk_req` before the data: type u32, reserved u32, sector u64.
pub(crate) const HEADER_BYTES: usize = 16;

/// `struct virtio_blk_discard_write_zeroes`: sector u64, number of sectors u32, flags u32.
pub(crate) const SEGMENT_BYTES: usize = 16;

/// `VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP`
pub(crate) const UNMAP: u32 = 1;

/// `VIRTIO_BLK_F_*`
pub(crate) mod feature {
    pub(crate) const SEG_MAX: u64 = 1 << 2;
    pub(crate) const RO: u64 = 1 << 5;
    pub(crate) const BLK_SIZE: u64 = 1 << 6;
    pub(crate) const FLUSH: u64 = 1 << 9;
    pub(crate) const TOPOLOGY: u64 = 1 << 10;
    pub(crate) const CONFIG_WCE: u64 = 1 << 11;
    pub(crate) const MQ: u64 = 1 << 12;
    pub(crate) const DISCARD: u64 = 1 << 13;
    pub(crate) const WRITE_ZEROES: u64 = 1 << 14;
}

/// Offsets in `struct virtio_blk_config`.
pub(crate) mod config {
    pub(crate) const CAPACITY: usize = 0;
    pub(crate) const SEG_MAX: usize = 12;
    pub(crate) const BLK_SIZE: usize = 20;
    pub(crate) const TOPOLOGY: usize = 24;
    pub(crate) const WRITEBACK: usize = 32;
    pub(crate) const NUM_QUEUES: usize = 34;
    pub(crate) const MAX_DISCARD_SECTORS: usize = 36;
    pub(crate) const MAX_DISCARD_SEG: usize = 40;
    pub(crate) const DISCARD_SECTOR_ALIGNMENT: usize = 44;
    pub(crate) const MAX_WRITE_ZEROES_SECTORS: usize = 48;
    pub(crate) const MAX_WRITE_ZEROES_SEG: usize = 52;
    pub(crate) const WRITE_ZEROES_MAY_UNMAP: usize = 56;
}

/// `VIRTIO_BLK_T_*`, what a request is.
pub(crate) mod request {
    pub(crate) const IN: u32 = 0;
    pub(crate) const OUT: u32 = 1;
    pub(crate) const FLUSH: u32 = 4;
    pub(crate) const GET_ID: u32 = 8;
    pub(crate) const DISCARD: u32 = 11;
    pub(crate) const WRITE_ZEROES: u32 = 13;
}

/// `VIRTIO_BLK_S_*`, the last byte of every request.
pub(crate) mod status {
    pub(crate) const OK: u8 = 0;
    pub(crate) const IOERR: u8 = 1;
    pub(crate) const UNSUPP: u8 = 2;
}
