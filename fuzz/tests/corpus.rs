//! Every committed input runs, without a fuzzer and on any Rust.

use vhost_fuzz::{TARGETS, check, corpus};

#[test]
fn every_committed_input_is_taken() {
    for (name, target) in TARGETS {
        let inputs = corpus::read(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!inputs.is_empty(), "{name} has no inputs");
        inputs.iter().for_each(|input| check(*target, input));
    }
}
