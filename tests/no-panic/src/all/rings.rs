//! Rings from both sides, and the memory they lie in.

use core::iter;

use vhost_core::*;

use crate::{Memory, Piece, Pieces};

reach! { rings;
    Access: reads, writes, allows;
    CellMemory<'static>: new;
    Chain: id, readable_len, writable_len, readable_pieces, split::<Piece>;
    DeviceRing<Piece, RingLayout>: new, resume, inflight_size, clear_inflight, recover, relocate, set_log, pop::<Memory,
        Pieces>, pop_recovered::<Memory, Pieces>, untake, push, stage, stage_filled = fill_queue, publish, needs_call, driver_event,
        disable_kicks, enable_kicks, has_available, reset, base, held, size, state, layout;
    DeviceRing<Piece, SplitLayout>: new, resume, inflight_size, clear_inflight, recover, relocate, set_log,
        pop::<Memory, Pieces>, pop_recovered::<Memory, Pieces>, untake, push, stage, stage_filled = fill_split, publish,
        needs_call, disable_kicks, enable_kicks, has_available, reset, base, held, size, state, layout;
    DeviceRing<Piece, PackedLayout>: new, resume, inflight_size, clear_inflight, recover, relocate, set_log,
        pop::<Memory, Pieces>, pop_recovered::<Memory, Pieces>, untake, push, stage, stage_filled = fill_packed,
        publish, needs_call, disable_kicks, enable_kicks, has_available, reset, base, held, size, state, layout;
    DirtyLog<Piece>: new, size_for, mark;
    DriverRing<Piece, RingLayout, 1024>: new, resume, add::<GuestAddress>, add_indirect::<GuestAddress>, publish,
        needs_kick, poll, disable_calls, enable_calls, free, outstanding, base, state;
    DriverRing<Piece, SplitLayout, 1024>: new, resume, add::<GuestAddress>, add_indirect::<GuestAddress>, publish,
        needs_kick, poll, disable_calls, enable_calls, free, outstanding, base, state;
    DriverRing<Piece, PackedLayout, 1024>: new, resume, add::<GuestAddress>, add_indirect::<GuestAddress>, publish,
        needs_kick, poll, disable_calls, enable_calls, free, outstanding, base, state;
    Iotlb<UserAddress, 64>: new, apply, update, invalidate, clear, entries, look_up;
    IotlbMemory<'static, Memory, GuestAddress, 64>: new;
    Miss: message;
    RingLayout: of, check_size, lengths;
    RingParts<Piece>: translate::<Memory>;
    UsedLog<Piece>: new, where_it_lies;
    WordMemory<'static>: new;
}

reach_traits! { layouts;
    Layout for RingLayout: choose, layout;
    Layout for SplitLayout: choose, layout;
    Layout for PackedLayout: choose, layout;
}

fn fill_queue(queue: &mut DeviceQueue<Piece>, next: fn() -> Option<Chain>) -> Result<(), PushError> {
    queue.stage_filled(iter::from_fn(next))
}

fn fill_packed(queue: &mut PackedDevice<Piece>, next: fn() -> Option<Chain>) -> Result<(), PushError> {
    queue.stage_filled(iter::from_fn(next))
}

fn fill_split(queue: &mut SplitDevice<Piece>, next: fn() -> Option<Chain>) -> Result<(), PushError> {
    queue.stage_filled(iter::from_fn(next))
}
