//! How long messages and the start of a device take: our front-end and back-end, rust-vmm's, and qemu-storage-daemon's
//! back-end, next to a bare socket. Every back-end is a process of its own.
//!
//! `cargo bench -p vhost-tests --bench session`. `session calls COUNT` and `session start COUNT` do only our part so often,
//! for `tests/benches/system-calls`, which counts system calls.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what fails here is the machine")]
#![allow(clippy::print_stdout, reason = "the table is the result")]

mod backends;
mod frontends;
mod memory;
#[path = "../peer/rust_vmm.rs"]
mod rust_vmm;

use std::path::Path;
use std::time::Instant;

use backends::{Backend, Program};
use frontends::{Bare, Ours, RustVmm, Talker};

/// How often everybody has a turn.
const ROUNDS: usize = 41;
/// Measurements of a message in a turn, and how often it is sent in each: not so often that other programs get in between.
const SAMPLES: usize = 20;
const CALLS: usize = 25;
/// Rings of the device that is started.
const RINGS: u8 = 8;

/// A row of the table: who talks to whom.
type Pairing = (&'static str, fn(&Path) -> Box<dyn Talker>, Program);

const PAIRINGS: [Pairing; 8] = [
    ("bare socket → bare socket", Bare::connect, Program::Bare),
    ("ours → bare socket", Ours::connect, Program::Bare),
    ("rust-vmm → bare socket", RustVmm::connect, Program::Bare),
    ("ours → ours", Ours::connect, Program::Ours),
    ("rust-vmm → rust-vmm", RustVmm::connect, Program::RustVmm),
    ("rust-vmm → ours", RustVmm::connect, Program::Ours),
    ("ours → qemu-storage-daemon", Ours::connect, Program::Qemu),
    ("rust-vmm → qemu-storage-daemon", RustVmm::connect, Program::Qemu),
];

fn main() {
    let arguments = Vec::from_iter(std::env::args().skip(1));
    match &arguments[..] {
        [command, socket] if command == "bare" => return backends::serve_bare(Path::new(socket)),
        [command, socket, file] if command == "ours" => {
            return backends::serve_ours(Path::new(socket), Path::new(file));
        }
        [command, devices] if command == "idle" => return memory::serve(devices.parse().unwrap()),
        [command, socket, count] if command == "calls" || command == "start" => {
            return repeat(command, Path::new(socket), count.parse().unwrap());
        }
        _ => {}
    }
    let rounds = std::env::var("ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    println!(
        "Microseconds. Of a message the median, and the tenth that was disturbed least, with its ratio to the first"
    );
    println!("row; of a start the median, with its ratio to rust-vmm's front-end. {rounds} rounds.\n");
    println!(
        "| who → whom | GET_FEATURES | | ratio | acknowledged SET_VRING_NUM | | ratio | start of {RINGS} queues | ratio |"
    );
    println!("| - | -: | -: | -: | -: | -: | -: | -: | -: |");
    let backends = Vec::from_iter(PAIRINGS.iter().map(|(.., program)| Backend::start(*program)));
    let mut times: Vec<[Vec<f64>; 3]> = vec![Default::default(); PAIRINGS.len()];
    for round in 0..=rounds {
        for (index, (_, connect, program)) in PAIRINGS.iter().enumerate() {
            let Some(backend) = &backends[index] else { continue };
            let found = measure(*connect, *program, backend.socket());
            // The first round warms up.
            if round > 0 {
                times[index].iter_mut().zip(found).for_each(|(times, found)| times.extend(found));
            }
        }
    }
    let mut quantiles = |at: f64| {
        let each = |times: &mut [Vec<f64>; 3]| times.each_mut().map(|times| quantile(times, at));
        Vec::from_iter(times.iter_mut().map(each))
    };
    let (least, medians) = (quantiles(0.1), quantiles(0.5));
    for (index, (name, ..)) in PAIRINGS.iter().enumerate() {
        let [features, number, start] = medians[index];
        let [features_least, number_least, _] = least[index];
        // What rust-vmm's front-end takes with its own back-end, or with the same one.
        let against = if name.ends_with("daemon") { 7 } else { 4 };
        let ratios = (features_least / least[0][0], number_least / least[0][1], start / medians[against][2]);
        print!("| {name} | {features:.1} | {features_least:.2} | {:.2} ", ratios.0);
        print!("| {number:.1} | {number_least:.2} | {:.2} ", ratios.1);
        println!("{}", if start.is_nan() { "| | |".to_owned() } else { format!("| {start:.0} | {:.2} |", ratios.2) });
    }
    println!();
    memory::print();
}

/// Microseconds for each of the two messages, and for a start.
fn measure(connect: fn(&Path) -> Box<dyn Talker>, program: Program, socket: &Path) -> [Vec<f64>; 3] {
    let mut talker = connect(socket);
    talker.negotiate();
    let sample = |call: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..CALLS).for_each(|_| call());
        start.elapsed().as_secs_f64() * 1e6 / CALLS as f64
    };
    let features = (0..SAMPLES).map(|_| sample(&mut || talker.get_features())).collect();
    let number = (0..SAMPLES).map(|_| sample(&mut || talker.set_vring_num())).collect();
    let mut starts = Vec::new();
    if program != Program::Bare {
        let start = Instant::now();
        talker.start();
        starts.push(start.elapsed().as_secs_f64() * 1e6);
    }
    [features, number, starts]
}

/// Only our front-end, so many times.
fn repeat(command: &str, socket: &Path, count: usize) {
    let mut talker = Ours::connect(socket);
    talker.negotiate();
    for _ in 0..count {
        if command == "calls" {
            talker.get_features();
        } else {
            talker.start();
        }
    }
}

fn quantile(times: &mut [f64], at: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get((times.len() as f64 * at) as usize).copied().unwrap_or(f64::NAN)
}
