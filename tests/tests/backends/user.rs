//! The vhost-user front-end, with our server and with qemu-storage-daemon behind it.

use std::process::Command;
use std::sync::Arc;
use std::thread::JoinHandle;

use vhost_core::{ProtocolFeatures, VhostBackend, VirtioFeatures};
use vhost_std::deadline::Deadline;
use vhost_std::eventfd::EventFd;
use vhost_std::frontend::Frontend;
use vhost_std::server::{BackendServer, End, RingThreads, ServerOptions};
use vhost_std::socket::Socket;
use vhost_tests::dialog::PATIENCE;
use vhost_tests::program::{Running, require};

use crate::driver::Driver;
use crate::subject::{Image, Packed, Subject};
use crate::suite::suite;

/// Our server on a thread, and a front-end that is connected to it.
struct Pair {
    /// Goes first, which ends the server's thread.
    frontend: Option<Frontend>,
    server: Option<JoinHandle<()>>,
}

impl Pair {
    fn new(image: &Image, queues: u16, threads: RingThreads) -> Self {
        let (ours, theirs) = Socket::pair().unwrap();
        let mut options = ServerOptions::default();
        options.threads = threads;
        let mut server = BackendServer::new(Arc::new(image.device(queues)), options).unwrap();
        let stop = EventFd::new().unwrap();
        let run = move || assert_eq!(server.connect(theirs).run(stop), Ok(End::PeerClosed));
        let mut frontend = Frontend::from_socket(ours);
        frontend.set_timeout(Some(PATIENCE));
        Self { frontend: Some(frontend), server: Some(std::thread::spawn(run)) }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        drop(self.frontend.take());
        let ended = self.server.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking(), "the server failed");
    }
}

#[test]
fn a_choice_of_protocol_features_is_kept_and_the_device_status_follows() {
    let image = Image::new();
    let mut pair = Pair::new(&image, 1, RingThreads::Shared(1));
    let frontend = pair.frontend.as_mut().unwrap();
    let chosen = ProtocolFeatures::STATUS | ProtocolFeatures::REPLY_ACK;
    frontend.negotiate(VirtioFeatures::VERSION_1, chosen).unwrap();
    Driver::new(1).bring_up(frontend);
    assert_eq!(frontend.negotiated().protocol, chosen);
    // ACKNOWLEDGE, DRIVER, FEATURES_OK and DRIVER_OK.
    assert_eq!(frontend.get_status().unwrap(), 15);
    VhostBackend::reset(frontend).unwrap();
    assert_eq!(frontend.get_status().unwrap(), 0);
}

mod our_server {
    use super::*;

    struct User(Pair);

    impl Subject for User {
        type Backend = Frontend;

        fn start(image: &Image, queues: u16) -> Option<Self> {
            Some(Self(Pair::new(image, queues, RingThreads::Shared(2))))
        }

        fn backend(&mut self) -> &mut Frontend {
            self.0.frontend.as_mut().unwrap()
        }
    }

    suite!(User);

    mod packed {
        use super::*;

        suite!(Packed<User>);
    }
}

mod our_server_on_one_thread {
    use super::*;

    struct User(Pair);

    impl Subject for User {
        type Backend = Frontend;

        fn start(image: &Image, queues: u16) -> Option<Self> {
            Some(Self(Pair::new(image, queues, RingThreads::Caller)))
        }

        fn backend(&mut self) -> &mut Frontend {
            self.0.frontend.as_mut().unwrap()
        }
    }

    suite!(User);

    mod packed {
        use super::*;

        suite!(Packed<User>);
    }
}

mod qemu_storage_daemon {
    use super::*;

    struct User {
        frontend: Frontend,
        _daemon: Running,
    }

    impl Subject for User {
        type Backend = Frontend;

        fn start(image: &Image, queues: u16) -> Option<Self> {
            let program = require("qemu-storage-daemon")?;
            let blockdev = format!("driver=file,node-name=f,filename={}", image.path().display());
            let export = format!(
                "type=vhost-user-blk,id=e,node-name=f,addr.type=unix,addr.path={},writable=on,num-queues={queues}",
                image.socket().display()
            );
            let mut daemon = Running::start(Command::new(program).args(["--blockdev", &blockdev, "--export", &export]));
            daemon.wait_for_socket(&image.socket(), PATIENCE);
            let mut frontend = Frontend::connect(image.socket(), Deadline::after(PATIENCE)).unwrap();
            frontend.set_timeout(Some(PATIENCE));
            Some(Self { frontend, _daemon: daemon })
        }

        fn backend(&mut self) -> &mut Frontend {
            &mut self.frontend
        }
    }

    // It processes a ring that was disabled and not stopped.
    suite!(User, but for disabled rings);
}
