//! The wire, by hand: every vhost-user message as bytes, written from the protocol's tables.
//!
//! Nothing here comes from the crates under test, so a mistake of theirs cannot cancel itself out. Three parts check one
//! another: the fixtures (fields appended one by one), the [`Layout`] table (fields cut out again), and the recorded
//! sessions of [`crate::vectors`].

mod backend;
mod bytes;
mod device;
pub mod feature;
mod fixture;
mod layout;
mod memory;
mod message;
mod migration;
mod negotiation;
pub mod region;
mod vrings;

pub use bytes::Bytes;
pub(crate) use bytes::native;
pub use fixture::{Answer, Fixture, Gate, Reply};
pub use layout::{Fields, Layout};
pub use message::{HEADER_SIZE, Header, Message, header, messages};

/// Flags of a request: version 1.
pub const REQUEST: u32 = 0x1;
/// Flags of a request whose sender wants an acknowledgement: version 1, need_reply.
pub const REQUEST_NEEDING_REPLY: u32 = 0x9;
/// Flags of a reply: version 1, reply. QEMU and DPDK take no other value.
pub const REPLY: u32 = 0x5;
/// Descriptors that one message may carry: one for each region of a full memory table.
pub const MAXIMUM_DESCRIPTORS: usize = 8;

/// The 44 requests of a front-end in the order of their ids, each once, in its usual form.
pub fn all_frontend_requests() -> Vec<Fixture> {
    let mut all = Vec::from_iter(all_frontend_forms().into_iter().filter(Fixture::is_usual));
    all.sort_by_key(|fixture| fixture.id);
    all
}

/// The 10 requests of a back-end in the order of their ids, each once, in its usual form.
pub fn all_backend_requests() -> Vec<Fixture> {
    all_backend_forms().into_iter().filter(Fixture::is_usual).collect()
}

/// Every form of every front-end request: the usual ones and the variants (Xen regions, a vring without a descriptor, ...).
pub fn all_frontend_forms() -> Vec<Fixture> {
    [negotiation::requests(), memory::requests(), vrings::requests(), device::requests(), migration::requests()]
        .concat()
}

/// Every form of every back-end request.
pub fn all_backend_forms() -> Vec<Fixture> {
    backend::requests()
}

/// The front-end request of this name in its usual form.
pub fn frontend_request(name: &str) -> Fixture {
    frontend_form(name, Fixture::USUAL)
}

/// The front-end request of this name in the named form.
pub fn frontend_form(name: &str, form: &str) -> Fixture {
    pick(all_frontend_forms(), name, form)
}

/// The back-end request of this name in its usual form.
pub fn backend_request(name: &str) -> Fixture {
    backend_form(name, Fixture::USUAL)
}

/// The back-end request of this name in the named form.
pub fn backend_form(name: &str, form: &str) -> Fixture {
    pick(all_backend_forms(), name, form)
}

fn pick(all: Vec<Fixture>, name: &str, form: &str) -> Fixture {
    all.into_iter()
        .find(|fixture| fixture.name == name && fixture.form == form)
        .unwrap_or_else(|| panic!("no fixture {name} ({form})"))
}
