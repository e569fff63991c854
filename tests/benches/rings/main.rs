//! How long it takes to take a chain of three descriptors from a ring and to give it back, next to the `virtio-queue`
//! crate on the same memory in the same run.
//!
//! Only the device is measured: the driver makes chains available between the measurements, a batch at a time.

#![allow(clippy::unwrap_used, reason = "what is set up here is right")]
#![allow(clippy::print_stdout, reason = "the table is the result")]

mod memory;
mod ours;
mod theirs;

use core::time::Duration;

use vhost_core::VirtioFeatures;
use vhost_tests::allocations::{Counting, allocations};

use memory::{BATCH, Guest};
use ours::{Give, Ours};
use theirs::{Asks, Theirs};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Batches of one measurement, and measurements of each kind. The kinds take turns, so that a change of the machine's
/// speed meets all of them.
const BATCHES: u32 = 1000;
const ROUNDS: usize = 25;

/// A row of the table.
struct Row<'g> {
    name: &'static str,
    /// The row that this one is compared to.
    against: Option<usize>,
    /// Processes one batch; the time without the driver's part.
    batch: Box<dyn FnMut() -> Duration + 'g>,
}

fn main() {
    for regions in [1, 4] {
        // Each row has a ring, and memory, of its own.
        let guests: [Guest; 8] = core::array::from_fn(|_| Guest::new(regions));
        let [g0, g1, g2, g3, g4, g5, g6, g7] = &guests;
        let mut rows = [
            theirs("virtio-queue, split", g0, Asks::Never),
            ours("split", 0, g1, ours::SPLIT, Give::Each),
            ours("split, published by batch", 0, g2, ours::SPLIT, Give::Batch),
            ours("packed", 0, g3, ours::PACKED, Give::Each),
            ours("packed, published by batch", 0, g4, ours::PACKED, Give::Batch),
            theirs("virtio-queue, split, asks for calls", g5, Asks::Each),
            ours("split, asks for calls", 5, g6, ours::SPLIT | ours::EVENT_IDX, Give::EachAndAsk),
            ours("packed, asks for calls", 5, g7, ours::PACKED | ours::EVENT_IDX, Give::EachAndAsk),
        ];
        measure(regions, &mut rows);
    }
}

fn theirs<'g>(name: &'static str, guest: &'g Guest, asks: Asks) -> Row<'g> {
    let mut theirs = Theirs::new(guest, asks);
    Row { name, against: None, batch: Box::new(move || theirs.batch()) }
}

fn ours<'g>(name: &'static str, against: usize, guest: &'g Guest, features: VirtioFeatures, give: Give) -> Row<'g> {
    let mut ours = Ours::new(guest, features, give);
    Row { name, against: Some(against), batch: Box::new(move || ours.batch()) }
}

/// Prints a table of the medians.
fn measure(regions: usize, rows: &mut [Row<'_>]) {
    let mut times = vec![Vec::new(); rows.len()];
    let mut allocated = vec![0; rows.len()];
    for round in 0..=ROUNDS {
        for (index, row) in rows.iter_mut().enumerate() {
            let mut time = Duration::ZERO;
            allocated[index] = allocations(|| time = (0..BATCHES).map(|_| (row.batch)()).sum());
            // The first round warms up.
            if round > 0 {
                times[index].push(time.as_secs_f64() * 1e9 / f64::from(BATCHES * u32::from(BATCH)));
            }
        }
    }
    let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
    println!("A chain of 3 descriptors is taken and given back; guest memory has {regions} region(s).\n");
    println!("| {:36} | ns/chain | ratio | allocations |", "");
    println!("| {:-<36} | -------: | ----: | ----------: |", "");
    for (index, row) in rows.iter().enumerate() {
        let ratio = row.against.map_or(String::new(), |other| format!("{:.2}", medians[index] / medians[other]));
        println!("| {:36} | {:8.1} | {ratio:>5} | {:11} |", row.name, medians[index], allocated[index]);
    }
    println!();
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
