//! The two memories that need no unsafe code, against plain bytes.

use core::sync::atomic::{AtomicU16, Ordering};

use vhost_core::{Access, GuestAddress, GuestMemory, GuestRange, Load, Store, Unmapped, WordMemory};

use crate::guest::{END, Guest, START};

/// Every access at every offset of a range, inside and just outside, aligned and not, on a copy of `model`.
fn exercise(range: &impl GuestRange, model: &mut [u8]) {
    let odd = range.guest_address().0 % 2;
    assert_eq!((range.len(), range.is_empty()), (model.len(), false));
    for offset in 0..model.len() + 3 {
        let inside = offset + 2 <= model.len() && (offset as u64 + odd).is_multiple_of(2);
        let number = 0x1234_u16.wrapping_mul(offset as u16 + 3);
        let order = if offset % 4 < 2 { Store::Release } else { Store::Relaxed };
        assert_eq!(range.store_u16(offset, number, order), inside.then_some(()));
        if inside {
            model[offset..offset + 2].copy_from_slice(&number.to_le_bytes());
        }
        assert_eq!(range.load_u16(offset, Load::Acquire), inside.then_some(number));
        for length in 0..5 {
            let inside = offset + length <= model.len();
            let bytes: Vec<u8> = (0..length).map(|at| (offset * 7 + at) as u8).collect();
            assert_eq!(range.write_from(offset, &bytes), inside.then_some(()));
            if inside {
                model[offset..offset + length].copy_from_slice(&bytes);
            }
            let mut read = vec![0xee; length];
            assert_eq!(range.read_into(offset, &mut read), inside.then_some(()));
            if inside {
                assert_eq!(read, bytes);
            }
        }
        let before = model.get(offset).copied();
        assert_eq!(range.fetch_or(offset, 0x81), before);
        if let Some(byte) = model.get_mut(offset) {
            *byte |= 0x81;
        }
    }
    let mut all = vec![0; model.len()];
    range.read_into(0, &mut all).unwrap();
    assert_eq!(all, model);
    assert_eq!(range.read_into(usize::MAX, &mut [0; 2]), None);
    assert_eq!(range.load_u16(usize::MAX, Load::Relaxed), None);
}

#[test]
fn both_memories_read_and_write_like_plain_bytes() {
    for start in 0..4 {
        for length in [1, 2, 5, 12] {
            let guest = Guest::new();
            let range = guest.range(START + 0x10 + start, length);
            exercise(&range, &mut vec![0; length as usize]);
            assert_eq!(guest.get::<1>(START + 0x0f + start), [0], "nothing before it");
            assert_eq!(guest.get::<1>(START + 0x10 + start + length), [0], "nothing behind it");

            let words: Vec<AtomicU16> = (0..16).map(|_| AtomicU16::new(0)).collect();
            let memory = WordMemory::new(GuestAddress(0x100), &words).unwrap();
            let range = memory.range(GuestAddress(0x104 + start), length, Access::ReadWrite).unwrap();
            exercise(&range, &mut vec![0; length as usize]);
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
            let outside = |at: &usize| *at < (4 + start) as usize || *at >= (4 + start + length) as usize;
            assert!((0..32).filter(outside).all(|at| bytes[at] == 0), "nothing around it: {bytes:?}");
        }
    }
    assert!(WordMemory::new(GuestAddress(0x101), &[]).is_none());
}

#[test]
fn ranges_end_where_the_memory_ends() {
    let guest = Guest::new();
    let memory = guest.memory();
    let found = |address, length| {
        memory.piece(GuestAddress(address), length, Access::Read).map(|range| (range.guest_address().0, range.len()))
    };
    assert_eq!(found(START, 1), Ok((START, 1)));
    assert_eq!(found(END - 1, 1), Ok((END - 1, 1)));
    assert_eq!(found(END - 1, 2), Ok((END - 1, 1)), "a piece is what there is");
    assert_eq!(found(START, u64::MAX), Ok((START, (END - START) as usize)));
    for (address, length) in [(START - 1, 1), (START - 1, 2), (END, 1), (u64::MAX, 1), (0, u64::MAX), (START, 0)] {
        assert_eq!(found(address, length), Err(Unmapped::Outside), "{length} at {address:#x}");
    }
    let whole = |address, length| memory.range(GuestAddress(address), length, Access::Read).is_ok();
    assert!(whole(END - 2, 2) && !whole(END - 1, 2) && !whole(START, u64::MAX) && !whole(START, 0));
}

#[test]
fn memories_side_by_side_are_asked_in_turn() {
    let (low, high) = (Guest::new(), Guest::new());
    high.put(START, &[7]);
    let cells = [low.memory(), vhost_core::CellMemory::new(GuestAddress(END), high.cells())];
    let both = &cells[..];
    let byte = |address| both.range(GuestAddress(address), 1, Access::Read).map(|range| range.read(0));
    assert_eq!(byte(START), Ok(Some([0])));
    assert_eq!(byte(END), Ok(Some([7])));
    assert_eq!(byte(END + (END - START)), Err(Unmapped::Outside));
    let border = both.piece(GuestAddress(END - 3), 8, Access::Read).unwrap();
    assert_eq!(border.len(), 3, "no piece crosses from one into the other");
}

#[test]
fn an_access_allows_its_parts() {
    use Access::{Read, ReadWrite, Write};
    let allowed = |allowed: Access| [Read, Write, ReadWrite].map(|wanted| allowed.allows(wanted));
    assert_eq!(allowed(Read), [true, false, false]);
    assert_eq!(allowed(Write), [false, true, false]);
    assert_eq!(allowed(ReadWrite), [true, true, true]);
}
