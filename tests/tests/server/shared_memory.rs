//! A device that has parts of files mapped into its shared memory, and front-ends that do as they like.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, OnceLock};

use vhost_core::wire::shared::SharedMemoryMap;
use vhost_std::deadline::Deadline;
use vhost_std::device::{Device, Queue};
use vhost_std::server::{BackendServer, DeviceNotifier, MappingAnswer, MappingError, RingThreads, ServerOptions};
use vhost_tests::descriptors::leaves_nothing_open;
use vhost_tests::dialog::{Received, Socket, memory, same_file};
use vhost_tests::driver::{BLOCK, Command, GuestMemory, Ring};
use vhost_tests::wire::{Bytes, Layout, REQUEST, REQUEST_NEEDING_REPLY, feature};

use crate::support::{Bench, Dialog, OFFER};

const MAP: u32 = 9;
const UNMAP: u32 = 10;

/// A device with shared memory regions of these sizes.
struct Windowed(Vec<u64>);

impl Device for Windowed {
    fn device_id(&self) -> u32 {
        26
    }

    fn queues(&self) -> u16 {
        1
    }

    fn process(&self, _: &mut Queue<'_>) {}

    fn shared_memory(&self) -> &[u64] {
        &self.0
    }
}

fn windowed(sizes: &[u64]) -> (BackendServer, DeviceNotifier) {
    let mut options = ServerOptions::default();
    options.threads = RingThreads::Caller;
    let server = BackendServer::new(Arc::new(Windowed(sizes.to_vec())), options).unwrap();
    let notifier = server.notifier();
    (server, notifier)
}

fn map(page: u64) -> SharedMemoryMap {
    SharedMemoryMap::new(2, 0x1000 * page, 0x2000 * page, 0x3000, SharedMemoryMap::READ_WRITE)
}

#[track_caller]
fn acknowledge(channel: &Socket, request: &Received, number: u64) {
    let header = vhost_tests::wire::header(request.id(), 5, 8);
    channel.send(&Bytes::new().raw(&header).u64(number).done(), &[]);
}

/// The answer that is there: a deadline in the past does not wait.
fn outcome(answer: MappingAnswer) -> Result<(), MappingError> {
    answer.wait(Deadline::after(core::time::Duration::ZERO))
}

#[test]
fn shared_memory_is_offered_by_devices_that_have_some() {
    for (sizes, offered) in
        [(&[][..], 0), (&[0, 0], 0), (&[0, 0x1000, 0x2000], feature::SHMEM | feature::BACKEND_SEND_FD)]
    {
        let (mut server, _) = windowed(sizes);
        let mut bench = Bench::new(&mut server);
        let all = bench.ask_number("GET_PROTOCOL_FEATURES");
        assert_eq!(all & (feature::SHMEM | feature::BACKEND_SEND_FD), offered, "{sizes:?}");
    }
    let (mut server, _) = windowed(&[0, 0x1000, 0x2000]);
    let mut bench = Bench::negotiated(&mut server);
    let reply = bench.ask("GET_SHMEM_CONFIG", &[]);
    let told = [&Bytes::new().u32(2).padding(4).u64(0).u64(0x1000).u64(0x2000).done()[..], &[0; 253 * 8]].concat();
    assert_eq!(reply.payload(), told);
}

#[test]
fn a_mapping_is_asked_for_and_its_answer_told() {
    leaves_nothing_open("shared_memory::a_mapping_is_asked_for_and_its_answer_told", || {
        let (mut server, notifier) = windowed(&[0, 0, 0x10_0000]);
        let mut bench = Bench::negotiated(&mut server);
        let channel = bench.open_channel();
        let file = memory(0x1000);
        let mapped = notifier.map(map(1), file.try_clone().unwrap()).unwrap();
        let refused = notifier.map(map(2), file.try_clone().unwrap()).unwrap();
        let unmapped = notifier.unmap(map(1)).unwrap();
        bench.settle();
        let requests = [channel.receive(), channel.receive(), channel.receive()];
        for (request, (id, page)) in requests.iter().zip([(MAP, 1), (MAP, 2), (UNMAP, 1)]) {
            assert_eq!((request.id(), request.header().flags), (id, REQUEST_NEEDING_REPLY));
            let fields = request.fields(Layout::Mapping);
            assert_eq!(fields.number("fd_offset"), 0x1000 * page);
            assert_eq!(request.descriptors.len(), usize::from(id == MAP));
            assert!(request.descriptors.iter().all(|sent| same_file(sent, &file)));
        }
        for (request, number) in requests.iter().zip([0, 17, 0]) {
            acknowledge(&channel, request, number);
        }
        bench.settle();
        assert_eq!(outcome(mapped), Ok(()));
        assert_eq!(outcome(refused), Err(MappingError::Refused(17.try_into().unwrap())));
        assert_eq!(outcome(unmapped), Ok(()));
    });
}

#[test]
fn an_answer_that_does_not_come_is_told_too() {
    leaves_nothing_open("shared_memory::an_answer_that_does_not_come_is_told_too", || {
        let (mut server, notifier) = windowed(&[0x1000]);
        let ask = || notifier.map(map(1), memory(0x1000)).unwrap();
        let mut bench = Bench::negotiated(&mut server);
        let early = ask();
        bench.settle();
        assert_eq!(outcome(early), Err(MappingError::NoChannel));

        let channel = bench.open_channel();
        let (late, lost) = (ask(), ask());
        bench.settle();
        assert_eq!(outcome(late), Err(MappingError::TimedOut));
        // The answer that nobody waits for any more is not taken for the other one's.
        let requests = [channel.receive(), channel.receive()];
        acknowledge(&channel, &requests[0], 0);
        bench.settle();
        drop((channel, requests));
        bench.settle();
        assert_eq!(outcome(lost), Err(MappingError::NoChannel));

        let _channel = bench.open_channel();
        let (asked, posted) = (ask(), ask());
        bench.settle();
        drop(bench);
        let after = ask();
        assert_eq!([outcome(asked), outcome(posted)], [Err(MappingError::NoChannel); 2]);
        // What is posted between two connections is for nobody.
        let mut bench = Bench::new(&mut server);
        bench.negotiate(OFFER, !feature::SHMEM);
        bench.settle();
        assert_eq!(outcome(after), Err(MappingError::NoChannel));
        let channel = bench.open_channel();
        let unwanted = ask();
        bench.settle();
        assert!(matches!(outcome(unwanted), Err(MappingError::NotAsked(_))));
        drop(bench);
        channel.assert_closed();
    });
}

#[test]
fn without_acknowledgements_what_is_sent_counts_as_done() {
    let (mut server, notifier) = windowed(&[0x1000]);
    let mut bench = Bench::new(&mut server);
    bench.negotiate(OFFER, !feature::REPLY_ACK);
    let (channel, theirs) = Socket::pair();
    bench.request("SET_BACKEND_REQ_FD", &[], &[theirs.as_fd()]);
    drop(theirs);
    let answer = notifier.unmap(map(1)).unwrap();
    bench.settle();
    assert_eq!(channel.receive().header().flags, REQUEST);
    assert_eq!(outcome(answer), Ok(()));
}

/// As many as may be outstanding are sent at once, the others as answers come.
#[test]
fn many_mappings_wait_for_each_other() {
    let (mut server, notifier) = windowed(&[0x1000]);
    let mut bench = Bench::negotiated(&mut server);
    let channel = bench.open_channel();
    let answers = Vec::from_iter((0..100).map(|page| notifier.unmap(map(page)).unwrap()));
    for page in 0..100 {
        bench.settle();
        let request = channel.receive();
        assert_eq!(request.fields(Layout::Mapping).number("shm_offset"), 0x2000 * page);
        acknowledge(&channel, &request, page % 2);
    }
    bench.settle();
    for (page, answer) in answers.into_iter().enumerate() {
        assert_eq!(outcome(answer).is_ok(), page % 2 == 0);
    }
}

/// A device that waits for a mapping whenever it is kicked, however long it takes.
struct Patient {
    front_end: OnceLock<DeviceNotifier>,
    file: OwnedFd,
    heard: Mutex<Vec<Result<(), MappingError>>>,
}

impl Device for Patient {
    fn device_id(&self) -> u32 {
        26
    }

    fn queues(&self) -> u16 {
        1
    }

    fn process(&self, queue: &mut Queue<'_>) {
        while let Some(chain) = queue.next() {
            let answer = self.front_end.get().unwrap().map(map(1), self.file.try_clone().unwrap()).unwrap();
            self.heard.lock().unwrap().push(answer.wait(Deadline::NEVER));
            queue.complete(chain, 0);
        }
    }

    fn shared_memory(&self) -> &[u64] {
        &[0, 0, 0x10_0000]
    }
}

/// Whoever waits holds its ring, for which the end of the connection waits.
#[test]
fn a_device_that_waits_hears_of_the_end_of_the_connection() {
    let (front_end, heard) = (OnceLock::new(), Mutex::default());
    let device = Arc::new(Patient { front_end, file: memory(0x1000), heard });
    let mut options = ServerOptions::default();
    options.threads = RingThreads::Shared(1);
    let mut server = BackendServer::new(Arc::clone(&device) as Arc<dyn Device>, options).unwrap();
    device.front_end.set(server.notifier()).unwrap();
    let memory = Arc::new(GuestMemory::new(BLOCK));
    let mut ring = Ring::new(&memory, 0, 16);
    let mut bench = Bench::running(&mut server, &memory, &ring);
    let channel = bench.open_channel();
    ring.request(0, Command::Flush, 0);
    ring.kick();
    bench.wait_for(channel.as_fd());
    assert_eq!(channel.receive().id(), MAP);
    drop(bench);
    assert_eq!(*device.heard.lock().unwrap(), [Err(MappingError::NoChannel)]);
    // Nor does anybody wait where there is no connection.
    let answer = server.notifier().map(map(1), device.file.try_clone().unwrap()).unwrap();
    assert_eq!(answer.wait(Deadline::NEVER), Err(MappingError::NoChannel));
}
