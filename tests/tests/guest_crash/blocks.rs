//! Blocks of a file that know where they belong and how often they were written.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// The file's name on each disk.
pub(crate) const BLOCKS_FILE: &str = "blocks";

/// A run of blocks that one thread writes and reads, past the page cache.
pub(crate) struct Blocks {
    file: File,
    first: u64,
    /// How often each was written.
    written: Vec<u64>,
    buffer: Box<Aligned>,
}

/// As the kernel wants memory that it moves bytes into and out of itself.
#[repr(align(4096))]
struct Aligned([u8; Blocks::SIZE as usize]);

impl Blocks {
    /// Bytes of a block.
    pub(crate) const SIZE: u64 = 4096;

    pub(crate) fn open(path: &Path, first: u64, count: u64) -> Self {
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap();
        let file = File::options().read(true).write(true).custom_flags(flags).open(path).unwrap();
        let written = vec![0; usize::try_from(count).unwrap()];
        Self { file, first, written, buffer: Box::new(Aligned([0; Self::SIZE as usize])) }
    }

    /// Writes a block once more.
    pub(crate) fn write(&mut self, block: u64) {
        let written = &mut self.written[block as usize];
        *written += 1;
        self.buffer.0 = stamped(self.first + block, *written);
        self.file.write_all_at(&self.buffer.0, (self.first + block) * Self::SIZE).unwrap();
    }

    /// Reads a block, which must be as it was written last.
    pub(crate) fn verify(&mut self, block: u64) {
        self.buffer.0.fill(0xee);
        self.file.read_exact_at(&mut self.buffer.0, (self.first + block) * Self::SIZE).unwrap();
        let (place, written) = (self.first + block, self.written[block as usize]);
        let expected = if written == 0 { [0; Self::SIZE as usize] } else { stamped(place, written) };
        let found = self.buffer.0[..16].to_vec();
        assert!(self.buffer.0 == expected, "block {place}, written {written} times: {found:x?}");
    }
}

fn stamped(place: u64, written: u64) -> [u8; Blocks::SIZE as usize] {
    let stamp = [place.to_le_bytes(), written.to_le_bytes()].concat();
    stamp.repeat(Blocks::SIZE as usize / 16).try_into().unwrap()
}
