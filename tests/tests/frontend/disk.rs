//! The disk client against a disk that does what a well-behaved one never does.

use std::thread::JoinHandle;

use vhost_core::DriverFault;
use vhost_std::deadline::Deadline;
use vhost_std::driver::{BlockClient, BlockClientError, BlockClientOptions, BlockRequest, BlockStatus, DriverError};
use vhost_std::frontend::{Frontend, FrontendError};
use vhost_tests::dialog::PATIENCE;

use crate::disk_by_hand::Disk;
use crate::script::scripted;

fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

fn disk<T: Send + 'static>(script: impl FnOnce(Disk) -> T + Send + 'static) -> (Frontend, JoinHandle<T>) {
    scripted(|backend| script(Disk::start(backend, 1000)))
}

/// A client whose disk follows a script.
fn client<T: Send + 'static>(script: impl FnOnce(Disk) -> T + Send + 'static) -> (BlockClient, JoinHandle<T>) {
    let (frontend, thread) = disk(script);
    (BlockClient::start(frontend, BlockClientOptions::default()).unwrap(), thread)
}

#[test]
fn the_next_disk_gets_exactly_what_the_last_one_had_not_done_in_order() {
    let (mut client, thread) = client(|mut disk| {
        let chains = disk.take(4);
        // Out of order, and then it dies.
        disk.done(&chains[1], 0, 1);
        disk.done(&chains[2], 0, 1);
    });
    let queue = &mut client.queues_mut()[0];
    for byte in 0..4 {
        let data = [byte; 512];
        queue.submit(BlockRequest::Write { sector: u64::from(byte), data: &data }).unwrap();
    }
    queue.publish().unwrap();
    thread.join().unwrap();
    // Taken before the end of the connection is looked at; the other stays for later.
    assert_eq!(client.wait(0, soon()).unwrap().ticket(), 1);

    let (frontend, thread) = disk(|mut disk| {
        let chains = disk.take(3);
        let data = |at: usize| disk.read(chains[at].buffers[1].0, 512);
        let seen = [data(0), data(1), data(2)].map(|data| (data[0], data.iter().all(|byte| *byte == data[0])));
        for chain in chains.iter().rev() {
            disk.done(chain, 0, 1);
        }
        (disk.base, seen, disk.backend.try_receive().unwrap().is_none())
    });
    client.reconnect(frontend).unwrap();
    client.queues_mut()[0].submit(BlockRequest::Write { sector: 9, data: &[9; 512] }).unwrap();
    let tickets = [(); 4].map(|()| {
        let completion = client.wait(0, soon()).unwrap();
        assert_eq!(completion.status(), BlockStatus::Ok);
        completion.ticket()
    });
    // First what the last disk had done, then what the next did.
    assert_eq!(tickets, [2, 4, 3, 0]);
    drop(client);
    assert_eq!(thread.join().unwrap(), (0, [(0, true), (3, true), (9, true)], true));
}

/// libvhost-user and passt write to every new call descriptor, SPDK at every start.
#[test]
fn s31_a_call_is_a_hint_and_nothing_is_taken_for_done_because_of_it() {
    let (mut client, thread) = client(|mut disk| {
        disk.call();
        let chains = disk.take(1);
        disk.call();
        disk.call();
        disk.done(&chains[0], 0, 1);
        let chains = disk.take(1);
        disk.done(&chains[0], 1, 1);
    });
    for (sector, status) in [(0, BlockStatus::Ok), (1, BlockStatus::IoError)] {
        let written = client.run(0, BlockRequest::Write { sector, data: &[5; 512] }, soon()).unwrap();
        assert_eq!(written.status(), status);
    }
    thread.join().unwrap();
}

#[test]
fn a_short_answer_is_told_and_one_without_status_is_an_error() {
    let (mut client, thread) = client(|mut disk| {
        let chains = disk.take(1);
        disk.write(chains[0].buffers[1].0, &[7; 100]);
        disk.done(&chains[0], 0, 101);
        let chains = disk.take(1);
        disk.used(chains[0].head.into(), 0);
    });
    let read = client.run(0, BlockRequest::Read { sector: 0, length: 512 }, soon()).unwrap();
    let mut data = [1; 512];
    assert_eq!((read.status(), read.length(), read.read(&mut data)), (BlockStatus::Ok, 100, Ok(100)));
    assert_eq!((data[99], data[100]), (7, 1));
    drop(read);
    let flush = client.run(0, BlockRequest::Flush, soon()).unwrap();
    assert_eq!((flush.status(), flush.length()), (BlockStatus::IoError, 0));
    drop(flush);
    thread.join().unwrap();
}

#[test]
fn a_disk_that_breaks_its_ring_is_found_out() {
    let (mut client, thread) = client(|mut disk| {
        disk.take(1);
        disk.used(77, 0);
    });
    let error = client.run(0, BlockRequest::Flush, soon()).unwrap_err();
    let fault = DriverFault::UnknownToken { position: 0, token: 77 };
    assert_eq!(error, BlockClientError::Ring(DriverError::Device(fault)));
    assert_eq!(client.queues_mut()[0].in_flight(), 1, "nobody knows what became of it");
    thread.join().unwrap();
}

#[test]
fn a_silent_disk_holds_up_nobody_and_a_dead_one_is_noticed() {
    let (mut client, thread) = client(|mut disk| drop(disk.take(2)));
    let silent = client.run(0, BlockRequest::Flush, Deadline::after(core::time::Duration::from_millis(20)));
    assert_eq!(silent.unwrap_err(), BlockClientError::TimedOut);
    let dead = client.run(0, BlockRequest::Flush, soon()).unwrap_err();
    assert!(matches!(dead, BlockClientError::Frontend(FrontendError::Closed(_))), "{dead}");
    thread.join().unwrap();
}

#[test]
fn requests_without_room_are_refused_and_slots_come_back() {
    let (mut client, thread) = client(|mut disk| {
        for chain in disk.take(32) {
            disk.done(&chain, 0, 1);
        }
        drop(disk.backend.try_receive());
    });
    let queue = &mut client.queues_mut()[0];
    let long = BlockRequest::Read { sector: 0, length: (64 << 10) + 512 };
    let too_much = BlockClientError::TooMuchData { found: (64 << 10) + 512, limit: 64 << 10 };
    assert_eq!(queue.submit(long), Err(too_much));
    for ticket in 0..32 {
        assert_eq!(queue.submit(BlockRequest::Flush), Ok(ticket));
    }
    assert_eq!(queue.submit(BlockRequest::Flush), Err(BlockClientError::Busy));
    for _ in 0..32 {
        assert_eq!(queue.wait(soon()).unwrap().unwrap().status(), BlockStatus::Ok);
    }
    assert_eq!((queue.in_flight(), queue.submit(BlockRequest::Flush)), (0, Ok(32)));
    let BlockClientError::NoSuchQueue { found: 1 } = client.run(1, BlockRequest::Flush, soon()).unwrap_err() else {
        panic!("there is one queue")
    };
    drop(client);
    thread.join().unwrap();
}

#[test]
fn another_disk_is_not_gone_on_with() {
    let (mut client, first) = client(drop);
    first.join().unwrap();
    // It does not offer VERSION_1.
    let (frontend, thread) = scripted(|backend| {
        let backend = backend.offering(1 << 30, 1 << 9);
        let (config, _) = backend.serve_until(24);
        backend.reply(&config, config.payload(), &[]);
        drop(backend.try_receive());
    });
    assert_eq!(client.reconnect(frontend), Err(BlockClientError::OtherDevice));
    drop(client);
    thread.join().unwrap();
    // It has no configuration space.
    let (frontend, thread) = scripted(|backend| {
        let (config, _) = backend.serve_until(24);
        backend.reply(&config, &[], &[]);
        drop(backend.try_receive());
    });
    let error = BlockClient::start(frontend, BlockClientOptions::default()).unwrap_err();
    assert_eq!(error, BlockClientError::NoConfig { found: 0 });
    thread.join().unwrap();
}
