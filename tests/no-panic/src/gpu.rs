//! The GPU channel and the dialects of the back-end's channel.

use core::num::NonZeroU64;

use vhost_core::{
    Answered, Assembler, BackendConfig, BackendRequest, CacheEntries, CacheEntry, Delivery, Dialect, Form,
    FrontendConfig, FrontendRequest, GpuBackend, GpuBackendConfig, GpuFeatures, GpuFrontend, GpuFrontendConfig,
    GpuReply, GpuRequest, MapChange, ProtocolFeatures, VirtioFeatures,
    wire::{
        crypto::SymmetricKeys,
        gpu::{Area, AreaImage, Display, DisplayInfo, Edid},
    },
};

use super::{Back, Front, Out, frame};

type Gpu = GpuBackend<16>;

#[unsafe(no_mangle)]
pub extern "C" fn new_gpu(features: u64, scanouts: u8, asking: &mut Gpu, answering: &mut GpuFrontend) {
    *asking = Gpu::new(GpuBackendConfig::new(scanouts));
    *answering = GpuFrontend::new(GpuFrontendConfig::new(GpuFeatures::from_bits_retain(features), scanouts));
}

/// # Safety
/// `bytes` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gpu_asks(
    gpu: &mut Gpu,
    bytes: *const u8,
    length: usize,
    handles: usize,
    out: &mut Out,
) -> usize {
    // SAFETY: as promised by the caller.
    let Some(frame) = (unsafe { frame(bytes, length, handles) }) else { return 0 };
    let form = Form::request(ProtocolFeatures::empty());
    let sent = gpu.image_sent(length).is_ok();
    match GpuRequest::decode(frame, form).map(|request| gpu.request(request, out)) {
        Ok(Ok(transmit)) => transmit.bytes.len(),
        _ => usize::from(sent),
    }
}

/// # Safety
/// `bytes` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gpu_takes_reply(gpu: &mut Gpu, bytes: *const u8, length: usize, handles: usize) -> u32 {
    // SAFETY: as promised by the caller.
    let Some(frame) = (unsafe { frame(bytes, length, handles) }) else { return 0 };
    match gpu.handle_reply(frame) {
        Ok(GpuReply::GetEdid(edid)) => edid.data().iter().map(|byte| u32::from(*byte)).fold(0, u32::wrapping_add),
        Ok(GpuReply::GetDisplayInfo(info)) => info.displays().fold(0, |sum, display| sum ^ display.width),
        Ok(_) => 1,
        Err(_) => 2,
    }
}

/// # Safety
/// `bytes` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gpu_answers(
    gpu: &mut GpuFrontend,
    bytes: *const u8,
    length: usize,
    handles: usize,
    number: u64,
    out: &mut Out,
) -> usize {
    // SAFETY: as promised by the caller.
    let Some(frame) = (unsafe { frame(bytes, length, handles) }) else { return 0 };
    // SAFETY: as promised by the caller.
    let data = unsafe { core::slice::from_raw_parts(bytes, length) };
    let display = Display { width: length as u32, height: number as u32, enabled: true, ..Display::default() };
    let (info, edid) = (DisplayInfo::new(&[display]), Edid::new(data));
    let reply = match (gpu.handle_request(frame), &edid) {
        (Ok(GpuRequest::GetDisplayInfo), _) => GpuReply::GetDisplayInfo(&info),
        (Ok(GpuRequest::GetEdid(_)), Some(edid)) => GpuReply::GetEdid(edid),
        (Ok(_), _) => gpu.own_answer::<u32>().unwrap_or(GpuReply::Done),
        (Err(_), _) => GpuReply::Refused(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN)),
    };
    match gpu.answer(reply, out) {
        Ok(Answered::Send(transmit)) => transmit.bytes.len(),
        Ok(_) => 1,
        Err(_) => 2,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn images(assembler: &mut Assembler<u32>, width: u32, height: u32, count: usize) -> u32 {
    assembler.image_read(count);
    let image = AreaImage::new(Area::new(0, 0, 0, width, height)).map_or(0, |image| image.bytes());
    assembler.image_left() ^ image
}

fn dialect(number: u32) -> Dialect {
    match number {
        1 => Dialect::FsA1,
        2 => Dialect::FsA2,
        3 => Dialect::FsA2Gen,
        4 => Dialect::FsB,
        5 => Dialect::Private1000,
        6 => Dialect::Crosvm1002,
        7 => Dialect::Auto,
        _ => Dialect::Standard,
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn speak(number: u32, front: &mut Front, back: &mut Back) {
    let mut config = FrontendConfig::new(1);
    config.dialect = dialect(number);
    *front = Front::new(config);
    let mut config = BackendConfig::new(VirtioFeatures::empty(), ProtocolFeatures::KNOWN, 1);
    config.dialect = dialect(number);
    *back = Back::new(config);
}

/// # Safety
/// `bytes` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mappings(
    number: u32,
    back: &mut Back,
    bytes: *const u8,
    length: usize,
    handles: usize,
    entries: &[CacheEntry; 9],
    flags: u64,
    out: &mut Out,
) -> u64 {
    // SAFETY: as promised by the caller.
    let Some(frame) = (unsafe { frame(bytes, length, handles) }) else { return 0 };
    let form = Form::request(ProtocolFeatures::KNOWN).with_dialect(dialect(number));
    let Ok(request) = BackendRequest::decode(frame, form) else { return 0 };
    let sum = request.maps().fold(0_u64, |sum, change| match change {
        MapChange::Map { offset, length, .. } => sum ^ offset ^ length,
        MapChange::Unmap { offset, .. } => sum ^ offset,
        _ => sum,
    });
    let own =
        BackendRequest::CacheMap(CacheEntries::new(entries.get(..length).unwrap_or(entries)).with_flags(flags), 7);
    let sent = back.request(own, Delivery::Acknowledged, out).is_ok();
    sum ^ u64::from(request.encode(true, form, out).is_ok()) ^ u64::from(sent)
}

/// # Safety
/// `bytes` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn crypto(bytes: *const u8, length: usize) -> usize {
    // SAFETY: as promised by the caller.
    let Some(frame) = (unsafe { frame(bytes, length, 0) }) else { return 0 };
    match FrontendRequest::decode(frame, Form::request(ProtocolFeatures::KNOWN)) {
        Ok(FrontendRequest::CreateCryptoSession(session)) => {
            let symmetric = session.symmetric().map_or(0, |keys: SymmetricKeys<'_>| keys.authentication_key.len());
            let again = session
                .symmetric()
                .map(|keys| vhost_core::wire::crypto::CryptoSession::with_symmetric(session.op_code(), &keys).is_ok());
            let asymmetric = session
                .asymmetric()
                .map(|key| vhost_core::wire::crypto::CryptoSession::with_asymmetric(session.op_code(), &key).is_ok());
            symmetric ^ usize::from(again.is_ok()) ^ usize::from(asymmetric.is_ok())
        }
        _ => 0,
    }
}
