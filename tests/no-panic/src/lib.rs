//! Reaches every public function of `vhost-core` with values that the compiler cannot know.
//!
//! The panic handler calls a function that does not exist. If any panic is left after optimisation, linking fails and
//! names `CORE_HAS_A_REACHABLE_PANIC`. With the feature `planted` there is one, to show that it is found.

#![no_std]

mod gpu;

use core::{num::NonZeroU64, panic::PanicInfo, slice};

use vhost_core::{
    Answered, Assembler, Backend, BackendConfig, BackendReply, BackendRequest, Delivery, Form, Frame, Frontend,
    FrontendConfig, FrontendReply, FrontendRequest, Handles, Incoming, MAX_MESSAGE, ProtocolFeatures, ReadAhead,
    VirtioFeatures,
    wire::header::Header,
};

unsafe extern "C" {
    fn CORE_HAS_A_REACHABLE_PANIC() -> !;
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: it does not exist, so a library in which this is reached does not link.
    unsafe { CORE_HAS_A_REACHABLE_PANIC() }
}

type Front = Frontend<256, 509, 16>;
type Back = Backend<256, 509, 16>;
type Out = [u8; MAX_MESSAGE];

/// # Safety
/// `bytes` points to `length` bytes.
unsafe fn frame<'b>(bytes: *const u8, length: usize, handles: usize) -> Option<Frame<'b, u32>> {
    // SAFETY: as promised by the caller.
    let bytes = unsafe { slice::from_raw_parts(bytes, length) };
    let (header, payload) = Header::split_from(bytes)?;
    Some(Frame { header: *header, payload, handles: (0..handles as u32).take(8).collect::<Handles<u32>>() })
}

#[unsafe(no_mangle)]
pub extern "C" fn new_backend(features: u64, protocol: u64, rings: u16, out: &mut Back) {
    let features = VirtioFeatures::from_bits_retain(features);
    *out = Back::new(BackendConfig::new(features, ProtocolFeatures::from_bits_retain(protocol), rings));
}

#[unsafe(no_mangle)]
pub extern "C" fn new_frontend(rings: u16, features: u64, protocol: u64, out: &mut Front) {
    *out = Front::new(FrontendConfig::new(rings));
    out.assume_offer(VirtioFeatures::from_bits_retain(features), ProtocolFeatures::from_bits_retain(protocol));
}

/// # Safety
/// `bytes` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn assemble(assembler: &mut Assembler<u32>, bytes: *const u8, length: usize) -> u32 {
    // SAFETY: as promised by the caller.
    let mut bytes = unsafe { slice::from_raw_parts(bytes, length) };
    loop {
        let room = assembler.read_buf();
        let count = room.len().min(bytes.len());
        let (Some(room), Some((now, later))) = (room.get_mut(..count), bytes.split_at_checked(count)) else { return 1 };
        room.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
        bytes = later;
        if assembler.filled(count, [7]).is_err() {
            return 2;
        }
        match assembler.take() {
            Some(frame) => return frame.header.request(),
            None if bytes.is_empty() => return 3,
            None => {}
        }
    }
}

/// # Safety
/// `bytes` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn read_ahead(incoming: &mut ReadAhead<u32>, bytes: *const u8, length: usize) -> u32 {
    // SAFETY: as promised by the caller.
    let bytes = unsafe { slice::from_raw_parts(bytes, length) };
    let room = incoming.read_buf();
    room.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    incoming.filled(length, [7, 8]);
    let mut found = 0_u32;
    while let Ok(Some(frame)) = incoming.next() {
        found ^= frame.header.request() ^ frame.handles.len() as u32;
    }
    found
}

/// # Safety
/// `bytes` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn backend_takes_request(
    backend: &mut Back,
    bytes: *const u8,
    length: usize,
    handles: usize,
    out: &mut Out,
) -> usize {
    // SAFETY: as promised by the caller.
    let Some(frame) = (unsafe { frame(bytes, length, handles) }) else { return 0 };
    let reply = match backend.handle_request(frame) {
        Ok(Incoming::Request(_)) => backend.own_answer::<u32>().unwrap_or(FrontendReply::Done),
        Ok(Incoming::PostcopyMemoryMapped) => return 1,
        Err(_) => FrontendReply::Refused(NonZeroU64::MIN),
    };
    match backend.answer(reply, out) {
        Ok(Answered::Send(transmit)) => transmit.bytes.len(),
        Ok(_) => 2,
        Err(_) => 3,
    }
}

/// Any reply to whatever is pending.
///
/// # Safety
/// `bytes` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn backend_answers(
    backend: &mut Back,
    bytes: *const u8,
    length: usize,
    handles: usize,
    protocol: u64,
    out: &mut Out,
) -> usize {
    // SAFETY: as promised by the caller.
    let Some(frame) = (unsafe { frame(bytes, length, handles) }) else { return 0 };
    let form = Form::reply(ProtocolFeatures::from_bits_retain(protocol));
    match FrontendReply::decode(frame, form).map(|reply| backend.answer(reply, out)) {
        Ok(Ok(Answered::Send(transmit))) => transmit.bytes.len(),
        _ => 0,
    }
}

/// # Safety
/// `bytes` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn backend_requests(
    backend: &mut Back,
    bytes: *const u8,
    length: usize,
    handles: usize,
    out: &mut Out,
) -> usize {
    // SAFETY: as promised by the caller.
    let Some(frame) = (unsafe { frame(bytes, length, handles) }) else { return 0 };
    let form = Form::request(ProtocolFeatures::KNOWN);
    match BackendRequest::decode(frame, form).map(|request| backend.request(request, Delivery::Acknowledged, out)) {
        Ok(Ok(transmit)) => transmit.bytes.len(),
        _ => 0,
    }
}

/// # Safety
/// `bytes` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn backend_takes_reply(
    backend: &mut Back,
    bytes: *const u8,
    length: usize,
    handles: usize,
) -> usize {
    // SAFETY: as promised by the caller.
    let Some(frame) = (unsafe { frame(bytes, length, handles) }) else { return 0 };
    usize::from(backend.handle_reply(frame).is_ok())
}

/// # Safety
/// `bytes` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn frontend_requests(
    frontend: &mut Front,
    bytes: *const u8,
    length: usize,
    handles: usize,
    protocol: u64,
    out: &mut Out,
) -> usize {
    // SAFETY: as promised by the caller.
    let Some(frame) = (unsafe { frame(bytes, length, handles) }) else { return 0 };
    let form = Form::request(ProtocolFeatures::from_bits_retain(protocol));
    match FrontendRequest::decode(frame, form).map(|request| frontend.request(request, Delivery::Acknowledged, out)) {
        Ok(Ok(transmit)) => transmit.bytes.len(),
        _ => 0,
    }
}

/// # Safety
/// `bytes` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn frontend_takes_reply(
    frontend: &mut Front,
    bytes: *const u8,
    length: usize,
    handles: usize,
) -> usize {
    // SAFETY: as promised by the caller.
    let Some(frame) = (unsafe { frame(bytes, length, handles) }) else { return 0 };
    usize::from(frontend.handle_reply(frame).is_ok())
}

/// # Safety
/// `bytes` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn frontend_serves(
    frontend: &mut Front,
    bytes: *const u8,
    length: usize,
    handles: usize,
    out: &mut Out,
) -> usize {
    // SAFETY: as promised by the caller.
    let Some(frame) = (unsafe { frame(bytes, length, handles) }) else { return 0 };
    let reply = match frontend.handle_request(frame) {
        Ok(_) => BackendReply::<u32>::Done,
        Err(_) => BackendReply::Refused(NonZeroU64::MIN),
    };
    match frontend.answer_backend(reply, out) {
        Ok(Answered::Send(transmit)) => transmit.bytes.len(),
        _ => 0,
    }
}

/// # Safety
/// `bytes` points to `length` bytes.
#[cfg(feature = "planted")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn planted(bytes: *const u8, length: usize, index: usize) -> u8 {
    // SAFETY: as promised by the caller.
    let bytes = unsafe { slice::from_raw_parts(bytes, length) };
    bytes[index]
}
