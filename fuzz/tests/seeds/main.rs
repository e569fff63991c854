//! Inputs made of what is known: sessions of real programs, a valid message of every line of the protocol's tables, what has
//! broken others, rings with chains, inflight records of every state. Each runs here.
//!
//! With `VHOST_FUZZ_SEEDS=FOLDER` they are written to `FOLDER/TARGET/`, for a fuzzer to begin with.

mod bytes;
mod hostile;
mod inflight;
mod kernel;
mod messages;
mod rings;
mod sessions;

#[path = "../../../tests/tests/gpu/message.rs"]
#[allow(dead_code, reason = "the tests of the GPU channel use more of it")]
mod gpu_message;

use std::{env, fs, path::PathBuf};

use vhost_fuzz::{TARGETS, check};

/// An input for one target.
type Seed = (&'static str, Vec<u8>);

fn all() -> Vec<Seed> {
    [messages::all(), sessions::all(), hostile::all(), rings::all(), inflight::all(), kernel::all()].concat()
}

#[test]
fn every_seed_is_taken() {
    let seeds = all();
    let folder = env::var_os("VHOST_FUZZ_SEEDS").map(PathBuf::from);
    for (name, target) in TARGETS {
        let mine = Vec::from_iter(seeds.iter().filter(|(of, _)| of == name).map(|(_, bytes)| bytes));
        println!("{name}: {} seeds", mine.len());
        assert!(mine.len() > 10, "{name} has only {} seeds", mine.len());
        for (number, bytes) in mine.iter().enumerate() {
            check(*target, bytes);
            if let Some(folder) = &folder {
                fs::create_dir_all(folder.join(name)).unwrap();
                fs::write(folder.join(name).join(format!("seed-{number:04}")), bytes).unwrap();
            }
        }
    }
}
