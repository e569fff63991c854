//! What holds for everybody.

use std::os::fd::AsFd;

use vhost_core::{LogArea, VhostBackend, VirtioFeatures, VringSetting};
use vhost_std::driver::GuestArea;
use vhost_std::eventfd::EventFd;
use vhost_std::memory::MemoryFile;

use crate::driver::{PIECE, Request, SECTORS, SLOTS, pattern};
use crate::subject::{Image, Subject};

/// Makes a test of each scenario for one subject; `but for` names those that it does not pass.
macro_rules! suite {
    ($subject:ty) => {
        suite!($subject, but for disabled rings);
        suite!($subject: a_disabled_ring_waits_and_goes_on_when_it_is_enabled);
    };
    ($subject:ty, but for disabled rings) => {
        suite!(
            $subject:
            what_is_written_is_read_back_and_is_in_the_image,
            a_stopped_ring_tells_where_it_was_and_goes_on_there,
            kick_and_call_are_replaced_and_removed_while_a_ring_runs,
            memory_is_replaced_while_rings_run,
            what_the_device_writes_is_logged_where_that_is_offered,
            a_device_that_was_reset_is_started_again,
            what_is_impossible_is_refused_and_the_rest_goes_on
        );
    };
    ($subject:ty: $($scenario:ident),*) => {$(
        #[test]
        fn $scenario() {
            crate::suite::$scenario::<$subject>();
        }
    )*};
}

pub(crate) use suite;

/// A subject of so many queues, claimed.
fn started<S: Subject>(image: &Image, queues: u16) -> Option<S> {
    let mut subject = S::start(image, queues)?;
    subject.backend().set_owner().unwrap();
    Some(subject)
}

pub(crate) fn what_is_written_is_read_back_and_is_in_the_image<S: Subject>() {
    const QUEUES: u16 = 4;
    let image = Image::new();
    let Some(mut subject) = started::<S>(&image, QUEUES) else { return };
    let mut driver = S::driver(QUEUES);
    driver.bring_up(subject.backend());
    // Each round writes pieces of its own, so that indices come around more than once.
    for round in 0..12 {
        let number = |queue: u16, slot: u16| u64::from((round * QUEUES + queue) * SLOTS + slot);
        let write = |queue, slot| {
            let number = number(queue, slot);
            Request::Write(number * SECTORS, Vec::leak(pattern(number)))
        };
        driver.run_all(&mut subject, write);
        driver.run_all(&mut subject, |_, _| Request::Flush);
        driver.run_all(&mut subject, |queue, slot| Request::Read(number(queue, slot) * SECTORS));
        for queue in &driver.queues {
            for slot in 0..SLOTS {
                let number = number(queue.index, slot);
                assert!(queue.data(slot) == pattern(number), "round {round}, queue {}, slot {slot}", queue.index);
                assert!(image.read(number * SECTORS, PIECE) == pattern(number), "piece {number} in the image");
            }
        }
    }
}

pub(crate) fn a_stopped_ring_tells_where_it_was_and_goes_on_there<S: Subject>() {
    let image = Image::new();
    let Some(mut subject) = started::<S>(&image, 2) else { return };
    let mut driver = S::driver(2);
    driver.bring_up(subject.backend());
    for round in 1..=5 {
        let queue = &mut driver.queues[1];
        for _ in 0..7 {
            queue.run(&mut subject, Request::Write(round * SECTORS, &pattern(round)));
        }
        assert_eq!(subject.backend().stop_vring(queue.index).unwrap(), queue.base());
        // What comes meanwhile waits, although its kick went nowhere.
        queue.submit(3, Request::Read(round * SECTORS));
        queue.publish();
        // The other one goes on.
        driver.queues[0].run(&mut subject, Request::Flush);
        let queue = &mut driver.queues[1];
        queue.start(subject.backend());
        // A new back-end need not look by itself; a front-end kicks (vhost-user, section "Ring states").
        queue.kick.signal().unwrap();
        assert_eq!(queue.wait(&mut subject), 3);
        assert!(queue.data(3) == pattern(round));
    }
}

pub(crate) fn kick_and_call_are_replaced_and_removed_while_a_ring_runs<S: Subject>() {
    let image = Image::new();
    let Some(mut subject) = started::<S>(&image, 1) else { return };
    let mut driver = S::driver(1);
    driver.bring_up(subject.backend());
    let queue = &mut driver.queues[0];
    for round in 0..6 {
        queue.run(&mut subject, Request::Write(0, &pattern(round)));
        queue.kick = EventFd::new().unwrap();
        subject.backend().set_vring(queue.index, VringSetting::Kick(Some(&queue.kick))).unwrap();
        queue.run(&mut subject, Request::Read(0));
        assert!(queue.data(0) == pattern(round));
        // A VMM does this to mask interrupts.
        queue.call = EventFd::new().unwrap();
        subject.backend().set_vring(queue.index, VringSetting::Call(Some(&queue.call))).unwrap();
    }
    subject.backend().set_vring(queue.index, VringSetting::Call(None)).unwrap();
    queue.call.drain().unwrap();
    queue.submit(2, Request::Read(0));
    queue.publish();
    assert_eq!(queue.wait_without_call(&mut subject), 2);
    subject.backend().set_vring(queue.index, VringSetting::Call(Some(&queue.call))).unwrap();
    queue.run(&mut subject, Request::Flush);
}

pub(crate) fn memory_is_replaced_while_rings_run<S: Subject>() {
    let image = Image::new();
    let Some(mut subject) = started::<S>(&image, 1) else { return };
    let mut driver = S::driver(1);
    driver.bring_up(subject.backend());
    for round in 0..4 {
        let more = MemoryFile::create("more", 0x2_0000_0000, 0x8000).unwrap();
        let both: [(_, &dyn AsFd); 2] = [(*more.region(), &more), (*driver.memory.region(), &driver.memory)];
        subject.backend().set_memory(&both).unwrap();
        // The data comes from the new region, by a ring in the old one.
        let old = core::mem::replace(&mut driver.queues[0].slots, GuestArea::of(&more));
        driver.queues[0].run(&mut subject, Request::Write(round * SECTORS, &pattern(round)));
        driver.queues[0].slots = old;
        subject.backend().set_memory(&both[1..]).unwrap();
        driver.queues[0].run(&mut subject, Request::Read(round * SECTORS));
        assert!(driver.queues[0].data(0) == pattern(round));
    }
}

pub(crate) fn what_the_device_writes_is_logged_where_that_is_offered<S: Subject>() {
    let image = Image::new();
    let Some(mut subject) = started::<S>(&image, 1) else { return };
    let mut driver = S::driver(1);
    let agreed = driver.bring_up(subject.backend());
    driver.queues[0].run(&mut subject, Request::Write(0, &pattern(3)));
    // A bit for each page from guest address 0 on.
    let region = *driver.memory.region();
    let pages = (region.guest_address.0 + region.size) / 0x1000;
    let log = MemoryFile::create("log", 0, (pages / 8).next_multiple_of(0x1000)).unwrap();
    let area = LogArea {
        size: log.region().size,
        offset: 0,
        user_address: log.region().user_address,
        memory: &log as &dyn AsFd,
    };
    if !subject.backend().features().unwrap().contains(VirtioFeatures::LOG_ALL) {
        assert!(subject.backend().set_log(&area).is_err(), "a log that nobody writes");
        return;
    }
    let queue = &mut driver.queues[0];
    let page = queue.data_address(1) / 0x1000;
    let is_logged = || {
        let mut byte = [0];
        GuestArea::of(&log).read(page / 8, &mut byte).unwrap();
        byte[0] & 1 << (page % 8) != 0
    };
    subject.backend().set_log(&area).unwrap();
    subject.backend().acknowledge(agreed | VirtioFeatures::LOG_ALL).unwrap();
    queue.run(&mut subject, Request::Write(0, &pattern(4)));
    assert!(!is_logged(), "nothing was written there");
    queue.submit(1, Request::Read(0));
    queue.publish();
    assert_eq!(queue.wait(&mut subject), 1);
    assert!(is_logged() && queue.data(1) == pattern(4));
    subject.backend().acknowledge(agreed).unwrap();
    queue.run(&mut subject, Request::Flush);
}

pub(crate) fn a_disabled_ring_waits_and_goes_on_when_it_is_enabled<S: Subject>() {
    let image = Image::new();
    let Some(mut subject) = started::<S>(&image, 2) else { return };
    let mut driver = S::driver(2);
    driver.bring_up(subject.backend());
    for _ in 0..4 {
        driver.queues[1].run(&mut subject, Request::Flush);
        let index = driver.queues[1].index;
        subject.backend().set_vring(index, VringSetting::Disable).unwrap();
        driver.queues[1].submit(0, Request::Flush);
        driver.queues[1].publish();
        for _ in 0..20 {
            driver.queues[0].run(&mut subject, Request::Flush);
        }
        assert_eq!(driver.queues[1].ring.poll_used().unwrap(), None, "a disabled ring was processed");
        subject.backend().set_vring(index, VringSetting::Enable).unwrap();
        assert_eq!(driver.queues[1].wait(&mut subject), 0);
    }
}

pub(crate) fn a_device_that_was_reset_is_started_again<S: Subject>() {
    let image = Image::new();
    let Some(mut subject) = started::<S>(&image, 2) else { return };
    for round in 0..3 {
        let mut driver = S::driver(2);
        driver.bring_up(subject.backend());
        for queue in &mut driver.queues {
            queue.run(&mut subject, Request::Write(SECTORS, &pattern(round)));
            queue.run(&mut subject, Request::Flush);
        }
        subject.backend().reset().unwrap();
        assert!(image.read(SECTORS, PIECE) == pattern(round));
    }
}

pub(crate) fn what_is_impossible_is_refused_and_the_rest_goes_on<S: Subject>() {
    let image = Image::new();
    let Some(mut subject) = started::<S>(&image, 1) else { return };
    let mut driver = S::driver(1);
    driver.bring_up(subject.backend());
    let everything = VirtioFeatures::from_bits_retain(u64::MAX);
    let (index, ring) = (driver.queues[0].index, &driver.queues[0].ring);
    let mut astray = ring.user_addresses();
    astray.used.0 |= 1;
    let mut shifted = *driver.memory.region();
    shifted.guest_address.0 += 0x1000;
    let overlapping: [(_, &dyn AsFd); 2] = [(*driver.memory.region(), &driver.memory), (shifted, &driver.memory)];
    let backend = subject.backend();
    assert!(backend.acknowledge(everything).is_err(), "features that were not offered");
    assert!(backend.acknowledge(VirtioFeatures::VERSION_1).is_err(), "other features while a ring runs");
    assert!(backend.set_vring(index, VringSetting::Size(8)).is_err(), "another size while the ring runs");
    assert!(backend.set_vring(index, VringSetting::Base(ring.base())).is_err(), "a base while the ring runs");
    assert!(backend.set_vring(index, VringSetting::Addresses(astray)).is_err(), "a misaligned ring");
    assert!(backend.set_vring(300, VringSetting::Size(8)).is_err(), "a ring that does not exist");
    assert!(backend.stop_vring(300).is_err(), "a ring that does not exist");
    assert!(backend.set_memory(&overlapping).is_err(), "overlapping regions");
    driver.queues[0].run(&mut subject, Request::Write(0, &pattern(5)));
    assert!(image.read(0, PIECE) == pattern(5));
}
