//! The differences that are accepted, by peer.

pub(crate) mod channel;
pub(crate) mod frontend;
pub(crate) mod qemu;
pub(crate) mod rust_vmm;

/// What ours does with a request that it refuses: a reply that says so, or the end of a connection on which both sides would
/// disagree or the front-end would wait for ever; else nothing.
const REFUSED: &[&str] = &[
    "[refused], goes on",
    "answers 0x1, goes on",
    "answers 0x101, goes on",
    "answers 0 bytes, goes on",
    "answers 24 bytes, goes on",
    "answers 1072 bytes: *ffffffffffffffff, goes on",
    "closes",
];

/// Goes on, and answers or does not.
const GOES_ON: &[&str] = &["goes on", "answers *, goes on"];

/// Closes, even if it has acknowledged the request before.
const CLOSES: &[&str] = &["closes", "answers 0x0, closes"];

/// Takes the request, and acknowledges it if asked.
const TAKEN: &[&str] = &["goes on", "answers 0x0, goes on"];

/// How ours refuses a request that has a reply of its own: without content, an error number, zeros, no session.
const OWN_REFUSAL: &[&str] = &[
    "answers 0 bytes, goes on",
    "answers 0x101, goes on",
    "answers 24 bytes, goes on",
    "answers 1072 bytes: *ffffffffffffffff, goes on",
];
