//! What a device hears of its queues.

use core::fmt::Debug;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use vhost_core::{VhostBackend, VirtioFeatures, VringSetting};
use vhost_std::device::{Device, Queue};
use vhost_std::eventfd::EventFd;
use vhost_std::frontend::Frontend;
use vhost_std::server::{BackendServer, End, ServerOptions};
use vhost_std::socket::Socket;
use vhost_std::soft::{RingThreads, SoftBackend};
use vhost_tests::dialog::PATIENCE;

/// Notes which queues were disabled, and counts half of its queues for whoever asks how many there are.
#[derive(Default)]
struct Listening {
    disabled: Mutex<Vec<u16>>,
}

impl Device for Listening {
    fn device_id(&self) -> u32 {
        42
    }
    fn queues(&self) -> u16 {
        4
    }
    fn queue_num(&self) -> u16 {
        2
    }
    fn process(&self, _: &mut Queue<'_>) {}
    fn queue_disabled(&self, queue: u16) {
        self.disabled.lock().unwrap().push(queue);
    }
}

fn disable_some<B>(backend: &mut B, device: &Listening)
where
    B: VhostBackend<Handle = dyn AsFd, Memory = dyn AsFd, Error: Debug>,
{
    backend.set_owner().unwrap();
    let offered = backend.features().unwrap();
    backend.acknowledge(offered & VirtioFeatures::VERSION_1).unwrap();
    for setting in [VringSetting::Enable, VringSetting::Enable, VringSetting::Disable, VringSetting::Disable] {
        for ring in [3, 1] {
            backend.set_vring(ring, setting).unwrap();
        }
    }
    backend.set_vring(0, VringSetting::Disable).unwrap();
    assert_eq!(*device.disabled.lock().unwrap(), [3, 1], "each that was enabled, once");
}

#[test]
fn a_device_hears_of_queues_that_are_disabled_in_its_own_process() {
    let device = Arc::new(Listening::default());
    disable_some(&mut SoftBackend::new(device.clone(), RingThreads::Caller).unwrap(), &device);
}

#[test]
fn a_device_hears_of_queues_that_are_disabled_by_messages_and_counts_them_its_way() {
    let device = Arc::new(Listening::default());
    let mut server = BackendServer::new(device.clone(), ServerOptions::default()).unwrap();
    let (near, far) = Socket::pair().unwrap();
    std::thread::scope(|scope| {
        let served = scope.spawn(|| server.connect(far).run(EventFd::new().unwrap()));
        let mut frontend = Frontend::from_socket(near);
        frontend.set_timeout(Some(PATIENCE));
        disable_some(&mut frontend, &device);
        assert_eq!(frontend.get_queue_num().unwrap(), 2);
        drop(frontend);
        assert_eq!(served.join().unwrap(), Ok(End::PeerClosed));
    });
}
