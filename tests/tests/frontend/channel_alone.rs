//! The back-end's channel as something of its own: how it ends, and that neither channel waits for the other.

use core::time::Duration;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost_std::deadline::Deadline;
use vhost_std::frontend::{
    BackendChannel, BackendRequestHandler, BackendRequestHandlerMut, ChannelState, Frontend, Refusal,
};
use vhost_tests::dialog::{PATIENCE, Socket};
use vhost_tests::wire::{self, REQUEST, REQUEST_NEEDING_REPLY, feature};

use crate::channel::{Ends, Nothing, open, open_next};

const CHANGED: u32 = 2;

fn changed() -> Vec<u8> {
    wire::backend_request("CONFIG_CHANGE_MSG").message(REQUEST_NEEDING_REPLY)
}

struct Yes;

impl BackendRequestHandler for Yes {
    fn config_changed(&self) -> Result<(), Refusal> {
        Ok(())
    }
}

#[test]
fn processing_waits_for_nothing() {
    let Ends { frontend: _frontend, backend: _backend, mut ours, theirs } = open(feature::PROTOCOL_OFFERED);
    assert_eq!(ours.process(Nothing), Ok(ChannelState::Open));
    theirs.send(&changed()[..7], &[]);
    assert_eq!(ours.process(&Yes), Ok(ChannelState::Open));
    theirs.send(&changed()[7..], &[]);
    assert_eq!(ours.process(&Yes), Ok(ChannelState::Open));
    assert_eq!(theirs.receive().number(), 0);
}

#[test]
fn a_channel_that_the_back_end_closes_is_closed_for_good() {
    let Ends { frontend: _frontend, backend: _backend, mut ours, theirs } = open(feature::PROTOCOL_OFFERED);
    theirs.send(&changed(), &[]);
    drop(theirs);
    // The request was still there, though nobody hears the answer.
    assert_eq!(ours.process(&Yes), Ok(ChannelState::Closed));
    assert_eq!(ours.process(&Yes), Ok(ChannelState::Closed));
    assert_eq!(ours.run(&Yes, Deadline::NEVER), Ok(ChannelState::Closed));
}

#[test]
fn a_channel_of_garbage_is_closed_and_the_connection_goes_on() {
    for garbage in
        [wire::header(2, 6, 0).to_vec(), wire::header(2, 1, u32::MAX).to_vec(), wire::header(2, 5, 0).to_vec()]
    {
        let Ends { mut frontend, backend, mut ours, theirs } = open(feature::PROTOCOL_OFFERED);
        theirs.send(&garbage, &[]);
        let error = ours.process(&Yes).unwrap_err();
        assert_eq!(ours.process(&Yes), Err(error), "for good");
        theirs.assert_closed();
        let thread = std::thread::spawn(move || backend.serve(1));
        frontend.get_features().unwrap();
        thread.join().unwrap();
    }
}

#[test]
fn a_channel_runs_until_its_deadline_or_until_it_is_stopped() {
    let Ends { frontend: _frontend, backend: _backend, mut ours, theirs } = open(feature::PROTOCOL_OFFERED);
    theirs.send(&changed(), &[]);
    assert_eq!(ours.run(&Yes, Deadline::after(Duration::from_millis(1))), Ok(ChannelState::Open));
    assert_eq!(theirs.receive().number(), 0);
    let stopper = ours.stopper().unwrap();
    let running = std::thread::spawn(move || ours.run(&Yes, Deadline::NEVER));
    theirs.send(&changed(), &[]);
    assert_eq!(theirs.receive().number(), 0);
    stopper.stop().unwrap();
    assert_eq!(running.join().unwrap(), Ok(ChannelState::Closed));
}

#[test]
fn another_channel_takes_the_place_of_the_first() {
    let Ends { mut frontend, backend, mut ours, theirs } = open(feature::PROTOCOL_OFFERED);
    theirs.send(&changed(), &[]);
    let thread = std::thread::spawn(move || {
        let theirs = open_next(&backend);
        (backend, theirs)
    });
    let mut other = frontend.set_backend_req_fd().unwrap();
    let (_backend, other_end) = thread.join().unwrap();
    assert_eq!(ours.process(&Yes), Ok(ChannelState::Closed));
    other_end.send(&changed(), &[]);
    assert_eq!(other.process(&Yes), Ok(ChannelState::Open));
    assert_eq!(other_end.receive().number(), 0);
}

#[test]
fn a_channel_may_be_replaced_while_its_handler_works() {
    struct Replacing(Arc<Mutex<Frontend>>, Option<BackendChannel>);
    impl BackendRequestHandlerMut for Replacing {
        fn config_changed(&mut self) -> Result<(), Refusal> {
            self.1 = Some(self.0.lock().unwrap().set_backend_req_fd().unwrap());
            Ok(())
        }
    }
    let Ends { frontend, backend, mut ours, theirs } = open(feature::PROTOCOL_OFFERED);
    theirs.send(&changed(), &[]);
    let thread = std::thread::spawn(move || {
        let theirs = open_next(&backend);
        (backend, theirs)
    });
    let mut handler = Replacing(Arc::new(Mutex::new(frontend)), None);
    assert_eq!(ours.process(&mut handler), Ok(ChannelState::Closed));
    theirs.assert_closed();
    let (_backend, other_end) = thread.join().unwrap();
    other_end.send(&changed(), &[]);
    assert_eq!(handler.1.as_mut().unwrap().process(&Yes), Ok(ChannelState::Open));
    assert_eq!(other_end.receive().number(), 0);
}

/// Asks so much without reading that an answer has no room; how many requests those were.
fn fill(ours: &mut BackendChannel, theirs: &Socket) -> u32 {
    for asked in 1..1_000_000 {
        theirs.send(&changed(), &[]);
        assert_eq!(ours.process(&Yes), Ok(ChannelState::Open));
        if ours.has_unsent() {
            return asked;
        }
    }
    panic!("the socket is never full")
}

#[test]
fn nothing_is_taken_as_long_as_an_answer_has_no_room() {
    struct Never;
    impl BackendRequestHandlerMut for Never {
        fn config_changed(&mut self) -> Result<(), Refusal> {
            panic!("a request was taken before the answer to the last one was sent")
        }
    }
    let Ends { frontend: _frontend, backend: _backend, mut ours, theirs } = open(feature::PROTOCOL_OFFERED);
    let asked = fill(&mut ours, &theirs);
    theirs.send(&changed(), &[]);
    assert_eq!(ours.process(Never), Ok(ChannelState::Open));
    for _ in 0..asked {
        assert_eq!(theirs.receive().number(), 0);
        assert_eq!(ours.process(&Yes), Ok(ChannelState::Open));
    }
    assert_eq!(theirs.receive().number(), 0, "that of the last one");
}

#[test]
fn a_back_end_that_reads_its_answers_late_gets_all_of_them() {
    let Ends { frontend: _frontend, backend: _backend, mut ours, theirs } = open(feature::PROTOCOL_OFFERED);
    let asked = fill(&mut ours, &theirs);
    let stopper = ours.stopper().unwrap();
    // No request comes that would wake the channel.
    let running = std::thread::spawn(move || ours.run(&Yes, Deadline::after(PATIENCE)));
    for _ in 0..asked {
        assert_eq!(theirs.receive().number(), 0);
    }
    stopper.stop().unwrap();
    assert_eq!(running.join().unwrap(), Ok(ChannelState::Closed));
}

/// The first half of the deadlock that real programs have: a back-end that does not serve the front-end before its own
/// request is answered.
#[test]
fn a_call_serves_the_attached_channel_while_it_waits() {
    let Ends { mut frontend, backend, ours, theirs } = open(feature::PROTOCOL_OFFERED);
    let count = Arc::new(Mutex::new(0));
    struct Counting(Arc<Mutex<u32>>);
    impl BackendRequestHandlerMut for Counting {
        fn config_changed(&mut self) -> Result<(), Refusal> {
            *self.0.lock().unwrap() += 1;
            Ok(())
        }
    }
    frontend.attach(ours, Counting(count.clone()));
    let thread = std::thread::spawn(move || {
        let request = backend.receive();
        for _ in 0..3 {
            theirs.send(&changed(), &[]);
            assert_eq!((theirs.receive().id(), CHANGED), (CHANGED, CHANGED));
        }
        backend.answer(&request);
        // The channel may go before the connection.
        drop(theirs);
        backend.serve(1);
        backend
    });
    frontend.get_features().unwrap();
    assert_eq!(*count.lock().unwrap(), 3);
    frontend.get_features().unwrap();
    let _backend = thread.join().unwrap();
    assert_eq!(frontend.process_channel(), Ok(ChannelState::Closed));
    assert!(frontend.detach().is_some() && frontend.detach().is_none());
    assert_eq!(frontend.process_channel(), Ok(ChannelState::Closed));
}

#[test]
fn an_attached_channel_is_the_callers_between_calls() {
    let Ends { mut frontend, backend: _backend, ours, theirs } = open(feature::PROTOCOL_OFFERED);
    frontend.attach(ours, Arc::new(Yes));
    let fd = frontend.attached_channel().unwrap().as_fd().try_clone_to_owned().unwrap();
    theirs.send(&changed(), &[]);
    let mut polled = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(&mut polled, None), Ok(1));
    assert_eq!(frontend.process_channel(), Ok(ChannelState::Open));
    assert_eq!(theirs.receive().number(), 0);
}

/// The second half of the deadlock, as QEMU has it: a handler that calls the front-end before it answers.
#[test]
fn a_handler_on_another_thread_may_call_the_front_end() {
    struct Reading(Arc<Mutex<Frontend>>);
    impl BackendRequestHandler for Reading {
        fn config_changed(&self) -> Result<(), Refusal> {
            let mut config = [0; 8];
            let mut frontend = self.0.lock().unwrap();
            assert_eq!(frontend.get_config(0, &mut config, 0), Ok(8));
            assert_eq!(config[0], 0xc1);
            Ok(())
        }
    }
    let Ends { frontend, backend, mut ours, theirs } = open(feature::PROTOCOL_OFFERED);
    let reading = Reading(Arc::new(Mutex::new(frontend)));
    let stopper = ours.stopper().unwrap();
    let running = std::thread::spawn(move || ours.run(&reading, Deadline::after(PATIENCE)));
    theirs.send(&changed(), &[]);
    backend.serve(24);
    assert_eq!(theirs.receive().number(), 0);
    stopper.stop().unwrap();
    assert_eq!(running.join().unwrap(), Ok(ChannelState::Closed));
}

#[test]
fn a_flood_of_requests_does_not_keep_the_caller() {
    let Ends { frontend: _frontend, backend: _backend, mut ours, theirs } = open(feature::PROTOCOL_OFFERED);
    struct Counting(u32);
    impl BackendRequestHandlerMut for Counting {
        fn config_changed(&mut self) -> Result<(), Refusal> {
            self.0 += 1;
            Ok(())
        }
    }
    let unflagged = wire::backend_request("CONFIG_CHANGE_MSG").message(REQUEST);
    // More than one read brings.
    let flood = unflagged.repeat(1000);
    theirs.send(&flood, &[]);
    let mut counting = Counting(0);
    let mut calls = 0;
    // Nobody would be woken for what stayed behind in our buffer.
    while is_readable(&ours) {
        assert_eq!(ours.process(&mut counting), Ok(ChannelState::Open));
        calls += 1;
    }
    assert_eq!(counting.0, 1000);
    assert!(calls > 1, "one call took them all");
}

fn is_readable(channel: &BackendChannel) -> bool {
    poll(&mut [PollFd::from_borrowed_fd(channel.as_fd(), PollFlags::IN)], Some(&Timespec::default())).unwrap() > 0
}
