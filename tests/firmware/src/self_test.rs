//! Both sides against each other, in memory: a front-end's machine and a back-end's, a driver's ring and a device's.

use core::sync::atomic::AtomicU16;

use heapless::Vec;
use vhost_core::{
    Answered, Backend, BackendConfig, Buffer, Delivery, DeviceQueue, DriverQueue, Frame, Frontend, FrontendConfig,
    FrontendReply, FrontendRequest, GuestAddress, GuestMemory, GuestRange, Incoming, ProtocolFeatures, RingAddresses,
    RingLayout, RingParts, RingUser, Transmit, VirtioFeatures, WordMemory, WordRange,
    wire::{header::Header, vring::VringBase},
};

use crate::{
    device::{FEATURES, PROTOCOL},
    ring::invert,
};

const SIZE: u32 = 8;
const BASE: GuestAddress = GuestAddress(0x4000);
const REQUEST: Buffer = Buffer { address: GuestAddress(0x4800), length: 5 };
const ANSWER: Buffer = Buffer { address: GuestAddress(0x4900), length: 5 };

/// `None` if anything is not as it must be.
pub(crate) fn run() -> Option<()> {
    machines()?;
    static WORDS: [AtomicU16; 0x800] = [const { AtomicU16::new(0) }; 0x800];
    let memory = WordMemory::new(BASE, &WORDS)?;
    ring(&memory, VirtioFeatures::VERSION_1)?;
    memory.range(BASE, 0x800, vhost_core::Access::ReadWrite).ok()?.write_from(0, &[0; 0x800])?;
    ring(&memory, VirtioFeatures::VERSION_1 | VirtioFeatures::RING_PACKED)
}

/// The features are negotiated.
fn machines() -> Option<()> {
    let mut frontend = Frontend::<1, 1, 4>::new(FrontendConfig::new(1));
    let mut backend = Backend::<1, 1, 4>::new(BackendConfig::new(FEATURES, PROTOCOL, 1));
    ask(&mut frontend, &mut backend, FrontendRequest::GetFeatures)?;
    ask(&mut frontend, &mut backend, FrontendRequest::GetProtocolFeatures)?;
    ask(&mut frontend, &mut backend, FrontendRequest::SetProtocolFeatures(PROTOCOL))?;
    ask(&mut frontend, &mut backend, FrontendRequest::SetFeatures(FEATURES | VirtioFeatures::PROTOCOL_FEATURES))?;
    let agreed = frontend.session().negotiated();
    let is_whole = agreed.protocol == PROTOCOL && agreed.protocol.contains(ProtocolFeatures::INBAND_NOTIFICATIONS);
    (is_whole && agreed == backend.session().negotiated()).then_some(())
}

/// One request, to the back-end and back.
fn ask(
    frontend: &mut Frontend<1, 1, 4>,
    backend: &mut Backend<1, 1, 4>,
    request: FrontendRequest<'_, u8>,
) -> Option<()> {
    let (mut out, mut back) = ([0; 64], [0; 64]);
    let sent = frontend.request(request, Delivery::Acknowledged, &mut out).ok()?;
    let Ok(Incoming::Request(_)) = backend.handle_request(frame(sent)?) else { return None };
    let reply = backend.own_answer().unwrap_or(FrontendReply::Done);
    let Ok(Answered::Send(answer)) = backend.answer::<u8>(reply, &mut back) else {
        return (frontend.outstanding() == 0).then_some(());
    };
    frontend.handle_reply(frame(answer)?).ok().map(drop)
}

fn frame<'b>(sent: Transmit<'b, u8>) -> Option<Frame<'b, u8>> {
    let (header, payload) = Header::split_from(sent.bytes)?;
    Some(Frame { header: *header, payload, handles: sent.handles })
}

/// A request goes to the device and comes back.
fn ring(memory: &WordMemory<'static>, features: VirtioFeatures) -> Option<()> {
    let layout = RingLayout::of(features);
    let [descriptor, driver, device] = [0, 0x400, 0x600].map(|offset| GuestAddress(BASE.0 + offset));
    let addresses = RingAddresses { descriptor, driver, device };
    let parts = |user| RingParts::translate(memory, addresses, layout, SIZE, user).ok();
    let mut driver = DriverQueue::<WordRange<'_>, 8>::new(parts(RingUser::Driver)?, SIZE, features).ok()?;
    let base = match layout {
        RingLayout::Split => VringBase::split(0),
        RingLayout::Packed => VringBase::packed(0x8000_8000),
    };
    let mut device = DeviceQueue::new(parts(RingUser::Device)?, SIZE, features, base).ok()?;

    let [asked, answered] =
        [REQUEST, ANSWER].map(|buffer| memory.range(buffer.address, 5, vhost_core::Access::ReadWrite));
    asked.ok()?.write_from(0, b"hello")?;
    let token = driver.add(&[REQUEST], &[ANSWER]).ok()?;
    driver.publish().ok()?;

    let mut pieces = Vec::<WordRange<'_>, 4>::new();
    let chain = device.pop(memory, &mut pieces).ok()??;
    let (readable, writable) = chain.split(&pieces);
    let written = invert(readable, writable);
    device.push(chain, written).ok()?;

    let used = driver.poll().ok()??;
    let bytes = answered.ok()?.read::<5>(0)?;
    (used.token == token && used.written == 5 && bytes == b"hello".map(|byte| !byte)).then_some(())
}
