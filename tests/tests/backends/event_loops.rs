//! The examples of event loops do what they say.

use core::time::Duration;
use std::process::Command;

use vhost_tests::program::{Running, built_example};

/// Never reached where things work.
const LIMIT: Duration = Duration::from_secs(60);

fn runs(example: &str) {
    let mut running = Running::start(&mut Command::new(built_example("vhost-std", example)));
    let status = running.wait(LIMIT);
    assert!(status.success(), "{example}: {status}");
}

#[test]
fn a_disk_and_its_vmm_run_in_loops_around_poll() {
    runs("event_loop_poll");
}

#[test]
fn a_disk_and_its_vmm_run_in_loops_around_epoll() {
    runs("event_loop_epoll");
}

#[test]
fn a_disk_and_its_vmm_run_as_tokio_tasks() {
    runs("event_loop_tokio");
}
