//! The suite for everybody who processes rings for a monitor, with a disk behind vhost-vdpa and one behind vhost-scsi.

use core::sync::atomic::{AtomicU32, Ordering};

use vhost_kernel::backend::{KernelBackend, TargetedScsi, VdpaBackend};
use vhost_kernel::scsi::Scsi;
use vhost_kernel::vdpa::Vdpa;

use super::scsi_target::Target;
use super::server::Server;
use super::vdpa::{Daemon, node};
use crate::driver::Driver;
use crate::subject::{DISK, Image, Packed, Subject};

/// Each test has a device of its own.
fn new_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("suite{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Our own disk on the vdpa bus.
struct Disk {
    /// Goes first: the device's server answers its reset.
    backend: Option<VdpaBackend>,
    server: Option<Server>,
}

impl Disk {
    fn new(image: &Image, queues: u16, arguments: &[&str]) -> Self {
        let name = new_name();
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
        Some(Self::new(image, queues, &["--packed"]))
    }

    fn backend(&mut self) -> &mut VdpaBackend {
        self.backend.as_mut().unwrap()
    }
}

/// A disk of qemu-storage-daemon on the vdpa bus.
struct DaemonDisk {
    backend: Option<VdpaBackend>,
    daemon: Option<Daemon>,
}

impl Drop for DaemonDisk {
    fn drop(&mut self) {
        drop(self.backend.take());
        self.daemon.take().unwrap().end();
    }
}

impl Subject for DaemonDisk {
    type Backend = VdpaBackend;

    fn start(image: &Image, queues: u16) -> Option<Self> {
        let name = new_name();
        let daemon = Daemon::start(&name, &image.path(), queues);
        let backend = VdpaBackend::new(Vdpa::open(&node(&name)).unwrap()).unwrap();
        Some(Self { backend: Some(backend), daemon: Some(daemon) })
    }

    fn backend(&mut self) -> &mut VdpaBackend {
        self.backend.as_mut().unwrap()
    }
}

/// A disk of the kernel's SCSI target.
struct ScsiDisk {
    /// Goes first: the target is taken apart then.
    backend: Option<KernelBackend<TargetedScsi>>,
    #[expect(dead_code, reason = "it is there")]
    target: Target,
}

impl Drop for ScsiDisk {
    fn drop(&mut self) {
        drop(self.backend.take());
    }
}

impl Subject for ScsiDisk {
    type Backend = KernelBackend<TargetedScsi>;

    fn start(image: &Image, queues: u16) -> Option<Self> {
        let target = Target::of_file(&image.path(), DISK);
        let scsi = TargetedScsi::new(Scsi::open().unwrap(), target.name(), queues);
        Some(Self { backend: Some(KernelBackend::new(scsi)), target })
    }

    fn backend(&mut self) -> &mut Self::Backend {
        self.backend.as_mut().unwrap()
    }

    fn driver(queues: u16) -> Driver {
        Driver::scsi(queues)
    }
}

/// Makes a test of each scenario for one subject.
macro_rules! inside {
    ($module:ident, $subject:ty: $($scenario:ident),* $(,)?) => {
        mod $module {
            use super::*;

            $(
                #[test]
                #[ignore = "runs in the guest that guest.rs boots"]
                fn $scenario() {
                    crate::suite::$scenario::<$subject>();
                }
            )*
        }
    };
    ($($module:ident: $subject:ty),* $(,)?) => {$(
        inside! {
            $module, $subject:
            what_is_written_is_read_back_and_is_in_the_image,
            a_stopped_ring_tells_where_it_was_and_goes_on_there,
            kick_and_call_are_replaced_and_removed_while_a_ring_runs,
            memory_is_replaced_while_rings_run,
            what_the_device_writes_is_logged_where_that_is_offered,
            a_device_that_was_reset_is_started_again,
            what_is_impossible_is_refused_and_the_rest_goes_on,
            a_disabled_ring_waits_and_goes_on_when_it_is_enabled,
        }
    )*};
}

inside! {
    vdpa: Disk,
    vdpa_packed: Packed<Disk>,
    vdpa_of_another_program: DaemonDisk,
    scsi: ScsiDisk,
}
