//! What the dirty log costs a device that fills buffers: without one, with one that is not in use, and while a guest moves.
//!
//! Only the device's side is measured, a batch of chains at a time; each row has a ring and memory of its own.

#![allow(clippy::unwrap_used, reason = "what is set up here is right")]
#![allow(clippy::print_stdout, reason = "the table is the result")]

use core::time::Duration;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use vhost_core::{LogArea, Logging, VhostBackend, VirtioFeatures, VringSetup};
use vhost_std::device::{Device, Queue};
use vhost_std::driver::{Buffer, DriverRing, GuestArea, RingOptions};
use vhost_std::eventfd::EventFd;
use vhost_std::memory::MemoryFile;
use vhost_std::soft::{RingThreads, SoftBackend};

/// Chains of a batch, and bytes of a buffer.
const BATCH: u16 = 128;
const BUFFER: u32 = 64;
/// Batches of one measurement, and measurements of each row. The rows take turns, so that a change of the machine's speed
/// meets all of them.
const BATCHES: u32 = 500;
const ROUNDS: usize = 25;
/// Bytes of memory for the ring, before the buffers.
const RING: u64 = 0x1_0000;

/// Fills every buffer.
struct Fill;

impl Device for Fill {
    fn device_id(&self) -> u32 {
        42
    }
    fn queues(&self) -> u16 {
        1
    }
    fn process(&self, queue: &mut Queue<'_>) {
        while let Some(chain) = queue.next() {
            let written = chain.writable().write(&[7; BUFFER as usize]).map_or(0, |()| BUFFER);
            queue.complete(chain, written);
        }
    }
}

/// What a row has of a log.
#[derive(Clone, Copy, PartialEq)]
enum Log {
    None,
    Idle,
    InUse,
}

struct Row {
    name: &'static str,
    backend: SoftBackend,
    ring: DriverRing,
    buffers: GuestArea,
    kick: EventFd,
    _memory: MemoryFile,
}

impl Row {
    fn new(name: &'static str, log: Log) -> Self {
        let memory = MemoryFile::create("guest", 0x10_0000, RING + u64::from(BATCH) * 0x1000).unwrap();
        let area = GuestArea::of(&memory);
        let options = RingOptions { size: BATCH, features: VirtioFeatures::VERSION_1, table_size: 0 };
        let ring = DriverRing::new(area.part(0, RING).unwrap(), &options).unwrap();
        let mut backend = SoftBackend::new(Arc::new(Fill), RingThreads::Caller).unwrap();
        backend.acknowledge(VirtioFeatures::VERSION_1).unwrap();
        backend.set_memory(&[(*memory.region(), &memory as &dyn AsFd)]).unwrap();
        let (kick, mut addresses) = (EventFd::new().unwrap(), ring.user_addresses());
        if log != Log::None {
            let file = MemoryFile::create("log", 0, 0x1000).unwrap();
            let region = *file.region();
            let area = LogArea { size: region.size, offset: 0, user_address: region.user_address, memory: &file as _ };
            backend.set_log(&area).unwrap();
        }
        if log == Log::InUse {
            addresses.logging = Logging::On;
            backend.acknowledge(VirtioFeatures::VERSION_1 | VirtioFeatures::LOG_ALL).unwrap();
        }
        let (size, base) = (BATCH, ring.base());
        let setup = VringSetup::<dyn AsFd> { size, base, addresses, kick: Some(&kick), call: None, error: None };
        backend.start_vring(0, &setup).unwrap();
        let buffers = area.part(RING, u64::from(BATCH) * 0x1000).unwrap();
        Self { name, backend, ring, buffers, kick, _memory: memory }
    }

    /// The device's time for one batch.
    fn batch(&mut self) -> Duration {
        for slot in 0..BATCH {
            let address = self.buffers.guest_address(u64::from(slot) * 0x1000);
            self.ring.add(&[], &[Buffer { address, length: BUFFER }], slot.into()).unwrap();
        }
        let _ = self.ring.publish().unwrap();
        self.kick.signal().unwrap();
        let start = Instant::now();
        self.backend.process().unwrap();
        let time = start.elapsed();
        for _ in 0..BATCH {
            assert!(self.ring.poll_used().unwrap().is_some_and(|used| used.written == BUFFER), "a chain is missing");
        }
        time
    }
}

fn main() {
    let mut rows = [
        Row::new("no log", Log::None),
        Row::new("a log that is not in use", Log::Idle),
        Row::new("a guest moves", Log::InUse),
    ];
    let mut times = [const { Vec::new() }; 3];
    for round in 0..=ROUNDS {
        for (row, times) in rows.iter_mut().zip(&mut times) {
            let time: Duration = (0..BATCHES).map(|_| row.batch()).sum();
            // The first round warms up.
            if round > 0 {
                times.push(time.as_secs_f64() * 1e9 / f64::from(BATCHES * u32::from(BATCH)));
            }
        }
    }
    println!("A device fills a buffer of {BUFFER} bytes.\n\n| {:24} | ns/chain | ratio |", "dirty log");
    println!("| {:-<24} | -------: | ----: |", "");
    let fastest = times.map(|times| times.into_iter().fold(f64::INFINITY, f64::min));
    for (row, time) in rows.iter().zip(fastest) {
        println!("| {:24} | {time:8.1} | {:5.2} |", row.name, time / fastest[0]);
    }
}
