//! The thread of a back-end of rust-vmm's.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use vhost::vhost_user::{BackendListener, Error, Listener};
use vhost_core::{ProtocolFeatures, VirtioFeatures};
use vhost_std::deadline::Deadline;
use vhost_std::frontend::Frontend;
use vhost_tests::dialog::PATIENCE;

use crate::recorder::{PROTOCOL, Recorder, VIRTIO};

/// Bytes of configuration space.
pub(crate) const CONFIG: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

/// Listens, in a thread of its own, for the front-end that is given back; serves it until one of the two has enough.
pub(crate) fn start(path: &Path) -> (Frontend, Arc<Mutex<Recorder>>, JoinHandle<Error>) {
    let handler = Arc::new(Mutex::new(Recorder::new(&CONFIG)));
    let mut listener = Listener::new(path, false).unwrap();
    let theirs = Arc::clone(&handler);
    let thread = std::thread::spawn(move || {
        let mut listener = BackendListener::new(&mut listener, theirs).unwrap();
        let mut connection = listener.accept().unwrap().unwrap();
        loop {
            if let Err(error) = connection.handle_request() {
                break error;
            }
        }
    });
    let mut frontend = Frontend::connect(path, Deadline::after(PATIENCE)).unwrap();
    frontend.set_timeout(Some(PATIENCE));
    (frontend, handler, thread)
}

/// Agrees on everything.
pub(crate) fn agree(frontend: &mut Frontend) {
    let agreed = frontend.negotiate(VirtioFeatures::all(), ProtocolFeatures::KNOWN).unwrap();
    assert_eq!((agreed.acknowledged.bits(), agreed.protocol.bits()), (VIRTIO, PROTOCOL));
}
