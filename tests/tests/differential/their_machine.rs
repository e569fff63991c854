//! rust-vmm's back-end, one message at a time.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost::vhost_user::BackendReqHandler;

use crate::conversation::Served;
use crate::our_machine::CONFIG;
use crate::recorder::Recorder;

/// Their machine. It ends at its first error, as their daemons do.
pub(crate) struct TheirMachine {
    connection: BackendReqHandler<Mutex<Recorder>>,
    socket: UnixStream,
    recorder: Arc<Mutex<Recorder>>,
}

impl TheirMachine {
    pub(crate) fn new(socket: UnixStream) -> Self {
        let recorder = Arc::new(Mutex::new(Recorder::new(&CONFIG)));
        let connection = BackendReqHandler::from_stream(socket.try_clone().unwrap(), Arc::clone(&recorder));
        Self { connection, socket, recorder }
    }
}

impl Served for TheirMachine {
    fn serve(&mut self) -> bool {
        let is_readable = || {
            let mut polled = [PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN)];
            poll(&mut polled, Some(&Timespec::default())).unwrap() == 1
        };
        while is_readable() {
            if self.connection.handle_request().is_err() {
                return false;
            }
        }
        true
    }

    fn take_told(&mut self) -> Vec<String> {
        core::mem::take(&mut self.recorder.lock().unwrap().entries)
    }
}
