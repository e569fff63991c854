//! Instructions of a request's way through the core: bytes to frame, frame to request, the machine, and its answer as
//! bytes. Counted by valgrind, so the same on every run; what copying the bytes alone costs is taken off.
//!
//! `cargo bench -p vhost-tests --bench instructions`

#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails here is the machine")]
#![allow(clippy::print_stdout, reason = "the table is the result")]

mod session;

use core::hint::black_box;
use std::process::Command;

use session::Session;
use vhost_tests::program::require;

/// In front of a request's name: its bytes are copied to where a transport would put them, and no more.
const COPIES: &str = "copies of ";
/// The same: its bytes become a frame, and no more.
const FRAMES: &str = "frames of ";
/// How often a request is made in the longer of two runs. Their difference has nothing of what comes before.
const COUNT: u64 = 1000;
/// Rings and memory regions that a session has.
const RINGS: [u16; 4] = [1, 8, 64, 255];
const REGIONS: [u16; 3] = [1, 8, 509];

fn main() {
    let arguments = Vec::from_iter(std::env::args().skip(1));
    if let [name, rings, regions, count] = &arguments[..] {
        return run(name, rings.parse().unwrap(), regions.parse().unwrap(), count.parse().unwrap());
    }
    if require("valgrind").is_none() {
        return;
    }
    println!("| request | bytes | to a frame, above the copy | decoded, through the machine, answer encoded |");
    println!("| ------- | ----: | -----------: | -----------: |");
    let copy = |name| instructions(&format!("{COPIES}{name}"), 1, 1);
    for name in session::NAMES {
        let bytes = Session::new(1, 1).request(name).len();
        let framed = instructions(&format!("{FRAMES}{name}"), 1, 1);
        let all = instructions(name, 1, 1);
        println!("| {name} | {bytes} | {} | {} |", framed.saturating_sub(copy(name)), all.saturating_sub(framed));
    }
    println!("\n| request, with so many | {RINGS:?} rings | {REGIONS:?} regions |");
    println!("| ------- | ----: | -----------: |");
    for name in ["SET_VRING_NUM", "SET_VRING_ADDR", "SET_VRING_ENABLE", "ADD_MEM_REG and REM_MEM_REG"] {
        let copy = copy(name);
        let rings = RINGS.map(|rings| instructions(name, rings, 1).saturating_sub(copy).to_string());
        let regions = REGIONS.map(|regions| instructions(name, 1, regions).saturating_sub(copy).to_string());
        println!("| {name} | {} | {} |", rings.join(", "), regions.join(", "));
    }
}

/// Makes a request so many times.
fn run(name: &str, rings: u16, regions: u16, count: u64) {
    let mut session = Session::new(rings, regions);
    let (name, serve): (_, fn(&mut Session, &[u8])) = match (name.strip_prefix(COPIES), name.strip_prefix(FRAMES)) {
        (Some(name), _) => (name, Session::copy),
        (None, Some(name)) => (name, Session::frame),
        (None, None) => (name, Session::serve),
    };
    let requests = Vec::from_iter(name.split(" and ").map(|name| session.request(name)));
    for _ in 0..count {
        for request in &requests {
            serve(&mut session, black_box(request));
        }
    }
}

/// Instructions of one request.
fn instructions(name: &str, rings: u16, regions: u16) -> u64 {
    (total(name, rings, regions, COUNT + 1) - total(name, rings, regions, 1)) / COUNT
}

/// Instructions of a whole run.
fn total(name: &str, rings: u16, regions: u16, count: u64) -> u64 {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(std::env::current_exe().unwrap());
    let output = command.args([name, &rings.to_string(), &regions.to_string(), &count.to_string()]).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    let line = text.lines().find_map(|line| line.split_once("Collected : ")).unwrap_or_else(|| panic!("{text}"));
    line.1.trim().parse().unwrap()
}
