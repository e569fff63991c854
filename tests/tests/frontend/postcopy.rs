//! Postcopy: memory is answered with where the back-end has it, and that is acknowledged.

use std::os::fd::AsFd;

use vhost_core::{FrontendCode, Postcopy};
use vhost_tests::dialog::{FakeBackend, memory};
use vhost_tests::wire::region::{ADDED, REGIONS};
use vhost_tests::wire::{self, REQUEST, feature};

use crate::calls::region;
use crate::script::{agreed, finish};

#[test]
fn a_table_is_answered_and_the_answer_acknowledged() {
    let (mut frontend, thread) = agreed(feature::PROTOCOL_OFFERED, |backend: FakeBackend| {
        backend.serve(28);
        backend.serve(29);
        let table = wire::frontend_form("SET_MEM_TABLE", "postcopy");
        let request = backend.receive();
        assert_eq!(request.payload(), table.payload);
        backend.reply(&request, &table.answers()[0].payload, &[]);
        let taken = wire::frontend_form("SET_MEM_TABLE", "postcopy, bases taken");
        assert_eq!(backend.receive().message.bytes(), taken.message(REQUEST));
        // A region that is added then.
        let add = wire::frontend_form("ADD_MEM_REG", "postcopy");
        let request = backend.receive();
        assert_eq!(request.payload(), add.payload);
        backend.reply(&request, &add.answers()[0].payload, &[]);
        let taken = wire::frontend_form("ADD_MEM_REG", "postcopy, base taken");
        assert_eq!(backend.receive().message.bytes(), taken.message(REQUEST));
        backend.serve(30);
    });
    let usual = wire::frontend_request("SET_MEM_TABLE");
    let files = [memory(4096), memory(4096)];
    let regions = [0, 1].map(|at| (region(REGIONS[at], &usual), files[at].as_fd()));
    frontend.postcopy_advise().unwrap();
    frontend.postcopy_listen().unwrap();
    assert_eq!(frontend.postcopy(), Postcopy::Listening);
    let mapped = frontend.set_mem_table(&regions).unwrap();
    assert_eq!(*mapped, [0, 1].map(|at| region(REGIONS[at].mapped(), &usual)));
    frontend.acknowledge_postcopy_memory(FrontendCode::SET_MEM_TABLE).unwrap();

    let mapped = frontend.add_mem_reg(&region(ADDED, &usual), files[0].as_fd()).unwrap();
    assert_eq!(mapped, Some(region(ADDED.mapped(), &usual)));
    frontend.acknowledge_postcopy_memory(FrontendCode::ADD_MEM_REG).unwrap();
    frontend.postcopy_end().unwrap();
    assert_eq!(frontend.postcopy(), Postcopy::Off);
    finish(frontend, thread);
}
