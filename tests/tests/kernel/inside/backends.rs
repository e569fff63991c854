//! The suite for everybody who processes rings for a monitor, with our disk behind vhost-vdpa.

use core::sync::atomic::{AtomicU32, Ordering};

use vhost_kernel::backend::VdpaBackend;
use vhost_kernel::vdpa::Vdpa;

use super::server::Server;
use super::vdpa::node;
use crate::subject::{Image, Subject};

/// Each test has a device of its own.
static NEXT: AtomicU32 = AtomicU32::new(0);

struct Disk {
    /// Goes first: the device's server answers its reset.
    backend: Option<VdpaBackend>,
    server: Option<Server>,
}

impl Disk {
    fn new(image: &Image, queues: u16, arguments: &[&str]) -> Self {
        let name = format!("suite{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let queues = format!("--num-queues={queues}");
        let arguments = [&[queues.as_str()], arguments].concat();
        let server = Server::start(&name, &image.path(), &arguments, "is on the vdpa bus");
        let backend = VdpaBackend::new(Vdpa::open(&node(&name)).unwrap()).unwrap();
        Self { backend: Some(backend), server: Some(server) }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.backend.take());
        self.server.take().unwrap().end();
    }
}

impl Subject for Disk {
    type Backend = VdpaBackend;

    fn start(image: &Image, queues: u16) -> Option<Self> {
        Some(Self::new(image, queues, &[]))
    }

    fn backend(&mut self) -> &mut VdpaBackend {
        self.backend.as_mut().unwrap()
    }
}

macro_rules! inside {
    ($($scenario:ident),* $(,)?) => {$(
        #[test]
        #[ignore = "runs in the guest that guest.rs boots"]
        fn $scenario() {
            crate::suite::$scenario::<Disk>();
        }
    )*};
}

inside! {
    what_is_written_is_read_back_and_is_in_the_image,
    a_stopped_ring_tells_where_it_was_and_goes_on_there,
    kick_and_call_are_replaced_and_removed_while_a_ring_runs,
    memory_is_replaced_while_rings_run,
    what_the_device_writes_is_logged_where_that_is_offered,
    a_device_that_was_reset_is_started_again,
    what_is_impossible_is_refused_and_the_rest_goes_on,
    a_disabled_ring_waits_and_goes_on_when_it_is_enabled,
}
