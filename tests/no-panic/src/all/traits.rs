//! What `vhost-core` has for its own traits, and its functions over implementers of them that are somebody else's.

use vhost_core::{wire::vring::VringBase, *};

use crate::{Handle, Memory, Piece, Pieces};

type Cells = CellMemory<'static>;
type CellPiece = CellRange<'static>;
type Translated = IotlbMemory<'static, Memory, GuestAddress, 64>;
type Server = &'static mut Task;

reach_traits! { traits;
    AddressSpace for GuestAddress: from_number, number;
    AddressSpace for UserAddress: from_number, number;
    AddressSpace for Iova: from_number, number;
    AddressSpace for RingAddress: from_number, number;
    ChainBuffer for Pieces: clear = clear, push = push;
    GuestMemory for Memory: piece, range;
    GuestMemory for Cells: piece, range;
    GuestMemory for Translated: piece, range;
    GuestMemory for [Memory]: piece, range = side_by_side;
    GuestRange for Piece: len, guest_address, guest_address_at, load_u16, store_u16, fetch_or, read_into, read_u128, write_from, is_empty, read::<16>,
        full_fence;
    GuestRange for CellPiece: len, guest_address, guest_address_at, load_u16, store_u16, fetch_or, read_into, read_u128, write_from, is_empty,
        read::<16>, full_fence;
    Transport for Line: send, receive;
    VhostBackend for Server: set_owner, features, acknowledge, set_memory, set_log, set_vring, stop_vring, reset,
        start_vring;
}

// `Functions` is no type: under that name stand those that belong to none.
reach! { functions;
    Functions: receive = receive_from, receive_ahead = receive_ahead_from;
}

fn clear(pieces: &mut Pieces) {
    ChainBuffer::<Piece>::clear(pieces);
}

fn push(pieces: &mut Pieces, piece: Piece) -> Result<(), NoRoom> {
    ChainBuffer::push(pieces, piece)
}

fn side_by_side(memories: &[Memory], address: GuestAddress, length: u64) -> Result<Piece, Unmapped> {
    memories.range(address, length, Access::ReadWrite)
}

/// A transport of which nothing is known.
pub struct Line {
    send: fn(&[u8], Handles<Handle>) -> Result<(), u32>,
    receive: fn(&mut [u8], &mut Handles<Handle>) -> Result<usize, u32>,
}

impl Transport for Line {
    type Handle = Handle;
    type Error = u32;

    fn send(&mut self, message: Transmit<'_, Handle>) -> Result<(), u32> {
        (self.send)(message.bytes, message.handles)
    }

    fn receive(&mut self, buffer: &mut [u8], handles: &mut Handles<Handle>) -> Result<usize, u32> {
        (self.receive)(buffer, handles)
    }
}

fn receive_from<'a>(
    line: &mut Line,
    assembler: &'a mut Assembler<Handle>,
) -> Result<Option<Frame<'a, Handle>>, ReceiveError<u32>> {
    receive(line, assembler)
}

fn receive_ahead_from<'a>(
    line: &mut Line,
    incoming: &'a mut ReadAhead<Handle>,
) -> Result<Option<Frame<'a, Handle>>, ReceiveError<u32>> {
    receive_ahead(line, incoming)
}

/// Somebody who processes rings, of whom nothing is known.
pub struct Task(fn(u16) -> Result<u64, u32>);

impl VhostBackend for Task {
    type Handle = Handle;
    type Memory = Handle;
    type Error = u32;

    fn set_owner(&mut self) -> Result<(), u32> {
        (self.0)(0).map(drop)
    }

    fn features(&mut self) -> Result<VirtioFeatures, u32> {
        (self.0)(1).map(VirtioFeatures::from_bits_retain)
    }

    fn acknowledge(&mut self, _: VirtioFeatures) -> Result<(), u32> {
        (self.0)(2).map(drop)
    }

    fn set_memory(&mut self, _: &[(MemoryRegion, &Handle)]) -> Result<(), u32> {
        (self.0)(3).map(drop)
    }

    fn set_log(&mut self, _: &LogArea<'_, Handle>) -> Result<(), u32> {
        (self.0)(4).map(drop)
    }

    fn set_vring(&mut self, ring: u16, _: VringSetting<'_, Handle>) -> Result<(), u32> {
        (self.0)(ring).map(drop)
    }

    fn stop_vring(&mut self, ring: u16) -> Result<VringBase, u32> {
        (self.0)(ring).map(|base| VringBase::packed(base as u32))
    }

    fn reset(&mut self) -> Result<(), u32> {
        (self.0)(5).map(drop)
    }
}
