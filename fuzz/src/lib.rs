//! What the fuzz targets do with their bytes. Each is a function, so that a test can run the corpus without a fuzzer.

pub mod backend;
pub mod corpus;
pub mod decode;
pub mod device;
pub mod frontend;
pub mod gpu;
pub mod inflight;
pub mod kernel;
pub mod message;
pub mod pair;
pub mod reader;
pub mod rings;
pub mod token;

/// A target's name and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("backend", backend::run),
    ("decode", decode::run),
    ("frontend", frontend::run),
    ("gpu", gpu::run),
    ("inflight", inflight::run),
    ("kernel", kernel::run),
    ("pair", pair::run),
    ("rings", rings::run),
];

/// Runs one input, after which no descriptor may be left.
pub fn check(target: fn(&[u8]), data: &[u8]) {
    target(data);
    assert_eq!(token::alive(), 0, "a descriptor was lost");
}
