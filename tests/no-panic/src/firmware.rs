//! What firmware has of the core that speaks for both sides and has both layouts of rings: all messages, both machines, the
//! device's and the driver's ring. And how large the values are that it keeps.

use core::{iter, sync::atomic::AtomicU8};

use vhost_core::*;

use crate::{Memory, Piece, Pieces};

/// A number stands for a descriptor.
type Handle = u32;

type Front = Frontend<16, 32, 4>;
type Back = Backend<16, 32, 4>;

reach! { firmware;
    Assembler<Handle>: new, read_buf, filled = assemble, is_whole, take, is_between_messages;
    Backend<16, 32, 4>: new, session, handle_request::<Handle>, own_answer::<Handle>, answer::<Handle>, request::<Handle>,
        handle_reply::<Handle>;
    Frontend<16, 32, 4>: new, session, request::<Handle>, acknowledge_postcopy_memory::<Handle>, handle_reply::<Handle>,
        handle_request::<Handle>, answer_backend::<Handle>;
    RingParts<Piece>: translate::<Memory>;
    DeviceQueue<Piece>: new, relocate, pop::<Memory, Pieces>, push, publish, needs_call, disable_kicks, enable_kicks,
        has_available, reset, base;
    DriverQueue<Piece, 64>: new, add::<GuestAddress>, add_indirect::<GuestAddress>, publish, needs_kick, poll,
        disable_calls, enable_calls;
}

fn assemble(assembler: &mut Assembler<Handle>, count: usize, next: fn() -> Option<Handle>) -> Result<(), DecodeError> {
    assembler.filled(count, iter::from_fn(next))
}

/// A symbol as large as a value, among those that are no part of the file.
macro_rules! value {
    ($($name:ident: $type:ty;)*) => {
        $(#[unsafe(no_mangle)]
        pub static $name: [AtomicU8; size_of::<$type>()] = [const { AtomicU8::new(0) }; size_of::<$type>()];)*
    };
}

value! {
    VALUE_FRONTEND_16_RINGS_32_REGIONS: Front;
    VALUE_FRONTEND_256_RINGS_509_REGIONS: Frontend<256, 509, 16>;
    VALUE_BACKEND_16_RINGS_32_REGIONS: Back;
    VALUE_BACKEND_256_RINGS_509_REGIONS: Backend<256, 509, 16>;
    VALUE_SESSION_16_RINGS_32_REGIONS: Session<16, 32>;
    VALUE_GPU_BACKEND: GpuBackend<16>;
    VALUE_GPU_FRONTEND: GpuFrontend;
    VALUE_ASSEMBLER: Assembler<Handle>;
    VALUE_SPLIT_DEVICE: SplitDevice<Piece>;
    VALUE_PACKED_DEVICE: PackedDevice<Piece>;
    VALUE_SPLIT_DRIVER_OF_64: SplitDriver<Piece, 64>;
    VALUE_PACKED_DRIVER_OF_64: PackedDriver<Piece, 64>;
    VALUE_IOTLB_OF_64: Iotlb<UserAddress, 64>;
}
