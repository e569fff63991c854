//! Random reads and writes of 4 KiB on a file in memory through a disk's rings: our back-end, qemu-storage-daemon, and a
//! disk on rust-vmm's `vhost-user-backend`, each in a process of its own, with the same driver and the same file.
//!
//! `cargo bench -p vhost-tests --bench disk`. The back-ends take turns, so that a change of the machine's speed meets all.
//! `ROUNDS=3 ONLY="1 4 32 read"` measures less: so often, and on so many processors, with so many queues and so much depth.
//! `BACKENDS="ours, rust-vmm"`
//! compares these, by their names in the table. `BEFORE=PROGRAM` is another build of this benchmark, whose back-end joins.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "what fails here is the machine")]
#![allow(clippy::print_stdout, reason = "the table is the result")]

mod backends;
mod load;
mod processors;
#[path = "../peer/rust_vmm.rs"]
mod rust_vmm;

use std::path::Path;

use backends::{BACKENDS, Backend};
use load::{Kind, Load};
use processors::Processors;

/// Measurements of each kind. The quarter that other programs disturbed least ends where the result is.
const ROUNDS: usize = 15;

fn main() {
    let arguments = Vec::from_iter(std::env::args().skip(1));
    if let [command, socket, file, queues] = &arguments[..] {
        return backends::serve(command, Path::new(socket), Path::new(file), queues.parse().unwrap());
    }
    let rounds = std::env::var("ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    println!("4 KiB, random, on a file in memory; the least disturbed quarter of {rounds} rounds\n");
    println!(
        "| processors | queues | depth | what | back-end | requests/s | µs/request | processor µs | throughput | latency |"
    );
    println!(
        "| --: | -----: | ----: | ---- | -------- | ---------: | ---------: | -----------: | ---------: | ------: |"
    );
    let only = std::env::var("ONLY").unwrap_or_default();
    for processors in [Processors::Shared, Processors::Apart] {
        for (queues, depth) in [(1, 1), (1, 32), (4, 1), (4, 32)] {
            for kind in [Kind::Read, Kind::Write] {
                let load = Load { queues, depth, kind, processors };
                if only.is_empty() || only == load.to_string() {
                    measure(load, rounds);
                }
            }
        }
    }
}

/// Prints the rows of one load.
fn measure(load: Load, rounds: usize) {
    let mut backends = Vec::from_iter(BACKENDS.iter().filter_map(|kind| Backend::start(*kind, load.queues)));
    let mut results = vec![Vec::new(); backends.len()];
    for round in 0..=rounds {
        for (backend, results) in backends.iter_mut().zip(&mut results) {
            let result = load.run(backend);
            // The first round warms up.
            if round > 0 {
                results.push(result);
            }
        }
    }
    let quarter = |results: &[load::Outcome], of: fn(&load::Outcome) -> f64| {
        let mut numbers = Vec::from_iter(results.iter().map(of));
        numbers.sort_by(f64::total_cmp);
        numbers[numbers.len() / 4]
    };
    let numbers = |results: &[load::Outcome]| {
        let latency = quarter(results, |result| result.latency);
        (-quarter(results, |result| -result.per_second), latency, quarter(results, |result| result.processor))
    };
    let ours = numbers(&results[0]);
    for (backend, results) in backends.iter().zip(&results) {
        let (per_second, latency, processor) = numbers(results);
        println!(
            "| {} | {} | {} | {} | {} | {per_second:.0} | {latency:.1} | {processor:.2} | {:.2} | {:.2} |",
            load.processors,
            load.queues,
            load.depth,
            load.kind,
            backend.name(),
            ours.0 / per_second,
            ours.1 / latency,
        );
    }
}
