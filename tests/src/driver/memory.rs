//! Guest memory: a memfd and where its bytes appear.

use crate::wire::Bytes;
use crate::wire::region::Region;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

/// One region of guest memory, in a file of its own or in a part of a shared one.
#[derive(Debug)]
pub struct GuestMemory {
    file: File,
    region: Region,
}

impl GuestMemory {
    /// So many bytes at an address of its own in each address space, from the beginning of a new file.
    pub fn new(size: u64) -> Self {
        Self::at(Region { guest: 0x4000_0000, size, user: 0x7f00_1230_0000, offset: 0, xen_flags: 0, domain: 0 })
    }

    /// This region in a new file that ends where the region does.
    pub fn at(region: Region) -> Self {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, region.offset + region.size).unwrap();
        Self { file: file.into(), region }
    }

    /// Another region of the same file, which must be long enough for it.
    pub fn sharing_file(&self, region: Region) -> Self {
        Self { file: self.file.try_clone().unwrap(), region }
    }

    /// Where it appears.
    pub fn region(&self) -> Region {
        self.region
    }

    /// The payload of `ADD_MEM_REG` and `REM_MEM_REG`.
    pub fn single(&self) -> Vec<u8> {
        Bytes::new().padding(8).raw(&self.region.plain()).done()
    }

    /// The front-end's address of a guest address.
    pub fn user(&self, guest: u64) -> u64 {
        guest - self.region.guest + self.region.user
    }

    /// Changes the length of the file, whatever is mapped of it.
    pub fn set_file_length(&self, length: u64) {
        self.file.set_len(length).unwrap();
    }

    /// Writes at a guest address.
    #[track_caller]
    pub fn write(&self, guest: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, self.place(guest, bytes.len())).unwrap();
    }

    /// Reads at a guest address.
    #[track_caller]
    pub fn read(&self, guest: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, self.place(guest, length)).unwrap();
        bytes
    }

    /// All of it, to see whether anybody writes.
    pub fn contents(&self) -> Vec<u8> {
        self.read(self.region.guest, usize::try_from(self.region.size).unwrap())
    }

    /// Writes a little-endian number of 16 bits, as everything in a ring is.
    #[track_caller]
    pub fn write_u16(&self, guest: u64, value: u16) {
        self.write(guest, &value.to_le_bytes());
    }

    /// Reads a little-endian number of 16 bits.
    #[track_caller]
    pub fn read_u16(&self, guest: u64) -> u16 {
        u16::from_le_bytes(self.read(guest, 2).try_into().unwrap())
    }

    #[track_caller]
    fn place(&self, guest: u64, length: usize) -> u64 {
        let offset = guest.checked_sub(self.region.guest).filter(|&offset| offset + length as u64 <= self.region.size);
        self.region.offset
            + offset.unwrap_or_else(|| panic!("{length} bytes at {guest:#x} are not in {:x?}", self.region))
    }
}

impl AsFd for GuestMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The payload of `SET_MEM_TABLE`.
pub fn table(regions: &[Region]) -> Vec<u8> {
    let count = u32::try_from(regions.len()).unwrap();
    let head = Bytes::new().u32(count).padding(4);
    regions.iter().fold(head, |bytes, region| bytes.raw(&region.plain())).done()
}
