//! Instructions of a disk's request, from the ring to the file and back: 4 KiB by a chain of three descriptors, 32 requests
//! at a time. Counted by valgrind in this process's own code, so the same on every run; the kernel's part is not in it.
//!
//! `cargo bench -p vhost-tests --bench requests`

#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here is the machine")]
#![allow(clippy::print_stdout, reason = "the table is the result")]

mod guest;

use std::fs::File;
use std::process::Command;

use guest::{Guest, Request, Shape, Table};
use vhost_core::RingLayout;
use vhost_std::block::{BlockDevice, BlockOptions};
use vhost_std::vring::{Turn, Vring};
use vhost_tests::program::require;

/// Batches of the longer of two runs. Their difference has nothing of what comes before.
const BATCHES: u64 = 200;
/// The function whose instructions count.
const COUNTED: &str = "--toggle-collect=*requests::counted*";

fn main() {
    let arguments = Vec::from_iter(std::env::args().skip(1));
    if let [shape, batches] = &arguments[..] {
        let shape = *Shape::all().get(shape.parse::<usize>().unwrap()).unwrap();
        return run(shape, batches.parse().unwrap());
    }
    if require("valgrind").is_none() {
        return;
    }
    println!("| ring | descriptors | request | instructions |");
    println!("| ---- | ----------- | ------- | -----------: |");
    for (index, shape) in Shape::all().iter().enumerate() {
        let count = (total(index, BATCHES + 1) - total(index, 1)) / BATCHES / u64::from(guest::BATCH);
        let table = if shape.table == Table::Indirect { "indirect" } else { "in the ring" };
        let request = if shape.request == Request::Read { "read" } else { "write" };
        println!("| {} | {table} | {request} | {count} |", shape.layout);
    }
}

/// Serves so many batches.
fn run(shape: Shape, batches: u64) {
    let disk = tempfile::tempfile_in("/dev/shm").unwrap();
    File::set_len(&disk, guest::DISK).unwrap();
    let disk = BlockDevice::from_fd(disk.into(), &BlockOptions::default()).unwrap();
    let mut guest = Guest::new(shape);
    let mut vring = guest.vring();
    for _ in 0..batches {
        guest.show();
        counted(&mut vring, &disk);
        guest.check();
    }
    assert_eq!(vring.layout(), RingLayout::of(shape.features()));
}

/// What is counted.
#[inline(never)]
fn counted(vring: &mut Vring, disk: &BlockDevice) {
    assert_eq!(vring.process(disk), Ok(Turn::Idle));
}

/// Instructions of a whole run.
fn total(shape: usize, batches: u64) -> u64 {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", COUNTED]);
    command.arg(std::env::current_exe().unwrap()).args([shape.to_string(), batches.to_string()]);
    let text = String::from_utf8(command.output().unwrap().stderr).unwrap();
    let line = text.lines().find_map(|line| line.split_once("Collected : ")).unwrap_or_else(|| panic!("{text}"));
    line.1.trim().parse().unwrap()
}
