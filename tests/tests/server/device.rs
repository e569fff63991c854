//! What a device hears of its front-ends.

use std::sync::{Arc, Mutex};

use vhost_std::device::{ConfigRefused, Device, Queue, copy_config};
use vhost_std::server::{BackendServer, RingThreads, ServerOptions};
use vhost_tests::driver::{BLOCK, Command, GuestMemory, Ring};
use vhost_tests::wire::{Bytes, feature};

use crate::support::{Bench, Dialog, OFFER, number};

/// A device of three queues that writes down what it hears.
#[derive(Default)]
struct Diary(Mutex<Vec<String>>);

impl Diary {
    fn note(&self, event: String) {
        self.0.lock().unwrap().push(event);
    }

    #[track_caller]
    fn assert_heard(&self, expected: &[&str]) {
        assert_eq!(*self.0.lock().unwrap(), expected);
        self.0.lock().unwrap().clear();
    }
}

impl Device for Diary {
    fn device_id(&self) -> u32 {
        42
    }

    fn queues(&self) -> u16 {
        3
    }

    fn process(&self, queue: &mut Queue<'_>) {
        let mut chains = 0;
        while let Some(chain) = queue.next() {
            queue.complete(chain, 0);
            chains += 1;
        }
        if chains > 0 {
            self.note(format!("{chains} chains in queue {}", queue.index()));
        }
    }

    fn features(&self) -> u64 {
        0b1011 | 1 << 50
    }

    fn config_size(&self) -> u32 {
        4
    }

    fn read_config(&self, offset: u32, data: &mut [u8]) {
        self.note(format!("read {} at {offset}", data.len()));
        copy_config(&[1, 2, 3, 4], offset, data);
    }

    fn write_config(&self, offset: u32, data: &[u8]) -> Result<(), ConfigRefused> {
        self.note(format!("write {data:?} at {offset}"));
        if offset == 0 { Ok(()) } else { Err(ConfigRefused { offset, length: data.len() }) }
    }

    fn features_acknowledged(&self, features: u64) {
        self.note(format!("features {features:#x}"));
    }

    fn reset(&self) {
        self.note("reset".to_owned());
    }
}

fn server() -> (Arc<Diary>, BackendServer) {
    let diary = Arc::new(Diary::default());
    let mut options = ServerOptions::default();
    options.threads = RingThreads::Caller;
    let server = BackendServer::new(diary.clone(), options).unwrap();
    (diary, server)
}

fn config(offset: u32, data: &[u8]) -> Vec<u8> {
    Bytes::new().u32(offset).u32(data.len() as u32).u32(0).raw(data).done()
}

#[test]
fn a_device_hears_of_features_without_the_protocol_of_configuration_and_of_every_reset() {
    let (diary, mut server) = server();
    let ring_features = feature::VERSION_1
        | feature::INDIRECT_DESCRIPTORS
        | feature::EVENT_INDEX
        | feature::LOG_ALL
        | feature::IOMMU_PLATFORM
        | 1 << 34;
    assert_eq!(server.features().bits(), 0b1011 | 1 << 50 | ring_features);
    let mut bench = Bench::negotiated(&mut server);
    let taken = OFFER & !feature::PROTOCOL_FEATURES;
    diary.assert_heard(&[&format!("features {taken:#x}")]);
    bench.grant("SET_FEATURES", &number(OFFER | 0b1001), &[]);
    diary.assert_heard(&[&format!("features {:#x}", taken | 0b1001)]);
    // A refused request is not heard of.
    bench.refused("SET_FEATURES", &number(OFFER | 0b100), &[]);

    assert_eq!(bench.ask("GET_CONFIG", &config(2, &[0; 3])).payload(), config(2, &[3, 4, 0]));
    bench.grant("SET_CONFIG", &config(0, &[7, 8]), &[]);
    bench.refused("SET_CONFIG", &config(1, &[9]), &[]);
    diary.assert_heard(&["read 3 at 2", "write [7, 8] at 0", "write [9] at 1"]);

    bench.grant("RESET_DEVICE", &[], &[]);
    bench.grant("SET_STATUS", &number(1), &[]);
    bench.grant("SET_STATUS", &number(0), &[]);
    diary.assert_heard(&["reset", "reset"]);
    drop(bench);
    diary.assert_heard(&["reset"]);
    drop(Bench::new(&mut server));
    diary.assert_heard(&["reset"]);
}

#[test]
fn a_device_is_given_its_queues_by_index_and_only_when_they_run() {
    let (diary, mut server) = server();
    let memory = Arc::new(GuestMemory::new(3 * BLOCK));
    let mut rings = [0, 1, 2].map(|index| Ring::new(&memory, index, 16));
    let mut bench = Bench::negotiated(&mut server);
    bench.share(&[&memory]);
    for ring in &mut rings {
        ring.request(0, Command::Flush, 0);
        ring.request(1, Command::Flush, 0);
        bench.start(ring);
    }
    bench.settle();
    diary.0.lock().unwrap().clear();
    bench.enable(&rings[2], 1);
    bench.settle();
    diary.assert_heard(&["2 chains in queue 2"]);
    bench.enable(&rings[0], 1);
    bench.settle();
    diary.assert_heard(&["2 chains in queue 0"]);
    bench.enable(&rings[0], 0);
    for ring in &mut rings {
        ring.request(2, Command::Flush, 0);
        ring.kick();
    }
    bench.settle();
    diary.assert_heard(&["1 chains in queue 2"]);
}

/// Many requests are a turn's share: other queues have theirs in between, and nobody has to kick for the rest.
#[test]
fn a_ring_that_never_runs_dry_leaves_the_others_their_turns() {
    let (_, mut server) = server();
    let memory = Arc::new(GuestMemory::new(2 * BLOCK));
    let [mut busy, mut other] = [0, 1].map(|index| Ring::new(&memory, index, 2));
    let mut bench = Bench::negotiated(&mut server);
    bench.share(&[&memory]);
    busy.descriptor(0, (busy.buffers, 1), 0, 0);
    other.descriptor(0, (other.buffers, 1), 0, 0);
    for ring in [&busy, &other] {
        bench.start(ring);
        bench.enable(ring, 1);
    }
    for _ in 0..100 {
        busy.offer(0);
        busy.offer(0);
        busy.kick();
        other.offer(0);
        other.kick();
        assert_eq!(bench.wait_used(&mut other), (0, 0));
        assert_eq!([bench.wait_used(&mut busy), bench.wait_used(&mut busy)], [(0, 0), (0, 0)]);
    }
}
