//! A server whose kernel is the other end of a socket: it asks, and knows none of the calls.

use std::os::unix::net::UnixDatagram;

use vhost_core::uapi::vduse_message::{VDUSE_MESSAGE_SIZE, VduseMessage};
use vhost_core::{Iova, RingLayout};
use vhost_std::device::Queue;

use super::*;

struct Nothing;

impl Device for Nothing {
    fn device_id(&self) -> u32 {
        42
    }

    fn queues(&self) -> u16 {
        2
    }

    fn process(&self, _: &mut Queue<'_>) {}
}

/// A server, and what its kernel is.
fn served() -> (VduseServer, UnixDatagram) {
    let (kernel, ours) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let vduse = VduseDevice::of(ours.into(), VduseVersion::V1);
    (VduseServer::new(vduse, Arc::new(Nothing)).unwrap(), kernel)
}

fn ask(server: &mut VduseServer, kernel: &UnixDatagram, request: VduseRequest) -> VduseAnswer {
    kernel.send(&VduseMessage { id: 7, request }.encode()).unwrap();
    server.process().unwrap();
    let mut bytes = [0; VDUSE_MESSAGE_SIZE];
    let length = kernel.recv(&mut bytes).unwrap();
    let (id, answer) = VduseAnswer::decode(&bytes[..length], request, RingLayout::Split).unwrap();
    assert_eq!(id, 7);
    answer
}

#[test]
fn why_a_request_failed_is_kept_with_the_errno_and_the_call() {
    let (mut server, kernel) = served();
    let whole = VduseRequest::SetStatus(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
    assert_eq!(ask(&mut server, &kernel, whole), VduseAnswer::Done);
    assert_eq!(server.refusals(), (0, None));
    let refused = VduseRequest::SetStatus(DeviceStatus::FEATURES_OK);
    assert_eq!(ask(&mut server, &kernel, refused), VduseAnswer::Failed);
    let (count, last) = server.refusals();
    let VduseRefusal { request, error } = *last.unwrap();
    assert_eq!((count, request, error.errno()), (1, refused, Some(Errno::NOTTY)));
    assert!(error.to_string().contains("VDUSE_DEV_GET_FEATURES"), "{error}");
    assert_eq!(server.status(), DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER, "nothing has changed");

    let update = VduseRequest::UpdateIotlb { first: Iova(0), last: Iova(0xfff), asid: 0 };
    for (number, refused) in (2..).zip([
        update,
        VduseRequest::GetVringState { index: 2 },
        VduseRequest::GetVringState { index: 0x1_0000 },
        VduseRequest::SetGroupAsid { group: 0, asid: 1 },
        VduseRequest::Unknown { request_type: 99 },
    ]) {
        assert_eq!(ask(&mut server, &kernel, refused), VduseAnswer::Failed);
        let (count, last) = server.refusals();
        assert_eq!((count, last.unwrap().request), (number, refused));
        assert!(!last.unwrap().error.to_string().is_empty());
    }
    for granted in [VduseRequest::GetVringState { index: 1 }, VduseRequest::SetGroupAsid { group: 0, asid: 0 }] {
        assert_ne!(ask(&mut server, &kernel, granted), VduseAnswer::Failed);
    }
    assert_eq!(server.refusals().0, 6);
}
