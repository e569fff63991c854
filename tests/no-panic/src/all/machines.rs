//! The machines of both sides, and what they are made of.

use core::iter;

use vhost_core::*;

use crate::Handle;

reach! { machines;
    Assembler<Handle>: new, read_buf, image_left, image_read, filled = assemble, is_whole, take, is_between_messages;
    Backend<256, 509, 16>: new, session, outstanding, has_failed, handle_request::<Handle>, own_answer::<Handle>,
        answer::<Handle>, request::<Handle>, handle_reply::<Handle>;
    BackendConfig: new;
    Dialect: code, id;
    Frontend<256, 509, 16>: new, assume_offer, session, outstanding, has_failed, request::<Handle>,
        acknowledge_postcopy_memory::<Handle>, handle_reply::<Handle>, handle_request::<Handle>,
        answer_backend::<Handle>;
    FrontendConfig: new;
    MemoryMap<509>: new, regions;
    Negotiated: has_acknowledgements, has_log_file;
    ReadAhead<Handle>: new, on, read_buf, filled = read_ahead, has_next, next, is_between_messages, image_left, image_part,
        image_read;
    RegionExtent: overlaps;
    Rejection: fault, verdict;
    Session<256, 509>: negotiated, ring, rings, memory, postcopy, has_backend_channel, log, status, dialect,
        is_suspended, is_running;
    Tolerance: new;
    Vring: size, has_addresses, is_started, is_enabled, is_running;
    VringSetup<'static, Handle>: settings = settings;
}

fn assemble(assembler: &mut Assembler<Handle>, count: usize, next: fn() -> Option<Handle>) -> Result<(), DecodeError> {
    assembler.filled(count, iter::from_fn(next))
}

fn settings(setup: &VringSetup<'static, Handle>, use_setting: fn(VringSetting<'static, Handle>)) {
    setup.settings().for_each(use_setting);
}

fn read_ahead(incoming: &mut ReadAhead<Handle>, count: usize, next: fn() -> Option<Handle>) {
    incoming.filled(count, iter::from_fn(next));
}
