//! Requests to a disk through a ring, written and read back byte by byte.

use core::sync::atomic::Ordering;
use std::fs::File;
use std::os::unix::fs::FileExt;

use super::{Access, BlockDevice, BlockOptions, feature};
use crate::device::Device;
use crate::vring::Turn;
use crate::vring::test_ring::{BUFFERS, TestRing};

const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const SECTORS: u64 = 64;

/// Where requests lie in guest memory.
const HEADER: u64 = BUFFERS;
const DATA: u64 = BUFFERS + 0x1000;
const STATUS: u64 = BUFFERS + 0xf000;

struct Bench {
    file: File,
    device: BlockDevice,
    ring: TestRing,
    count: u16,
}

fn pattern(sector: u64) -> Vec<u8> {
    (0..512).map(|at| (at as u8) ^ (sector as u8) ^ 0x5a).collect()
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &[0xee; 4], &sector.to_le_bytes()].concat()
}

fn segment(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

impl Bench {
    fn new(access: Access) -> Self {
        let file = tempfile::tempfile().unwrap();
        // Not a whole number of sectors: the rest is out of reach.
        file.set_len(SECTORS * 512 + 100).unwrap();
        for sector in 0..SECTORS {
            file.write_all_at(&pattern(sector), sector * 512).unwrap();
        }
        Self::over(file, access)
    }

    fn over(file: File, access: Access) -> Self {
        let options = BlockOptions { access, serial: "disk-7".to_owned(), ..BlockOptions::default() };
        let device = BlockDevice::from_fd(file.try_clone().unwrap().into(), &options).unwrap();
        device.features_acknowledged(feature::FLUSH);
        Self { file, device, ring: TestRing::new(16), count: 0 }
    }

    /// Sends a chain of these lengths, taken from `request` and from `room` in turn; returns the used length.
    fn send(&mut self, readable: &[(u64, u32)], writable: &[(u64, u32)]) -> u32 {
        self.ring.chain(0, readable, writable);
        self.ring.offer(0);
        let mut vring = self.ring.configured();
        vring.set_base(vhost_core::wire::vring::VringBase::Split { available: self.count }).unwrap();
        vring.start().unwrap();
        vring.enable();
        assert_eq!(vring.process(&self.device), Ok(Turn::Idle));
        let (head, length) = self.ring.used(self.count);
        assert_eq!((head, vring.faults().chains), (0, 0));
        self.count += 1;
        length
    }

    /// A request in the usual form: header and data, a data buffer of `room` bytes (filled with 0xcc), a status byte.
    /// Returns the status, what the buffer holds, and the used length.
    fn request(&mut self, header: &[u8], data: &[u8], room: u32) -> (u8, Vec<u8>, u32) {
        self.ring.write(HEADER, header);
        self.ring.write(DATA, data);
        self.ring.write(DATA + data.len() as u64, &vec![0xcc; room as usize]);
        self.ring.write(STATUS, &[0xcc]);
        let buffers =
            |list: &[(u64, u32)]| -> Vec<_> { list.iter().copied().filter(|(_, length)| *length > 0).collect() };
        let readable = buffers(&[(HEADER, header.len() as u32), (DATA, data.len() as u32)]);
        let writable = buffers(&[(DATA + data.len() as u64, room), (STATUS, 1)]);
        let used = self.send(&readable, &writable);
        (self.ring.read(STATUS, 1)[0], self.ring.read(DATA + data.len() as u64, room as usize), used)
    }

    fn status_of(&mut self, header: &[u8], data: &[u8], room: u32) -> u8 {
        let before = self.contents();
        let (status, filled, used) = self.request(header, data, room);
        assert_eq!(used, room + 1, "every writable byte is written");
        if status != OK {
            assert_eq!(filled, vec![0; room as usize], "a failed request shows nothing stale");
            assert_eq!(self.contents(), before, "a failed request changes nothing");
        }
        status
    }

    /// Flushes of the disk since the last question.
    fn flushes(&self) -> u32 {
        self.device.disk.flushes.swap(0, Ordering::Relaxed)
    }

    fn contents(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.file.metadata().unwrap().len() as usize];
        self.file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    fn sector(&self, sector: u64) -> Vec<u8> {
        self.contents()[sector as usize * 512..][..512].to_vec()
    }
}

#[test]
fn a_read_brings_the_sectors() {
    let mut bench = Bench::new(Access::ReadWrite);
    assert_eq!(bench.request(&header(IN, 5), &[], 512), (OK, pattern(5), 513));
    let two = [pattern(62), pattern(63)].concat();
    assert_eq!(bench.request(&header(IN, 62), &[], 1024), (OK, two, 1025));
}

#[test]
fn a_write_changes_its_sectors_only() {
    let mut bench = Bench::new(Access::ReadWrite);
    let data: Vec<u8> = (0..1024).map(|at| (at / 7) as u8).collect();
    assert_eq!(bench.request(&header(OUT, 10), &data, 0), (OK, vec![], 1));
    assert_eq!([bench.sector(10), bench.sector(11)].concat(), data);
    assert_eq!((bench.sector(9), bench.sector(12)), (pattern(9), pattern(12)));
}

#[test]
fn descriptors_may_be_cut_anywhere() {
    let mut bench = Bench::new(Access::ReadWrite);
    bench.ring.write(HEADER, &header(OUT, 3));
    bench.ring.write(HEADER + 16, &[0x77; 512]);
    let cut = [(HEADER, 1), (HEADER + 1, 8), (HEADER + 9, 107), (HEADER + 116, 1), (HEADER + 117, 411)];
    assert_eq!(bench.send(&cut, &[(STATUS, 1)]), 1);
    assert_eq!((bench.ring.read(STATUS, 1), bench.sector(3)), (vec![OK], vec![0x77; 512]));

    bench.ring.write(HEADER, &header(IN, 4));
    let cut = [(DATA, 100), (DATA + 100, 1), (DATA + 101, 400), (DATA + 501, 12)];
    assert_eq!(bench.send(&[(HEADER, 16)], &cut), 513);
    assert_eq!(bench.ring.read(DATA, 512), pattern(4));
    assert_eq!(bench.ring.read(DATA + 512, 1), [OK], "the status is the last byte, wherever that is");
}

#[test]
fn nothing_beyond_the_end_can_be_reached() {
    let mut bench = Bench::new(Access::ReadWrite);
    let far = [(SECTORS, 512), (SECTORS - 1, 1024), (u64::MAX, 512), (u64::MAX / 512, 512), (1 << 55, 512)];
    for (sector, length) in far {
        assert_eq!(bench.status_of(&header(IN, sector), &[], length), IO_ERROR, "read at {sector}");
        let data = vec![1; length as usize];
        assert_eq!(bench.status_of(&header(OUT, sector), &data, 0), IO_ERROR, "write at {sector}");
    }
    assert_eq!(bench.status_of(&header(IN, SECTORS), &[], 0), OK, "nothing at the very end");
    assert_eq!(bench.status_of(&header(IN, SECTORS + 1), &[], 0), IO_ERROR);
}

#[test]
fn only_whole_sectors_are_transferred() {
    let mut bench = Bench::new(Access::ReadWrite);
    for length in [1, 511, 513, 1000] {
        assert_eq!(bench.status_of(&header(IN, 0), &[], length), IO_ERROR);
        assert_eq!(bench.status_of(&header(OUT, 0), &vec![1; length as usize], 0), IO_ERROR);
    }
}

#[test]
fn a_header_cut_short_is_an_error() {
    let mut bench = Bench::new(Access::ReadWrite);
    for length in 1..16 {
        assert_eq!(bench.status_of(&header(IN, 0)[..length], &[], 512), IO_ERROR);
    }
    bench.ring.write(STATUS, &[0xcc]);
    assert_eq!(bench.send(&[], &[(STATUS, 1)]), 1);
    assert_eq!(bench.ring.read(STATUS, 1), [IO_ERROR]);
}

#[test]
fn without_a_status_byte_nothing_is_done() {
    let mut bench = Bench::new(Access::ReadWrite);
    bench.ring.write(HEADER, &header(OUT, 0));
    bench.ring.write(DATA, &[9; 512]);
    assert_eq!(bench.send(&[(HEADER, 16), (DATA, 512)], &[]), 0);
    assert_eq!(bench.sector(0), pattern(0));
}

#[test]
fn unknown_types_are_unsupported() {
    let mut bench = Bench::new(Access::ReadWrite);
    for kind in [2, 3, 5, 7, 9, 10, 12, 14, 0x8000_0000, u32::MAX] {
        assert_eq!(bench.status_of(&header(kind, 0), &[], 16), UNSUPPORTED, "type {kind}");
    }
}

#[test]
fn the_name_is_padded_and_cut() {
    let mut bench = Bench::new(Access::ReadWrite);
    let name = b"disk-7\0\0\0\0\0\0\0\0\0\0\0\0\0\0".to_vec();
    assert_eq!(bench.request(&header(GET_ID, 0), &[], 20), (OK, name.clone(), 21));
    assert_eq!(bench.request(&header(GET_ID, 0), &[], 4), (OK, name[..4].to_vec(), 5));
    assert_eq!(bench.request(&header(GET_ID, 0), &[], 23), (OK, [name, vec![0; 3]].concat(), 24));
}

#[test]
fn a_read_only_disk_reads_and_does_nothing_else() {
    let mut bench = Bench::new(Access::ReadOnly);
    assert_eq!(bench.request(&header(IN, 1), &[], 512).1, pattern(1));
    assert_eq!(bench.status_of(&header(FLUSH, 0), &[], 0), OK);
    assert_eq!(bench.status_of(&header(OUT, 1), &[1; 512], 0), IO_ERROR);
    assert_eq!(bench.status_of(&header(DISCARD, 0), &segment(0, 8, 0), 0), IO_ERROR);
    assert_eq!(bench.status_of(&header(WRITE_ZEROES, 0), &segment(0, 8, 0), 0), IO_ERROR);
}

#[test]
fn zeroes_are_written_with_and_without_freeing() {
    for flags in [0, 1] {
        let mut bench = Bench::new(Access::ReadWrite);
        assert_eq!(bench.status_of(&header(WRITE_ZEROES, 0), &segment(7, 9, flags), 0), OK);
        for sector in 0..SECTORS {
            let expected = if (7..16).contains(&sector) { vec![0; 512] } else { pattern(sector) };
            assert_eq!(bench.sector(sector), expected, "sector {sector}, flags {flags}");
        }
        assert_eq!(bench.contents().len() as u64, SECTORS * 512 + 100);
    }
}

#[test]
fn several_ranges_are_discarded_at_once() {
    let mut bench = Bench::new(Access::ReadWrite);
    let segments = [segment(0, 8, 0), segment(16, 8, 0), segment(3, 0, 0)].concat();
    assert_eq!(bench.status_of(&header(DISCARD, 0), &segments, 0), OK);
    assert_eq!((bench.sector(8), bench.sector(24)), (pattern(8), pattern(24)));
    assert_eq!(bench.contents().len() as u64, SECTORS * 512 + 100);
}

#[test]
fn ranges_are_checked_before_any_is_touched() {
    let mut bench = Bench::new(Access::ReadWrite);
    let bad: [(Vec<u8>, u8); 10] = [
        (vec![], IO_ERROR),
        (segment(0, 8, 0)[..15].to_vec(), IO_ERROR),
        ([segment(0, 8, 0), vec![0]].concat(), IO_ERROR),
        (segment(SECTORS - 1, 2, 0), IO_ERROR),
        (segment(u64::MAX, 1, 0), IO_ERROR),
        (segment(u64::MAX / 512 + 1, 8, 0), IO_ERROR),
        (segment(0, u32::MAX, 0), IO_ERROR),
        ([segment(0, 8, 0), segment(SECTORS, 1, 0)].concat(), IO_ERROR),
        (segment(0, 8, 2), UNSUPPORTED),
        (segment(0, 1, 1 << 31), UNSUPPORTED),
    ];
    for (data, expected) in &bad {
        for kind in [DISCARD, WRITE_ZEROES] {
            assert_eq!(bench.status_of(&header(kind, 0), data, 0), *expected, "type {kind}, {data:?}");
        }
    }
    assert_eq!(bench.status_of(&header(DISCARD, 0), &segment(0, 8, 1), 0), UNSUPPORTED, "unmap means nothing here");
    let two = [segment(0, 1, 0), segment(1, 1, 0)].concat();
    assert_eq!(bench.status_of(&header(WRITE_ZEROES, 0), &two, 0), IO_ERROR, "one range was offered");
    let most = segment(0, 1, 0).repeat(32);
    assert_eq!(bench.status_of(&header(DISCARD, 0), &[most.clone(), segment(0, 1, 0)].concat(), 0), IO_ERROR);
    assert_eq!(bench.status_of(&header(DISCARD, 0), &most, 0), OK);
}

#[test]
fn a_range_is_no_longer_than_the_configuration_allows() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(4 << 30).unwrap();
    let mut bench = Bench::over(file, Access::ReadWrite);
    for (kind, most) in [(DISCARD, 1 << 21), (WRITE_ZEROES, 1 << 16)] {
        let mut status = |sectors| bench.request(&header(kind, 0), &segment(0, sectors, 0), 0).0;
        assert_eq!((status(most), status(most + 1)), (OK, IO_ERROR), "type {kind}");
    }
}

#[test]
fn a_flush_and_a_write_without_cache_make_things_durable() {
    let mut bench = Bench::new(Access::ReadWrite);
    let write = |bench: &mut Bench| {
        assert_eq!(bench.request(&header(OUT, 0), &[1; 512], 0).0, OK);
        assert_eq!(bench.request(&header(WRITE_ZEROES, 0), &segment(8, 1, 0), 0).0, OK);
        bench.flushes()
    };
    assert_eq!(write(&mut bench), 0, "the driver flushes when it wants to");
    assert_eq!(bench.request(&header(FLUSH, 0), &[], 0).0, OK);
    assert_eq!(bench.flushes(), 1);

    bench.device.features_acknowledged(feature::FLUSH | feature::CONFIG_WCE);
    assert_eq!(write(&mut bench), 0);
    bench.device.write_config(32, &[0]).unwrap();
    assert_eq!(bench.flushes(), 1, "what is in the cache when it is switched off");
    assert_eq!(write(&mut bench), 2);
    assert_eq!(bench.request(&header(IN, 0), &[], 512).0, OK);
    assert_eq!(bench.flushes(), 0);

    bench.device.features_acknowledged(0);
    assert_eq!(write(&mut bench), 2, "a driver that cannot flush");
}

#[test]
fn a_file_that_lost_its_end_is_an_io_error() {
    let mut bench = Bench::new(Access::ReadWrite);
    bench.file.set_len(40 * 512 + 256).unwrap();
    assert_eq!(bench.status_of(&header(IN, 40), &[], 512), IO_ERROR);
    assert_eq!(bench.status_of(&header(IN, 39), &[], 512), OK);
}

#[test]
fn many_requests_in_one_turn_come_back_in_order() {
    let bench = Bench::new(Access::ReadWrite);
    for (slot, sector) in (0..5_u16).zip([9_u64, 2, 63, 0, 30]) {
        let slot_bytes = u64::from(slot) * 512;
        let (at, data) = (HEADER + slot_bytes, DATA + slot_bytes);
        bench.ring.write(at, &header(IN, sector));
        bench.ring.chain(slot * 3, &[(at, 16)], &[(data, 512), (STATUS + slot_bytes, 1)]);
        bench.ring.offer(slot * 3);
    }
    assert_eq!(bench.ring.running().process(&bench.device), Ok(Turn::Idle));
    assert_eq!(bench.ring.all_used(), [0, 3, 6, 9, 12].map(|head| (head, 513)));
    for (slot, sector) in (0..5).zip([9, 2, 63, 0, 30]) {
        assert_eq!(bench.ring.read(DATA + slot * 512, 512), pattern(sector));
    }
}
