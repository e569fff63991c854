//! Reads what llvm-cov exports of the tests, prints how much of vhost-core they reach, and compares what they do not reach
//! with the list in `tests/core-alone/unreached`.
//!
//! `.ci/coverage` runs it; `.ci/coverage --write` writes the list anew, and the numbers in the README.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a check fails")]
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

mod export;
mod list;
mod source;
mod summary;

use list::List;
use source::Source;
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs};

fn main() -> ExitCode {
    let [export, rest @ ..] = &env::args().skip(1).collect::<Vec<_>>()[..] else {
        panic!("expected: EXPORT [--write]");
    };
    let write = rest == ["--write"];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = folder.ancestors().nth(2).unwrap();

    let files = export::read(Path::new(export), &root.join("core/src"));
    let found: Vec<_> = files.iter().flat_map(|file| Source::read(file).unreached(file)).collect();
    print!("{}", summary::table(&files));

    let path = folder.join("unreached");
    let mut list = List::parse(&fs::read_to_string(&path).unwrap());
    let mut complaints = list.compare(&found);
    if write {
        list.update(found);
        fs::write(&path, list.to_string()).unwrap();
        complaints = list.without_reason();
    }
    complaints.extend(summary::compare_readme(&files, &root.join("README.md"), write));
    for complaint in &complaints {
        println!("{complaint}");
    }
    if complaints.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
