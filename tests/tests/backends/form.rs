//! What a disk is asked, and how it is put into bytes: for a virtio block device, or for a SCSI disk.

use vhost_core::VirtioFeatures;

/// What a disk is asked.
#[derive(Clone, Copy)]
pub(crate) enum Request<'d> {
    /// Writes bytes from a sector on.
    Write(u64, &'d [u8]),
    /// Reads a piece from a sector on.
    Read(u64),
    Flush,
}

/// Bytes of a piece, and the sectors that are so many.
pub(crate) const PIECE: usize = 0x1000;
pub(crate) const SECTORS: u64 = 8;

/// What kind of disk it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A virtio block device (virtio specification, 5.2.6).
    Block,
    /// The first disk of a virtio SCSI device's first target (virtio specification, 5.6.6.1).
    #[allow(dead_code, reason = "only kernels have such devices")]
    Scsi,
}

impl Form {
    /// Features that it offers beside those of rings.
    pub(crate) const fn features(self) -> VirtioFeatures {
        VirtioFeatures::from_bits_retain(match self {
            // VIRTIO_BLK_F_FLUSH
            Self::Block => 1 << 9,
            Self::Scsi => 0,
        })
    }

    /// Features that it may offer.
    pub(crate) const fn optional_features(self) -> VirtioFeatures {
        VirtioFeatures::from_bits_retain(match self {
            // VIRTIO_BLK_F_MQ, which a disk of one queue need not have.
            Self::Block => 1 << 12,
            Self::Scsi => 0,
        })
    }

    /// The first ring of requests.
    pub(crate) const fn first_ring(self) -> u16 {
        match self {
            Self::Block => 0,
            Self::Scsi => 2,
        }
    }

    /// What the disk reads first.
    pub(crate) fn head(self, request: &Request<'_>) -> Vec<u8> {
        match self {
            Self::Block => {
                let (kind, sector) = match request {
                    Request::Read(sector) => (0_u32, *sector),
                    Request::Write(sector, _) => (1, *sector),
                    Request::Flush => (4, 0),
                };
                (u128::from(kind) | u128::from(sector) << 64).to_le_bytes().into()
            }
            Self::Scsi => {
                let (operation, sector, bytes) = match request {
                    Request::Read(sector) => (0x28, *sector, PIECE),
                    Request::Write(sector, data) => (0x2a, *sector, data.len()),
                    Request::Flush => (0x35, 0, 0),
                };
                let [sector, count] = [sector, bytes as u64 / 512].map(|number| u32::try_from(number).unwrap());
                let mut head = vec![1, 1, 0x40, 0, 0, 0, 0, 0];
                head.extend([0; 11]);
                head.extend([operation, 0]);
                head.extend(sector.to_be_bytes());
                head.extend([0, (count >> 8) as u8, count as u8, 0]);
                head.resize(51, 0);
                head
            }
        }
    }

    /// Bytes that the disk writes to tell how it went.
    pub(crate) const fn status_size(self) -> usize {
        match self {
            Self::Block => 1,
            Self::Scsi => 108,
        }
    }

    /// Whether it writes them before what it reads for the driver.
    pub(crate) const fn has_status_first(self) -> bool {
        matches!(self, Self::Scsi)
    }

    /// Whether it went well.
    pub(crate) fn is_good(self, status: &[u8]) -> bool {
        match self {
            Self::Block => status == [0],
            // Status and response.
            Self::Scsi => status[10..12] == [0, 0],
        }
    }
}
