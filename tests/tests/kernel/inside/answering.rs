//! A VDUSE device that does nothing but answer the kernel.

use rustix::event::{PollFd, PollFlags, poll};
use vhost_core::VirtioFeatures;
use vhost_core::uapi::vduse_message::{VduseAnswer, VduseRequest};
use vhost_core::wire::vring::VringBase;
use vhost_kernel::vduse::{DeviceOptions, VduseDevice};
use vhost_std::eventfd::EventFd;

/// A disk of one ring.
pub(crate) fn options(name: &str) -> DeviceOptions<'_> {
    DeviceOptions {
        name,
        vendor_id: 1,
        device_id: 2,
        features: VirtioFeatures::VERSION_1 | VirtioFeatures::ACCESS_PLATFORM,
        vring_count: 1,
        vring_align: 4096,
        group_count: 1,
        address_space_count: 1,
        config: &[7; 60],
    }
}

/// Answers until `stop` is signalled. It maps nothing, as its own process is the driver's too.
pub(crate) fn answer(device: &VduseDevice, stop: &EventFd, answer: impl Fn(VduseRequest) -> VduseAnswer) {
    loop {
        let mut polled = [PollFd::new(device, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        poll(&mut polled, None).unwrap();
        while let Some(message) = device.next_request().unwrap() {
            device.answer(message.id, answer(message.request)).unwrap();
        }
        if stop.drain().unwrap() > 0 {
            return;
        }
    }
}

/// Everything is fine.
pub(crate) fn yes(request: VduseRequest) -> VduseAnswer {
    match request {
        VduseRequest::GetVringState { index } => {
            VduseAnswer::Position { index, base: VringBase::Split { available: 0 } }
        }
        _ => VduseAnswer::Done,
    }
}
