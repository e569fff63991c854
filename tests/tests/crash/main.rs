//! Back-end processes are killed at random moments under load, thousands of times. The next one goes on from the inflight
//! record, and every request of the driver is completed exactly once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod backend;
mod disk;
mod load;
mod shuffled;

use std::env;

use vhost_core::VirtioFeatures;
use vhost_tests::program::built;

use crate::backend::Server;

/// How often the tool is killed on each layout of ring; the other disk is killed five times as often.
const KILLS: &str = "VHOST_CRASH_KILLS";

/// Where [`KILLS`] is not set: a few seconds in all.
const FEW_KILLS: u32 = 25;

const EVENT_IDX: VirtioFeatures = VirtioFeatures::RING_EVENT_IDX;
const PACKED: VirtioFeatures = VirtioFeatures::RING_PACKED;

fn kills() -> u32 {
    env::var(KILLS).map_or(FEW_KILLS, |kills| kills.parse().unwrap())
}

fn tool() -> Server {
    Server::Tool(built("vhost-std", "vhost-user"))
}

#[test]
fn the_disk_of_the_tool_is_killed_on_a_split_ring() {
    load::survives(&tool(), VirtioFeatures::empty(), kills());
}

#[test]
fn the_disk_of_the_tool_is_killed_on_a_packed_ring() {
    load::survives(&tool(), PACKED, kills());
}

#[test]
fn a_disk_that_completes_in_any_order_is_killed_on_a_split_ring() {
    load::survives(&Server::Shuffled, EVENT_IDX, 5 * kills());
}

#[test]
fn a_disk_that_completes_in_any_order_is_killed_on_a_packed_ring() {
    load::survives(&Server::Shuffled, PACKED | EVENT_IDX, 5 * kills());
}
