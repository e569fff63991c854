//! No descriptor stays open, whatever happens to it.

use std::os::fd::AsFd;

use vhost_std::frontend::FrontendError;
use vhost_tests::descriptors::leaves_nothing_open;
use vhost_tests::dialog::{borrowed, descriptors_for, memory};
use vhost_tests::wire::{self, REQUEST, feature};

use crate::calls::{call, prepare};
use crate::channel::{Ends, Nothing, open};
use crate::requests::{answer, protocol_of, sent_forms};
use crate::script::{agreed, finish, scripted, until_closed};

#[test]
fn calls_leave_nothing_open() {
    leaves_nothing_open("leaks::calls_leave_nothing_open", || {
        for fixture in sent_forms() {
            let theirs = fixture.clone();
            let (mut frontend, thread) = agreed(protocol_of(&fixture), move |backend| {
                until_closed(&backend, |request| answer(&backend, request, &theirs)).len()
            });
            prepare(&mut frontend, &fixture);
            call(&mut frontend, &fixture, &descriptors_for(&fixture)).unwrap();
            finish(frontend, thread);
        }
    });
}

#[test]
fn replies_with_descriptors_that_do_not_belong_leave_nothing_open() {
    leaves_nothing_open("leaks::replies_with_descriptors_that_do_not_belong_leave_nothing_open", || {
        // To each request, with each number of descriptors, also more than any message has.
        for count in [1, 2, 8, 9, 20] {
            for fixture in sent_forms() {
                let reply = fixture.reply();
                let (mut frontend, thread) = agreed(feature::PROTOCOL_OFFERED, move |backend| {
                    // Some calls are misuse and send nothing, some wait for nothing and may be gone.
                    let Ok(Some(_request)) = backend.try_receive() else { return };
                    let files = Vec::from_iter((0..count).map(|_| memory(1)));
                    drop(backend.try_send(&reply, &borrowed(&files)));
                    drop(backend.try_receive());
                });
                let _ = call(&mut frontend, &fixture, &descriptors_for(&fixture));
                finish(frontend, thread);
            }
        }
    });
}

#[test]
fn misuse_and_ends_leave_nothing_open() {
    leaves_nothing_open("leaks::misuse_and_ends_leave_nothing_open", || {
        let (mut frontend, thread) = scripted(drop);
        thread.join().unwrap();
        let file = memory(1);
        let misuse = frontend.set_backend_req_fd().unwrap_err();
        assert!(matches!(misuse, FrontendError::Misuse(_)), "{misuse}");
        assert!(frontend.set_log_fd(file.as_fd()).unwrap_err().ends_session().is_some());
        assert!(frontend.set_log_fd(file.as_fd()).unwrap_err().ends_session().is_some());
    });
}

#[test]
fn requests_of_the_back_end_leave_nothing_open() {
    leaves_nothing_open("leaks::requests_of_the_back_end_leave_nothing_open", || {
        for surplus in [0, 1, 7, 8, 30] {
            for fixture in wire::all_backend_forms() {
                let Ends { frontend: _frontend, backend: _backend, mut ours, theirs } = open(feature::PROTOCOL_OFFERED);
                let mut files = descriptors_for(&fixture);
                files.extend((0..surplus).map(|_| memory(1)));
                theirs.send(&fixture.message(REQUEST), &borrowed(&files));
                let _ = ours.process(Nothing);
            }
        }
    });
}

#[test]
fn requests_that_nobody_takes_leave_nothing_open() {
    leaves_nothing_open("leaks::requests_that_nobody_takes_leave_nothing_open", || {
        let fixture = wire::backend_request("SHMEM_MAP");
        let Ends { mut frontend, backend: _backend, ours, theirs } = open(feature::PROTOCOL_OFFERED);
        let files = descriptors_for(&fixture);
        theirs.send(&fixture.message(REQUEST), &borrowed(&files));
        // Half of one more.
        theirs.send(&fixture.message(REQUEST)[..20], &borrowed(&files));
        frontend.attach(ours, Nothing);
        drop(frontend);
    });
}
