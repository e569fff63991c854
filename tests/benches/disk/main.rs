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
use load::{Kind, Load, Outcome};
use processors::Processors;

/// Measurements of each kind. The quarter that other programs disturbed least ends where the result is.
const ROUNDS: usize = 30;
/// Of these so many with the same processes.
const ROUNDS_A_START: usize = 3;

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
    let disk = backends::disk();
    let mut results: [Vec<Outcome>; BACKENDS.len()] = Default::default();
    for first in 0..rounds.div_ceil(ROUNDS_A_START) {
        // Anew and in another order, as it makes a difference of a tenth where in memory a program is.
        let order = (0..BACKENDS.len()).map(|at| (first + at) % BACKENDS.len());
        let start = |at: usize| Some((at, Backend::start(BACKENDS[at], load.queues, disk.path())?));
        let mut backends = Vec::from_iter(order.filter_map(start));
        for round in 0..=ROUNDS_A_START {
            for (at, backend) in &mut backends {
                let result = load.run(backend);
                // The first round warms up.
                if round > 0 {
                    results[*at].push(result);
                }
            }
        }
    }
    let quarter = |results: &[Outcome], of: fn(&Outcome) -> f64| {
        let mut numbers = Vec::from_iter(results.iter().map(of));
        numbers.sort_by(f64::total_cmp);
        numbers[numbers.len() / 4]
    };
    let numbers = |results: &[Outcome]| {
        let latency = quarter(results, |result| result.latency);
        (-quarter(results, |result| -result.per_second), latency, quarter(results, |result| result.processor))
    };
    let measured = BACKENDS.iter().zip(&results).filter(|(_, results)| !results.is_empty());
    let rows = Vec::from_iter(measured.map(|(program, results)| (program.name(), numbers(results))));
    let ours = rows[0].1;
    for (name, (per_second, latency, processor)) in rows {
        println!(
            "| {} | {} | {} | {} | {name} | {per_second:.0} | {latency:.1} | {processor:.2} | {:.2} | {:.2} |",
            load.processors,
            load.queues,
            load.depth,
            load.kind,
            ours.0 / per_second,
            ours.1 / latency,
        );
    }
}
