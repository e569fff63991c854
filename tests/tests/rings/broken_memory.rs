//! Guest memory that does not keep its contract: pieces of no bytes, or of more than were asked for.

use vhost_core::{
    Access, ChainFault, ChainFaultKind, GuestAddress, GuestMemory, GuestRange, Load, PopError, RingPart, Store,
    Unmapped, VirtioFeatures,
};

use crate::guest::{ADDRESSES, FREE, Guest, WRITE};

/// Gives pieces of this many bytes, whatever was asked for.
struct Pieced(usize);

/// A piece of so many bytes, none of which is there.
#[derive(Clone, Debug)]
struct Piece(usize);

impl GuestMemory for Pieced {
    type Address = GuestAddress;
    type Range = Piece;

    fn piece(&self, _: GuestAddress, _: u64, _: Access) -> Result<Piece, Unmapped> {
        Ok(Piece(self.0))
    }
}

impl GuestRange for Piece {
    fn len(&self) -> usize {
        self.0
    }

    fn guest_address(&self) -> GuestAddress {
        GuestAddress(FREE)
    }

    fn load_u16(&self, _: usize, _: Load) -> Option<u16> {
        None
    }

    fn store_u16(&self, _: usize, _: u16, _: Store) -> Option<()> {
        None
    }

    fn fetch_or(&self, _: usize, _: u8) -> Option<u8> {
        None
    }

    fn read_into(&self, _: usize, _: &mut [u8]) -> Option<()> {
        None
    }

    fn write_from(&self, _: usize, _: &[u8]) -> Option<()> {
        None
    }
}

#[test]
fn a_chain_in_such_memory_is_malformed_and_its_walk_ends() {
    let guest = Guest::new();
    guest.table_entry(ADDRESSES.descriptor.0, 0, (FREE, 8), WRITE, 0);
    for (bytes, is_sound) in [(0, false), (1, true), (8, true), (9, false), (0x1000, false)] {
        guest.offer(4, 0, 0);
        let mut queue = guest.device(4, VirtioFeatures::empty());
        let mut pieces = heapless::Vec::<Piece, 8>::new();
        let popped = queue.pop(&Pieced(bytes), &mut pieces);
        if is_sound {
            assert_eq!((popped.unwrap().unwrap().writable_len(), pieces.len()), (8, 8 / bytes));
            continue;
        }
        let error = popped.unwrap_err();
        assert_eq!(
            error.to_string(),
            "chain 0: descriptor 0 of the descriptor table has 8 bytes at 0x2000, outside guest memory"
        );
        let PopError::Malformed { chain, fault } = error else { panic!("{error}") };
        let kind = ChainFaultKind::Unmapped { address: FREE, length: 8 };
        assert_eq!(fault, ChainFault { part: RingPart::DescriptorTable, index: 0, kind });
        assert!(pieces.is_empty());
        queue.push(chain, 0).unwrap();
    }
}
