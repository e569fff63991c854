//! Requests to a virtio block device (virtio specification, 5.2.6).

use super::{NEXT, Ring, WRITE};

/// Bytes of a sector.
pub const SECTOR: usize = 512;

/// Bytes of guest memory for one request: header, status and data.
const ROOM: u64 = 0x1000;
/// Where the status and the data are in them.
const STATUS: u64 = 0x10;
const DATA: u64 = 0x200;

/// What a disk is asked to do.
#[derive(Clone, Copy, Debug)]
pub enum Command<'d> {
    /// Read so many bytes.
    Read(u32),
    /// Write these.
    Write(&'d [u8]),
    /// Make all writes durable.
    Flush,
}

impl Ring {
    /// Writes a request into memory and makes it available, with descriptors 3 × `slot` and the two after it. There is room
    /// for slots 0 to 7 and for 3584 bytes each. Its status is 0xff until the device sets it.
    pub fn request(&mut self, slot: u16, command: Command<'_>, sector: u64) {
        let head = self.prepare(slot, command, sector);
        self.offer(head);
    }

    /// Writes a request into memory without making it available; its first descriptor.
    pub fn prepare(&self, slot: u16, command: Command<'_>, sector: u64) -> u16 {
        assert!(slot < 8, "there are 8 slots");
        let (kind, length, flags) = match command {
            Command::Read(length) => (0_u32, length, WRITE),
            Command::Write(data) => (1, u32::try_from(data.len()).unwrap(), 0),
            Command::Flush => (4, 0, 0),
        };
        assert!(u64::from(length) <= ROOM - DATA, "{length} bytes do not fit");
        let place = self.place(slot);
        self.memory.write(place, &kind.to_le_bytes());
        self.memory.write(place + 4, &[0; 4]);
        self.memory.write(place + 8, &sector.to_le_bytes());
        self.memory.write(place + STATUS, &[0xff]);
        if let Command::Write(data) = command {
            self.memory.write(place + DATA, data);
        }
        let head = 3 * slot;
        if length == 0 {
            self.descriptor(head, (place, 16), NEXT, head + 2);
        } else {
            self.descriptor(head, (place, 16), NEXT, head + 1);
            self.descriptor(head + 1, (place + DATA, length), flags | NEXT, head + 2);
        }
        self.descriptor(head + 2, (place + STATUS, 1), WRITE, 0);
        head
    }

    /// The status of a request: 0 done, 1 failed, 2 not supported, 0xff not answered yet.
    pub fn status(&self, slot: u16) -> u8 {
        self.memory.read(self.place(slot) + STATUS, 1)[0]
    }

    /// The first bytes of a request's data.
    pub fn data(&self, slot: u16, length: usize) -> Vec<u8> {
        self.memory.read(self.place(slot) + DATA, length)
    }

    fn place(&self, slot: u16) -> u64 {
        self.buffers + ROOM * u64::from(slot)
    }
}
