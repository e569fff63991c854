//! Sessions, answers and requests of the back-end by the thousand: as much is open after the last as after the first.
//!
//! `VHOST_LEAK_ROUNDS` says how many; see [`vhost_tests::rounds`].

use std::os::fd::OwnedFd;

use vhost_core::MapChange;
use vhost_core::wire::fs_cache::CacheEntries;
use vhost_core::wire::shared::Uuid;
use vhost_core::wire::vring::VringArea;
use vhost_std::frontend::{BackendRequestHandlerMut, Refusal};
use vhost_tests::descriptors::in_own_process;
use vhost_tests::dialog::{FakeBackend, borrowed, descriptors_for, memory};
use vhost_tests::rounds::Watched;
use vhost_tests::wire::{self, REQUEST_NEEDING_REPLY, feature};

use crate::calls::call;
use crate::channel::{Ends, Nothing, open};
use crate::requests::{protocol_of, sent_forms};
use crate::script::{agreed, finish, until_closed};

/// Holds what came last, until the next one comes, and gives a descriptor where one is wanted.
#[derive(Default)]
struct Holding(Option<OwnedFd>);

impl BackendRequestHandlerMut for Holding {
    fn host_notifier(&mut self, _: u8, _: VringArea, descriptor: Option<OwnedFd>) -> Result<(), Refusal> {
        self.0 = descriptor.or(self.0.take());
        Ok(())
    }

    fn shared_object_lookup(&mut self, _: Uuid) -> Result<OwnedFd, Refusal> {
        Ok(memory(1))
    }

    fn shmem_map(&mut self, _: &[MapChange], file: OwnedFd) -> Result<(), Refusal> {
        self.0 = Some(file);
        Ok(())
    }

    fn cache_io(&mut self, _: CacheEntries<'_>, file: Option<OwnedFd>) -> Result<u64, Refusal> {
        self.0 = file;
        Ok(1)
    }
}

#[test]
fn requests_of_the_back_end_with_descriptors_leave_nothing_open() {
    in_own_process("leaks_by_thousands::requests_of_the_back_end_with_descriptors_leave_nothing_open", || {
        let carrying = |form: &wire::Fixture| form.descriptors > 0 || form.name == "SHARED_OBJECT_LOOKUP";
        let forms = Vec::from_iter(wire::all_backend_forms().into_iter().filter(carrying));
        assert!(forms.len() >= 3);
        for form in forms {
            let message = form.message(REQUEST_NEEDING_REPLY);
            let files = descriptors_for(&form);
            let extra = memory(1);
            let mut one_more = borrowed(&files);
            one_more.push(borrowed(core::slice::from_ref(&extra))[0]);
            let Ends { frontend: _frontend, backend: _backend, mut ours, theirs } = open(feature::PROTOCOL_OFFERED);
            let mut holding = Holding::default();
            for _ in Watched::default() {
                theirs.send(&message, &borrowed(&files));
                let _ = ours.process(&mut holding).unwrap();
                assert_eq!(theirs.receive().number(), 0, "{}", form.name);
                for descriptors in [&borrowed(&files), &one_more] {
                    theirs.send(&message, descriptors);
                    let _ = ours.process(Nothing).unwrap();
                    assert_ne!(theirs.receive().number(), 0, "{}", form.name);
                }
            }
        }
    });
}

#[test]
fn calls_that_send_or_bring_descriptors_leave_nothing_open() {
    in_own_process("leaks_by_thousands::calls_that_send_or_bring_descriptors_leave_nothing_open", || {
        let brings = |form: &wire::Fixture| form.answers().first().is_some_and(|answer| answer.descriptors > 0);
        let carrying = sent_forms().into_iter().filter(|form| form.descriptors > 0 || brings(form));
        let forms = Vec::from_iter(carrying);
        assert!(forms.iter().filter(|form| brings(form)).count() >= 3);
        for form in forms {
            let (mut frontend, thread) = agreed(protocol_of(&form), |backend| backend);
            let backend = thread.join().unwrap();
            let descriptors = descriptors_for(&form);
            // The answer waits already when the question comes.
            let mut make = |form: &wire::Fixture, descriptors: &[OwnedFd]| {
                answer_beforehand(&backend, form);
                call(&mut frontend, form, descriptors).unwrap();
                drop(backend.receive());
            };
            for _ in Watched::default() {
                make(&form, &descriptors);
                if form.name == "ADD_MEM_REG" {
                    make(&wire::frontend_request("REM_MEM_REG"), &[]);
                }
            }
        }
    });
}

/// Sends what a back-end says to a request.
fn answer_beforehand(backend: &FakeBackend, form: &wire::Fixture) {
    match form.answers().first() {
        Some(own) => {
            let files = Vec::from_iter((0..own.descriptors).map(|_| memory(4096)));
            backend.send(&own.message(form.id), &borrowed(&files));
        }
        None => backend.send(&form.acknowledgement(0), &[]),
    }
}

#[test]
fn front_ends_one_after_another_leave_nothing_open() {
    in_own_process("leaks_by_thousands::front_ends_one_after_another_leave_nothing_open", || {
        let table = wire::frontend_request("SET_MEM_TABLE");
        let descriptors = descriptors_for(&table);
        for number in Watched::default() {
            let (mut frontend, thread) = agreed(feature::PROTOCOL_OFFERED, |backend| {
                let mut channels = Vec::new();
                until_closed(&backend, |request| backend.answer(request)).into_iter().for_each(|request| {
                    channels.extend(request.descriptors);
                });
                channels.len()
            });
            call(&mut frontend, &table, &descriptors).unwrap();
            let channel = frontend.set_backend_req_fd().unwrap();
            if number % 2 == 0 {
                frontend.attach(channel, Nothing);
            }
            assert_eq!(finish(frontend, thread), descriptors.len() + 1);
        }
    });
}
