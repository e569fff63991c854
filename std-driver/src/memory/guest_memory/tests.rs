use std::sync::Arc;

use vhost_core::{Access, GuestAddress, GuestMemory, GuestRange, Load, Store, Unmapped};
use vm_memory::VolatileSlice;

use super::{Borrowed, LONGEST_BY_WORD, copy_in, copy_out, read_u128};
use crate::memory::{MemoryFile, MemoryTable, OwnedRange};

const SIZE: u64 = 0x4000;

/// Two adjacent regions, and one far away.
fn table() -> MemoryTable {
    let files = [0x10000, 0x10000 + SIZE, 0x9_0000_0000].map(|at| MemoryFile::create("guest", at, SIZE).unwrap());
    MemoryTable::new(files.map(|file| Arc::clone(file.mapped()))).unwrap()
}

fn found<M: GuestMemory<Address = GuestAddress>>(memory: &M, at: u64, length: u64) -> Result<(u64, usize), Unmapped> {
    memory.piece(GuestAddress(at), length, Access::ReadWrite).map(|range| (range.guest_address().0, range.len()))
}

#[test]
fn pieces_end_with_their_region() {
    let table = table();
    let borrowed = Borrowed::new(&table);
    let outside = Err(Unmapped::Outside);
    // In this order, so that the region found last is the right one, and a wrong one.
    for (at, length, expected) in [
        (0x10000, 1, Ok((0x10000, 1))),
        (0x13fff, 2, Ok((0x13fff, 1))),
        (0x14000, 2, Ok((0x14000, 2))),
        (0x13ffe, 2, Ok((0x13ffe, 2))),
        (0x17fff, u64::MAX, Ok((0x17fff, 1))),
        (0x18000, 1, outside),
        (0xffff, 2, outside),
        (0x9_0000_3fff, 1, Ok((0x9_0000_3fff, 1))),
        (0x10000, 0, outside),
        (0x9_0000_4000, 1, outside),
        (u64::MAX, 1, outside),
        (0, u64::MAX, outside),
        (0x10000, u64::MAX, Ok((0x10000, SIZE as usize))),
    ] {
        assert_eq!(found(&borrowed, at, length), expected, "{length} bytes at {at:#x}");
        assert_eq!(found(&Borrowed::new(&table), at, length), expected);
        assert_eq!(found(&table, at, length), expected);
    }
    assert!(table.range(GuestAddress(0x13fff), 2, Access::Read).is_err(), "a ring does not cross regions");
}

/// Every access of up to 20 bytes, and one longer than any that is copied word by word, at every offset of an odd piece.
#[test]
fn a_piece_reads_and_writes_like_plain_bytes() {
    let table = table();
    for start in 0..8_u64 {
        let range = table.range(GuestAddress(0x10100 + start), 96, Access::ReadWrite).unwrap();
        let around = table.range(GuestAddress(0x100f8), 128, Access::ReadWrite).unwrap();
        around.write_from(0, &[0xee; 128]).unwrap();
        let mut model = vec![0xee; 96];
        for offset in (0..100).chain([usize::MAX, usize::MAX - 1]) {
            for length in (0..20).chain([LONGEST_BY_WORD, LONGEST_BY_WORD + 1]) {
                let inside = offset.checked_add(length).is_some_and(|end| end <= 96).then_some(());
                let bytes: Vec<u8> = (0..length).map(|at| offset.wrapping_mul(7).wrapping_add(at) as u8).collect();
                assert_eq!(range.write_from(offset, &bytes), inside);
                let mut read = vec![0; length];
                assert_eq!(range.read_into(offset, &mut read), inside);
                if inside.is_some() {
                    model[offset..offset + length].copy_from_slice(&bytes);
                    assert_eq!(read, bytes);
                }
            }
            let aligned = (start ^ offset as u64).is_multiple_of(2);
            let inside = (aligned && offset < 95).then_some(());
            let number = 0x1234_u16.wrapping_mul(offset as u16 | 1);
            assert_eq!(range.store_u16(offset, number, Store::Release), inside);
            assert_eq!(range.load_u16(offset, Load::Acquire), inside.map(|()| number));
            if inside.is_some() {
                model[offset..offset + 2].copy_from_slice(&number.to_le_bytes());
            }
            assert_eq!(range.fetch_or(offset, 0x41), model.get(offset).copied());
            if let Some(byte) = model.get_mut(offset) {
                *byte |= 0x41;
            }
            let sixteen = model.get(offset..).and_then(|rest| rest.first_chunk()).copied();
            assert_eq!(range.read_u128(offset), sixteen.map(u128::from_le_bytes));
        }
        let mut all = vec![0; 128];
        around.read_into(0, &mut all).unwrap();
        let lead = 8 + start as usize;
        assert_eq!(all[lead..lead + 96], model);
        assert!(all[..lead].iter().chain(&all[lead + 96..]).all(|byte| *byte == 0xee), "nothing around it");
    }
}

#[test]
fn a_slice_is_read_and_written_where_it_is_wanted_and_nowhere_else() {
    for start in 0..8 {
        let mut memory: Vec<u8> = (0..160).collect();
        let mut model = memory.clone();
        let slice = VolatileSlice::from(memory.as_mut_slice()).subslice(start, 96).unwrap();
        for offset in (0..100).chain([usize::MAX]) {
            for length in (0..20).chain([LONGEST_BY_WORD, LONGEST_BY_WORD + 1]) {
                let inside = offset.checked_add(length).is_some_and(|end| end <= 96).then_some(());
                let bytes: Vec<u8> = (0..length).map(|at| offset.wrapping_mul(5).wrapping_add(at) as u8).collect();
                let mut read = vec![0; length];
                assert_eq!(copy_in(&slice, offset, &bytes), inside);
                assert_eq!(copy_out(&slice, offset, &mut read), inside);
                if inside.is_some() {
                    model[start + offset..start + offset + length].copy_from_slice(&bytes);
                    assert_eq!(read, bytes);
                }
            }
            let rest = model[..start + 96].get(start.saturating_add(offset)..);
            let sixteen = rest.and_then(|rest| rest.first_chunk()).copied();
            assert_eq!(read_u128(&slice, offset), sixteen.map(u128::from_le_bytes));
        }
        assert_eq!(memory, model);
    }
}

#[test]
fn a_number_may_lie_scattered() {
    let table = table();
    let [first, second] = [(0x10100, 21), (0x9_0000_0008, 24)]
        .map(|(at, length)| table.range(GuestAddress(at), length, Access::ReadWrite).unwrap());
    let bytes: [u8; 45] = core::array::from_fn(|at| at as u8);
    let scattered = OwnedRange::joined([first, second]).unwrap();
    scattered.write_from(0, &bytes).unwrap();
    for offset in (0..50).chain([usize::MAX]) {
        let sixteen = bytes.get(offset..).and_then(|rest| rest.first_chunk()).copied();
        assert_eq!(scattered.read_u128(offset), sixteen.map(u128::from_le_bytes));
    }
}

#[test]
fn an_owned_piece_keeps_its_region_mapped() {
    let table = table();
    let range = table.range(GuestAddress(0x10000), 16, Access::ReadWrite).unwrap();
    let other = range.clone();
    drop(range);
    drop(table);
    let thread = std::thread::spawn(move || {
        other.write_from(8, &[7; 8]).unwrap();
        other
    });
    assert_eq!(thread.join().unwrap().read(8), Some([7; 8]));
}

#[test]
fn a_borrowed_piece_gives_the_same_bytes_as_a_slice() {
    let table = table();
    let borrowed = Borrowed::new(&table);
    let piece = borrowed.piece(GuestAddress(0x14010), 32, Access::ReadWrite).unwrap();
    let slice = piece.slice();
    slice.copy_from(&[5_u8; 32]);
    assert_eq!((slice.len(), piece.read(31), piece.read::<1>(32)), (32, Some([5]), None));
}
