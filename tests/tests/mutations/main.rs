//! Mistakes made on purpose, one at a time, in a copy of the core: the tests must notice each.
//!
//! `list.txt` is the list. That every mistake still has its place is checked always; that each is found takes minutes:
//! `cargo test -p vhost-tests --test mutations -- --ignored --nocapture` does that, and `.ci/run`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]
#![allow(clippy::print_stdout, reason = "it tells which test has found what")]

mod mistake;
mod workspace;

use std::sync::Mutex;
use std::time::Instant;

use workspace::{Outcome, Workspace};

/// One for each processor of the machine that `.ci/run` is made for.
const WORKERS: usize = 2;

#[test]
fn every_mistake_has_its_place() {
    let mistakes = mistake::all();
    assert!(mistakes.len() >= 30, "only {}", mistakes.len());
    let displaced = Vec::from_iter(mistakes.iter().filter_map(|mistake| mistake.applied().err()));
    assert!(displaced.is_empty(), "{}", displaced.join("\n"));
}

#[test]
#[ignore = "builds the core once for each mistake, some minutes; .ci/run does it"]
fn every_mistake_is_found() {
    let mistakes = mistake::all();
    let left = Mutex::new(mistakes.iter());
    let overlooked = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (left, overlooked) = (&left, &overlooked);
            scope.spawn(move || {
                let workspace = Workspace::new(worker);
                loop {
                    let Some(mistake) = left.lock().unwrap().next() else { return };
                    let begin = Instant::now();
                    let outcome = workspace.test(mistake);
                    let seconds = begin.elapsed().as_secs();
                    match outcome {
                        Outcome::Found(tests) => {
                            println!("found: {} ({seconds} s) — {}", mistake.what, tests.join(", "));
                        }
                        Outcome::Overlooked => {
                            println!("OVERLOOKED: {}", mistake.what);
                            overlooked.lock().unwrap().push(&mistake.what);
                        }
                        Outcome::Unusable(reason) => {
                            println!("UNUSABLE: {}\n{reason}", mistake.what);
                            overlooked.lock().unwrap().push(&mistake.what);
                        }
                    }
                }
            });
        }
    });
    let overlooked = overlooked.into_inner().unwrap();
    println!("{} of {} mistakes found", mistakes.len() - overlooked.len(), mistakes.len());
    assert!(overlooked.is_empty(), "{overlooked:#?}");
}
