//! No message costs an allocation: neither at the front-end nor at the back-end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::os::fd::AsFd;
use std::sync::Arc;

use vhost_core::{ProtocolFeatures, VirtioFeatures, wire::config::Config};
use vhost_std::block::{BlockDevice, BlockOptions};
use vhost_std::frontend::Frontend;
use vhost_std::server::{BackendServer, Progress, RingThreads, ServerOptions};
use vhost_std::socket::Socket;
use vhost_tests::allocations::{Counting, allocations};
use vhost_tests::dialog::{FakeFrontend, PATIENCE, event};
use vhost_tests::wire::{self, REQUEST, feature, header};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const COUNT: usize = 100;

fn server() -> BackendServer {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let disk = BlockDevice::from_fd(file.into(), &BlockOptions { queues: 2, ..BlockOptions::default() }).unwrap();
    let mut options = ServerOptions::default();
    options.threads = RingThreads::Caller;
    BackendServer::new(Arc::new(disk), options).unwrap()
}

/// Requests without descriptors, which repeat in a device's life.
fn requests() -> Vec<Vec<u8>> {
    let names = ["GET_FEATURES", "SET_VRING_NUM", "SET_VRING_BASE", "SET_VRING_ENABLE", "GET_CONFIG", "GET_QUEUE_NUM"];
    let all = wire::all_frontend_requests();
    let named = all.iter().filter(|fixture| names.contains(&fixture.name));
    Vec::from_iter(named.map(wire::Fixture::request_needing_reply))
}

#[test]
fn the_back_end_allocates_nothing_for_a_message() {
    let mut server = server();
    let (frontend, theirs) = FakeFrontend::pair();
    let mut connection = server.connect(Socket::from(theirs));
    let mut serve = |bytes: &[u8]| {
        frontend.send(bytes, &[]);
        assert_eq!(connection.process().unwrap(), Progress::Idle);
    };
    let number = |id, number: u64| [&header(id, REQUEST, 8)[..], &number.to_ne_bytes()].concat();
    serve(&header(1, REQUEST, 0));
    serve(&number(16, feature::REPLY_ACK | feature::MQ | feature::CONFIG));
    serve(&header(3, REQUEST, 0));
    serve(&number(2, feature::VERSION_1 | feature::PROTOCOL_FEATURES));
    for request in requests() {
        let burst = request.repeat(20);
        // The first burst makes room for the answers of all that follow.
        let mut counted = 0;
        for round in 0..COUNT {
            frontend.send(&burst, &[]);
            let allocated = allocations(|| assert_eq!(connection.process().unwrap(), Progress::Idle));
            if round > 0 {
                counted += allocated;
            }
            (0..20).for_each(|_| drop(frontend.receive()));
        }
        let ids = wire::Header::read(*request.first_chunk().unwrap());
        assert_eq!(counted, 0, "{ids:?}");
    }
}

#[test]
fn the_front_end_allocates_nothing_for_a_call() {
    let mut server = server();
    let (near, far) = Socket::pair().unwrap();
    let stop = event();
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| server.connect(far).run(&stop).unwrap());
        let mut frontend = Frontend::from_socket(near);
        let protocol = ProtocolFeatures::REPLY_ACK | ProtocolFeatures::MQ | ProtocolFeatures::CONFIG;
        frontend.negotiate(VirtioFeatures::VERSION_1, protocol).unwrap();
        let call = event();
        let mut config = [0; 60];
        for limit in [None, Some(PATIENCE)] {
            frontend.set_timeout(limit);
            let counted = allocations(|| {
                for _ in 0..COUNT {
                    frontend.get_features().unwrap();
                    frontend.set_vring_num(0, 128).unwrap();
                    frontend.set_vring_call(0, Some(call.as_fd())).unwrap();
                    frontend.get_config(0, &mut config, Config::WRITABLE).unwrap();
                }
            });
            assert_eq!(counted, 0, "{limit:?}");
        }
        drop(frontend);
        serving.join().unwrap();
    });
}

/// The thread of the server, which waits by itself.
#[test]
fn the_loop_of_the_server_allocates_nothing() {
    let count = |calls: usize| {
        let mut server = server();
        let (near, far) = Socket::pair().unwrap();
        let stop = event();
        std::thread::scope(|scope| {
            let serving = scope.spawn(|| {
                let connection = server.connect(far);
                allocations(|| _ = connection.run(&stop).unwrap())
            });
            let mut frontend = Frontend::from_socket(near);
            for _ in 0..calls {
                frontend.get_features().unwrap();
            }
            drop(frontend);
            serving.join().unwrap()
        })
    };
    assert_eq!(count(10), count(1010), "a thousand more calls");
}
