//! Postcopy: where their back-end has mapped the memory comes back, and is acknowledged.

use std::os::fd::AsFd;

use vhost_core::{FrontendCode, UserAddress};
use vhost_tests::dialog::memory;

use crate::our_frontend::{region, told_by};
use crate::recorder::MAPPED_AT;

#[test]
fn memory_that_is_shared_in_postcopy_is_answered_with_its_place() {
    let file = memory(0x1_0000);
    let told = told_by(|frontend| {
        drop(frontend.postcopy_advise().unwrap());
        frontend.postcopy_listen().unwrap();
        let both = [(region(0), file.as_fd()), (region(1), file.as_fd())];
        let mapped = frontend.set_mem_table(&both).unwrap();
        let places = Vec::from_iter(mapped.iter().map(|region| region.user_address));
        assert_eq!(places, [UserAddress(MAPPED_AT), UserAddress(MAPPED_AT + (1 << 32))]);
        frontend.acknowledge_postcopy_memory(FrontendCode::SET_MEM_TABLE).unwrap();
        let mapped = frontend.add_mem_reg(&region(2), file.as_fd()).unwrap().unwrap();
        assert_eq!(mapped.user_address, UserAddress(MAPPED_AT));
        frontend.acknowledge_postcopy_memory(FrontendCode::ADD_MEM_REG).unwrap();
        frontend.postcopy_end().unwrap();
    });
    assert_eq!(
        told,
        [
            "postcopy advised",
            "postcopy listens",
            "memory [0x0+0x4000 at 0x700000000000, offset 0x1000 of 0x10000; \
             0x100000000+0x4000 at 0x700100000000, offset 0x1000 of 0x10000], postcopy Some(true)",
            "postcopy memory acknowledged",
            "add 0x200000000+0x4000 at 0x700200000000, offset 0x1000 of 0x10000, postcopy Some(true)",
            "postcopy memory acknowledged",
            "postcopy ended",
        ]
    );
}
