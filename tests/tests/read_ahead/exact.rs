//! Both sides over an endpoint that reads nothing of the next message.

use std::sync::Arc;

use vhost_core::{Channel, FrontendConfig, VirtioFeatures};
use vhost_std::deadline::Deadline;
use vhost_std::endpoint::Endpoint;
use vhost_std::entropy::EntropyDevice;
use vhost_std::frontend::Frontend;
use vhost_std::server::{BackendServer, ServerOptions};
use vhost_std::socket::{Received, Socket};
use vhost_tests::wire::{self, header};

fn rest(socket: &Socket) -> Vec<u8> {
    let mut buffer = [0; 256];
    match socket.try_receive(&mut buffer).unwrap() {
        Some(Received::Data { bytes, .. }) => buffer[..bytes].to_vec(),
        other => panic!("the rest was expected, {other:?} came"),
    }
}

#[test]
fn a_front_end_leaves_what_follows_its_answer() {
    let (near, far) = Socket::pair().unwrap();
    let duplicate = Socket::from(rustix::io::fcntl_dupfd_cloexec(&near, 0).unwrap());
    let reply = [&header(1, wire::REPLY, 8)[..], &(1_u64 << 32).to_ne_bytes()].concat();
    far.send(&[&reply[..], b"for somebody else"].concat(), &[], Deadline::NEVER).unwrap();
    let mut frontend = Frontend::over(Endpoint::exact(near, Channel::Frontend), FrontendConfig::new(1));
    assert_eq!(frontend.get_features(), Ok(VirtioFeatures::VERSION_1));
    assert_eq!(rest(&duplicate), b"for somebody else");
}

#[test]
fn a_back_end_answers_what_it_reads_message_by_message() {
    let device = Arc::new(EntropyDevice::open("/dev/zero".as_ref()).unwrap());
    let mut server = BackendServer::new(device, ServerOptions::default()).unwrap();
    let (near, far) = Socket::pair().unwrap();
    let mut connection = server.connect_over(Endpoint::exact(far, Channel::Frontend));
    let ask = header(1, wire::REQUEST, 0);
    near.send(&[&ask[..], &ask, &ask[..5]].concat(), &[], Deadline::NEVER).unwrap();
    let _ = connection.process().unwrap();
    assert_eq!(rest(&near).len(), 40);
    near.send(&ask[5..], &[], Deadline::NEVER).unwrap();
    let _ = connection.process().unwrap();
    assert_eq!(rest(&near).len(), 20);
}
