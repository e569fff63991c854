//! What runs in the guest: random writes that are read back, and files that come and go, on both disks at once.

use core::fmt::Write as _;
use core::time::Duration;
use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::Instant;

use crate::blocks::{BLOCKS_FILE, Blocks};
use vhost_tests::numbers::Numbers;

/// Threads that write blocks of a disk, each its own ones: so many requests are in flight.
const WRITERS: u64 = 4;
const BLOCKS: u64 = 512;

/// The longest file, and how many there are at a time.
const LONGEST: u64 = 200_000;
const FILES: u64 = 16;

#[test]
#[ignore = "runs in the guest that the other test boots"]
fn load() {
    let Ok(seconds) = std::env::var("VHOST_GUEST_CRASH_LOAD") else { return };
    let end = Instant::now() + Duration::from_secs(seconds.parse().unwrap());
    let disks = ["vda", "vdb"].map(|disk| (disk, Path::new("/").join(disk)));
    let steps = thread::scope(|scope| {
        for (_, folder) in &disks {
            let file = File::create(folder.join(BLOCKS_FILE)).unwrap();
            file.set_len(WRITERS * BLOCKS * Blocks::SIZE).unwrap();
        }
        let load = disks.each_ref().map(|(disk, folder)| {
            let writers = (0..WRITERS).map(|writer| scope.spawn(move || blocks(folder, writer, end)));
            let files = scope.spawn(move || files(folder, end));
            (disk, writers.chain([files]).collect::<Vec<_>>())
        });
        let mut steps = String::new();
        for (disk, threads) in load {
            let sum: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
            writeln!(steps, "{disk} steps {sum}").unwrap();
        }
        steps
    });
    fs::write("/steps", steps).unwrap();
}

/// Writes and reads blocks at random, past the page cache, and in the end reads all of them; the number of steps.
fn blocks(folder: &Path, writer: u64, end: Instant) -> u64 {
    let mut blocks = Blocks::open(&folder.join(BLOCKS_FILE), writer * BLOCKS, BLOCKS);
    let mut numbers = Numbers::new(writer + 1);
    let mut steps = 0;
    while Instant::now() < end {
        let block = numbers.below(BLOCKS);
        if numbers.below(3) == 0 {
            blocks.verify(block)
        } else {
            blocks.write(block)
        }
        steps += 1;
    }
    (0..BLOCKS).for_each(|block| blocks.verify(block));
    steps
}

/// Makes, syncs, renames, reads and removes files, which keeps the journal busy; the number of steps.
fn files(folder: &Path, end: Instant) -> u64 {
    let mut numbers = Numbers::new(99);
    let contents = |seed: u64| {
        let mut numbers = Numbers::new(seed + 1);
        let length = numbers.below(LONGEST);
        (0..length).map(|_| numbers.below(256) as u8).collect::<Vec<_>>()
    };
    let name = |seed: u64| folder.join(format!("file{}", seed % FILES));
    let mut steps = 0;
    while Instant::now() < end {
        let (new, at) = (folder.join("new"), name(steps));
        fs::write(&new, contents(steps)).unwrap();
        File::open(&new).unwrap().sync_all().unwrap();
        fs::rename(&new, &at).unwrap();
        let older = numbers.below(steps.min(FILES - 1) + 1);
        assert!(fs::read(name(steps - older)).unwrap() == contents(steps - older), "file {}", steps - older);
        steps += 1;
    }
    steps
}
