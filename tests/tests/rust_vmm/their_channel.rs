//! Our back-end asks their front-end, on the channel that it was given.

use std::sync::{Arc, Mutex};

use vhost::VhostBackend;
use vhost::vhost_user::{
    Frontend, FrontendReqHandler, HandlerResult, VhostUserFrontend, VhostUserFrontendReqHandlerMut,
};
use vhost_tests::driver::{BLOCK, GuestMemory, Ring, wait_readable};

use crate::their_frontend::{agree, borrowed, info, serve, start};

/// Counts what it hears.
#[derive(Default)]
struct Counting {
    config_changes: u32,
}

impl VhostUserFrontendReqHandlerMut for Counting {
    fn handle_config_change(&mut self) -> HandlerResult<u64> {
        self.config_changes += 1;
        Ok(0)
    }
}

#[test]
fn our_back_end_tells_their_front_end_of_a_new_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let (server, notifier) = serve(&path);
    let mut frontend = Frontend::connect(&path, 2).unwrap();
    agree(&mut frontend);
    let counting = Arc::new(Mutex::new(Counting::default()));
    let mut channel = FrontendReqHandler::new(Arc::clone(&counting)).unwrap();
    frontend.set_backend_request_fd(&channel.get_tx_raw_fd()).unwrap();
    // A device none of whose rings runs is suspended, and says nothing.
    let memory = Arc::new(GuestMemory::new(BLOCK));
    frontend.set_mem_table(&[info(&memory)]).unwrap();
    let _events = start(&mut frontend, &mut Ring::new(&memory, 0, 16));
    for expected in 1..4 {
        notifier.config_changed().unwrap();
        wait_readable(borrowed(&channel));
        assert_eq!(channel.handle_request().unwrap(), 0);
        assert_eq!(counting.lock().unwrap().config_changes, expected);
    }
    server.stop().unwrap();
}
