//! A session whose messages are cut at every byte: nothing of it depends on where a read ends, and it may end anywhere.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use vhost_std::endpoint::EndpointError;
use vhost_std::server::{Progress, ServeError};
use vhost_tests::descriptors::{leaves_nothing_open, open_descriptors};
use vhost_tests::dialog::{Socket, borrowed, event};
use vhost_tests::driver::{BLOCK, Command, GuestMemory, Ring, table};
use vhost_tests::wire::region::Region;
use vhost_tests::wire::{Bytes, REQUEST, REQUEST_NEEDING_REPLY};

use crate::support::{Bench, Dialog, OFFER, message, number, server};

/// A message and what goes with it.
struct Sent {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// A whole session on a ring in which a request waits.
struct Script {
    ring: Ring,
    sent: Vec<Sent>,
    /// Keeps the back-end's channel open.
    _channel: Socket,
}

impl Script {
    fn new() -> Self {
        let memory = Arc::new(GuestMemory::new(BLOCK));
        let ring = Ring::new(&memory, 0, 16);
        let low = GuestMemory::at(Region { guest: 0, size: 0x1000, user: 0, offset: 0, ..memory.region() });
        let high = GuestMemory::at(Region { guest: 1 << 40, user: 1 << 50, ..memory.region() });
        let (channel, theirs) = Socket::pair();
        let copy = |descriptor: &dyn AsFd| descriptor.as_fd().try_clone_to_owned().unwrap();
        let config = Bytes::new().u32(0).u32(60).u32(0).padding(60).done();
        let messages = [
            ("GET_FEATURES", vec![], vec![]),
            ("GET_PROTOCOL_FEATURES", vec![], vec![]),
            ("SET_PROTOCOL_FEATURES", number(0x1_a229), vec![]),
            ("SET_OWNER", vec![], vec![]),
            ("SET_BACKEND_REQ_FD", vec![], vec![theirs.into()]),
            ("SET_FEATURES", number(OFFER), vec![]),
            ("GET_CONFIG", config, vec![]),
            ("SET_MEM_TABLE", table(&[memory.region(), low.region()]), vec![copy(&*memory), copy(&low)]),
            ("ADD_MEM_REG", high.single(), vec![copy(&high)]),
            ("SET_VRING_NUM", ring.num_payload(), vec![]),
            ("SET_VRING_BASE", ring.base_payload(), vec![]),
            ("SET_VRING_ADDR", ring.address_payload(), vec![]),
            ("SET_VRING_CALL", ring.event_payload(), vec![copy(&ring.call)]),
            ("SET_VRING_ERR", ring.no_event_payload(), vec![]),
            ("SET_VRING_KICK", ring.event_payload(), vec![copy(&ring.kick)]),
            ("SET_VRING_ENABLE", ring.state_payload(1), vec![]),
            ("GET_VRING_BASE", ring.state_payload(0), vec![]),
            ("REM_MEM_REG", high.single(), vec![event()]),
            ("SET_VRING_NUM", ring.state_payload(3), vec![]),
            ("GET_STATUS", vec![], vec![]),
            ("RESET_DEVICE", vec![], vec![]),
        ];
        let sent = messages.into_iter().map(|(name, payload, descriptors)| {
            // Nobody acknowledges before it is negotiated that somebody does.
            let flags = if name == "SET_PROTOCOL_FEATURES" { REQUEST } else { REQUEST_NEEDING_REPLY };
            Sent { bytes: message(name, flags, &payload), descriptors }
        });
        Self { sent: sent.collect(), ring, _channel: channel }
    }

    fn rewind(&mut self) {
        self.ring.restart_at(0);
        self.ring.request(0, Command::Read(512), 5);
    }

    /// Says everything, each message cut where `cuts` says for its number and length; all that the back-end says.
    fn play(&mut self, bench: &mut Bench<'_>, cuts: impl Fn(usize, usize) -> Vec<usize>) -> Vec<Vec<u8>> {
        self.rewind();
        let mut replies = Vec::new();
        for (number, Sent { bytes, descriptors }) in self.sent.iter().enumerate() {
            let mut start = 0;
            for end in cuts(number, bytes.len()).into_iter().chain([bytes.len()]) {
                let with = if start == 0 { borrowed(descriptors) } else { Vec::new() };
                bench.say(&bytes[start..end], &with);
                start = end;
            }
            while bench.has_reply() {
                replies.push(bench.frontend().receive().message.bytes());
            }
        }
        assert_eq!((self.ring.take_used(), self.ring.data(0, 512)), (Some((0, 513)), vec![5; 512]));
        replies
    }
}

#[test]
fn a_session_is_the_same_wherever_its_messages_are_cut() {
    let mut script = Script::new();
    let mut server = server(1);
    let whole = script.play(&mut Bench::new(&mut server), |_, _| Vec::new());
    assert_eq!(whole.len(), script.sent.len() - 1, "all but one have a reply");
    let byte_by_byte = script.play(&mut Bench::new(&mut server), |_, length| (1..length).collect());
    assert!(byte_by_byte == whole);
    let lengths = Vec::from_iter(script.sent.iter().map(|sent| sent.bytes.len()));
    for (cut, length) in lengths.into_iter().enumerate() {
        for at in 1..length {
            let cuts = |number, _| if number == cut { vec![at] } else { Vec::new() };
            let replies = script.play(&mut Bench::new(&mut server), cuts);
            assert!(replies == whole, "message {cut} cut at {at}");
        }
    }
}

#[test]
fn s50_a_connection_may_end_at_every_byte_and_the_next_one_works() {
    leaves_nothing_open("cuts::s50_a_connection_may_end_at_every_byte_and_the_next_one_works", || {
        let mut script = Script::new();
        let mut server = server(1);
        let before = open_descriptors();
        for last in 0..script.sent.len() {
            for at in 0..script.sent[last].bytes.len() {
                script.rewind();
                let mut bench = Bench::new(&mut server);
                for Sent { bytes, descriptors } in &script.sent[..last] {
                    bench.say(bytes, &borrowed(descriptors));
                    while bench.has_reply() {
                        bench.frontend().receive();
                    }
                }
                let expected = if at == 0 {
                    Ok(Progress::Closed)
                } else {
                    let Sent { bytes, descriptors } = &script.sent[last];
                    bench.say(&bytes[..at], &borrowed(descriptors));
                    Err(ServeError::Receive(EndpointError::Truncated))
                };
                assert_eq!(bench.hang_up(), expected, "message {last} up to byte {at}");
                assert_eq!(open_descriptors(), before, "message {last} up to byte {at}");
            }
        }
        script.play(&mut Bench::new(&mut server), |_, _| Vec::new());
    });
}
