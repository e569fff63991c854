//! QEMU as the side that listens: our back-end connects to it, goes away, and connects again.

use core::time::Duration;
use std::process::Command;
use std::thread;

use serde_json::json;
use vhost_std::eventfd::EventFd;
use vhost_std::server::{End, RingThreads};
use vhost_tests::guest::Monitor;
use vhost_tests::program::{Running, require};

use crate::reconnect::StopAtEnd;
use crate::support::Image;

/// Never reached where things work; QEMU takes its time to start.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_back_end_connects_to_qemu_again_and_again() {
    let Some(qemu) = require("qemu-system-x86_64") else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let mut server = Image::new().server(1, RingThreads::Shared(1));
    let mut command = Command::new(qemu);
    command.args(["-accel", "tcg,thread=single", "-nodefaults", "-display", "none", "-S"]);
    command.args(["-machine", "q35,memory-backend=mem", "-m", "64M"]);
    command.args(["-object", "memory-backend-memfd,id=mem,size=64M,share=on"]);
    command.arg("-chardev").arg(format!("socket,id=vu,path={},server=on,wait=off", path.display()));
    command.args(["-device", "vhost-user-blk-pci,chardev=vu,num-queues=1"]);
    let monitor = folder.path().join("monitor");
    command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", monitor.display()));
    let mut running = Running::start(&mut command);
    running.wait_for_socket(&monitor, LIMIT);
    let mut talk = None;
    for round in 0..4 {
        let stop = EventFd::new().unwrap();
        let mut ends = Vec::new();
        thread::scope(|scope| {
            let _ending = StopAtEnd(&stop);
            let serving = scope.spawn(|| server.connect_again(&path, &stop, |end| ends.push(end)));
            // The first time QEMU starts when the back-end is there.
            let talk = talk.get_or_insert_with(|| Monitor::connect(&monitor));
            running.wait_until("a connection", LIMIT, || is_connected(talk).then_some(()));
            stop.signal().unwrap();
            assert_eq!(serving.join().unwrap(), Ok(()));
            running.wait_until("no connection", LIMIT, || (!is_connected(talk)).then_some(()));
        });
        // It was there until it ended by itself: QEMU had nothing against it.
        assert_eq!(ends, [Ok(End::Stopped)], "connection {round}: {}", running.output());
    }
}

/// Whether a back-end is there; when QEMU answers, it has talked to it.
fn is_connected(talk: &mut Monitor) -> bool {
    let all = talk.execute("query-chardev", json!({}));
    let ours = all.as_array().unwrap().iter().find(|device| device["label"] == "vu").unwrap();
    !ours["filename"].as_str().unwrap().starts_with("disconnected:")
}
