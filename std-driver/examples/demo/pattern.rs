//! What is on the disk: every eight bytes tell where they belong.

use std::{fs::File, io::Read, path::Path};

use crate::Result;

/// The eight bytes at `offset`, a multiple of eight: a bijective mix, so that no two places look alike.
fn word(offset: u64) -> u64 {
    let mut mixed = offset.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Fills a buffer with what belongs at `offset`.
pub(crate) fn fill(offset: u64, buffer: &mut [u8]) {
    for (place, bytes) in (offset..).step_by(8).zip(buffer.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&word(place).to_le_bytes());
    }
}

/// A checksum that grows with every buffer that holds what belongs at its offset.
#[derive(Debug, Default)]
pub(crate) struct Checksum(u64);

impl Checksum {
    /// Takes a buffer in.
    ///
    /// # Errors
    /// The first place that holds something else.
    pub(crate) fn check(&mut self, offset: u64, buffer: &[u8]) -> Result<()> {
        for (place, bytes) in (offset..).step_by(8).zip(buffer.chunks_exact(8)) {
            let found = u64::from_le_bytes(bytes.try_into()?);
            let expected = word(place);
            if found != expected {
                return Err(format!("byte {place:#x}: expected {expected:016x}, found {found:016x}").into());
            }
            // Order does not matter, because buffers come back in any order.
            self.0 = self.0.wrapping_add(found.rotate_left(29) ^ place);
        }
        Ok(())
    }

    pub(crate) fn value(&self) -> u64 {
        self.0
    }
}

/// Reads the image without any of this project's code in between.
pub(crate) fn check_image(path: &Path, size: u64) -> Result<u64> {
    let mut file = File::open(path)?;
    let mut checksum = Checksum::default();
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < size {
        file.read_exact(&mut buffer)?;
        checksum.check(offset, &buffer)?;
        offset += buffer.len() as u64;
    }
    Ok(checksum.value())
}
