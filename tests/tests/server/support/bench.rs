//! A back-end that takes one step at a time, in the thread of the test.

use core::time::Duration;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost_std::server::{BackendServer, Connection, Progress, ServeError};
use vhost_std::socket::Socket;
use vhost_tests::dialog::{self, FakeFrontend, PATIENCE, Received};
use vhost_tests::driver::{GuestMemory, Ring, signals};
use vhost_tests::wire::REQUEST_NEEDING_REPLY;

use super::{Dialog, EVERYTHING, OFFER, id, message};

/// A connection and both its ends: what the front-end sends is served before the next line of the test.
pub(crate) struct Bench<'s> {
    connection: Connection<'s>,
    frontend: FakeFrontend,
}

impl<'s> Bench<'s> {
    /// A connection on which nothing was said.
    pub(crate) fn new(server: &'s mut BackendServer) -> Self {
        let (frontend, theirs) = FakeFrontend::pair();
        Self { connection: server.connect(Socket::from(theirs)), frontend }
    }

    /// A connection on which everything that is offered was negotiated, but for the event index.
    pub(crate) fn negotiated(server: &'s mut BackendServer) -> Self {
        let mut bench = Self::new(server);
        bench.negotiate(OFFER, EVERYTHING);
        bench
    }

    /// The same with memory and a running ring.
    pub(crate) fn running(server: &'s mut BackendServer, memory: &GuestMemory, ring: &Ring) -> Self {
        let mut bench = Self::negotiated(server);
        bench.share(&[memory]);
        bench.start(ring);
        bench.enable(ring, 1);
        bench
    }

    /// The back-end's end.
    pub(crate) fn connection(&self) -> &Connection<'s> {
        &self.connection
    }

    /// Lets the back-end do what it can.
    #[track_caller]
    pub(crate) fn process(&mut self) -> Progress {
        self.connection.process().unwrap_or_else(|error| panic!("the connection was given up: {error}"))
    }

    /// Sends bytes, whatever they are; the reply if there is one, or why the back-end gives up the connection.
    pub(crate) fn try_send(
        &mut self,
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Option<Received>, ServeError> {
        self.frontend.send(bytes, descriptors);
        assert_eq!(self.connection.process()?, Progress::Idle);
        Ok(self.has_reply().then(|| self.frontend.receive()))
    }

    /// Sends bytes; what the back-end finds wrong with them, whether it goes on or not. `None` if nothing. A reply is taken.
    pub(crate) fn complaint(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Option<String> {
        let before = self.connection.refusals().0;
        match self.try_send(bytes, descriptors) {
            Err(error) => Some(error.to_string()),
            Ok(_) if self.connection.refusals().0 == before => None,
            Ok(_) => self.connection.refusals().1.map(str::to_owned),
        }
    }

    /// Whether the back-end has said something that was not taken yet.
    pub(crate) fn has_reply(&self) -> bool {
        let mut polled = [PollFd::from_borrowed_fd(self.frontend.as_fd(), PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).unwrap() == 1
    }

    /// Sends bytes that the back-end gives up the connection for; why it does.
    #[track_caller]
    pub(crate) fn fails(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> ServeError {
        self.frontend.send(bytes, descriptors);
        self.connection.process().expect_err("the connection goes on")
    }

    /// Sends a request that is refused; what the back-end says about it.
    #[track_caller]
    pub(crate) fn refused(&mut self, name: &str, payload: &[u8], descriptors: &[BorrowedFd<'_>]) -> String {
        let before = self.connection.refusals().0;
        self.say(&message(name, REQUEST_NEEDING_REPLY, payload), descriptors);
        assert_eq!(self.frontend.receive_reply(id(name)).number(), 1, "{name} was granted");
        let (count, reason) = self.connection.refusals();
        assert_eq!(count, before + 1);
        reason.unwrap().to_owned()
    }

    /// Whether one of the descriptors that the back-end waits for says that there is something to do.
    pub(crate) fn is_work_due(&self) -> bool {
        let waiting = self.connection.descriptors().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        poll(&mut Vec::from_iter(waiting), Some(&Timespec::default())).unwrap() > 0
    }

    /// How many descriptors tell of something to do within so much time, as soon as one does.
    pub(crate) fn wake_ups_within(&self, limit: Duration) -> usize {
        let waiting = self.connection.descriptors().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
        let (mut waiting, limit) = (Vec::from_iter(waiting), Timespec::try_from(limit).unwrap());
        rustix::io::retry_on_intr(|| poll(&mut waiting, Some(&limit))).unwrap()
    }

    /// Lets the back-end work until nothing is left to do. Fails when there is no end to it.
    #[track_caller]
    pub(crate) fn settle(&mut self) {
        let mut steps = 0;
        while self.is_work_due() {
            assert!(steps < 100, "there is something to do all the time");
            let _ = self.process();
            steps += 1;
        }
    }

    /// Gives the back-end a channel for its own requests; this end of it.
    #[track_caller]
    pub(crate) fn open_channel(&mut self) -> dialog::Socket {
        let (ours, theirs) = dialog::Socket::pair();
        self.grant("SET_BACKEND_REQ_FD", &[], &[theirs.as_fd()]);
        ours
    }

    /// Closes the front-end's end; how the connection ends.
    pub(crate) fn hang_up(self) -> Result<Progress, ServeError> {
        let Self { mut connection, frontend } = self;
        drop(frontend);
        connection.process()
    }

    /// Waits for the next chain to come back, whoever processes the rings.
    #[track_caller]
    pub(crate) fn wait_used(&mut self, ring: &mut Ring) -> (u32, u32) {
        loop {
            if let Some(used) = ring.take_used() {
                return used;
            }
            self.wait_for(ring.call.as_fd());
            signals(&ring.call);
        }
    }

    /// Lets the back-end work until it has signalled an event counter.
    #[track_caller]
    pub(crate) fn wait_for_signal(&mut self, counter: &OwnedFd) {
        self.wait_for(counter.as_fd());
    }

    /// Lets the back-end work until a descriptor is readable. Fails when that takes too long.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, descriptor: BorrowedFd<'_>) {
        let limit = Timespec::try_from(PATIENCE).unwrap();
        loop {
            let waiting = self.connection.descriptors().chain([descriptor]);
            let mut waiting = Vec::from_iter(waiting.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
            let ready = rustix::io::retry_on_intr(|| poll(&mut waiting, Some(&limit))).unwrap();
            assert!(ready > 0, "nothing happens any more");
            if !waiting.last().unwrap().revents().is_empty() {
                return;
            }
            let _ = self.process();
        }
    }
}

impl Dialog for Bench<'_> {
    fn frontend(&self) -> &FakeFrontend {
        &self.frontend
    }

    #[track_caller]
    fn say(&mut self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        self.frontend.send(bytes, descriptors);
        assert_eq!(self.process(), Progress::Idle);
    }
}
