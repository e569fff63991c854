//! Endpoints over real sockets: one read for what is there, or not a byte too many.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vhost_core::Channel;
use vhost_std::deadline::Deadline;
use vhost_std::endpoint::{Endpoint, EndpointError, Message};
use vhost_std::socket::Socket;
use vhost_tests::dialog::event;

use crate::sample::channels;
use vhost_tests::wire::header;

fn is_readable(endpoint: &Endpoint) -> bool {
    let mut polled = [PollFd::from_borrowed_fd(endpoint.as_fd(), PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default())).unwrap() > 0
}

/// The bytes and the number of descriptors of the next message.
fn next(endpoint: &mut Endpoint) -> (Vec<u8>, usize) {
    match endpoint.try_receive().unwrap() {
        Message::Frame(frame) => ([&frame.header.to_bytes()[..], frame.payload].concat(), frame.handles.len()),
        other => panic!("a message was expected, {other:?} came"),
    }
}

#[test]
fn every_channel_is_read_ahead_up_to_the_first_descriptors() {
    for (channel, dialect, samples) in channels() {
        let (near, far) = Socket::pair().unwrap();
        let mut endpoint = match channel {
            Channel::Backend => Endpoint::in_dialect(far, dialect),
            _ => Endpoint::new(far, channel),
        };
        let event = event();
        let plain: Vec<_> = samples.iter().filter(|sample| sample.handles == 0 && sample.tells).collect();
        let with_one = samples.iter().rfind(|sample| sample.handles == 1 && sample.tells).unwrap();
        let before: Vec<_> = plain.iter().copied().take(3).chain([with_one]).collect();
        for sample in &before {
            let event = event.as_fd();
            near.send(&sample.whole(), &vec![event; sample.handles], Deadline::NEVER).unwrap();
        }
        near.send(&plain[0].whole(), &[], Deadline::NEVER).unwrap();
        for sample in &before {
            assert_eq!(next(&mut endpoint), (sample.bytes.clone(), sample.handles), "{channel:?} {dialect}");
        }
        assert!(!endpoint.has_received() && is_readable(&endpoint), "the last one is behind descriptors");
        assert_eq!(next(&mut endpoint), (plain[0].bytes.clone(), 0));

        let joined = [with_one.whole(), plain[0].whole()].concat();
        near.send(&joined, &[event.as_fd()], Deadline::NEVER).unwrap();
        assert_eq!(next(&mut endpoint), (with_one.bytes.clone(), 1), "{channel:?} {dialect}: the sender joined them");
        assert_eq!(next(&mut endpoint).1, 0);

        near.send(&plain[0].whole(), &[], Deadline::NEVER).unwrap();
        near.send(&plain[1].whole(), &[], Deadline::NEVER).unwrap();
        assert_eq!(next(&mut endpoint).0, plain[0].bytes);
        assert!(endpoint.has_received() && !is_readable(&endpoint), "{channel:?} {dialect}: one read for both");
        assert_eq!(next(&mut endpoint).0, plain[1].bytes);
    }
}

#[test]
fn an_exact_endpoint_reads_nothing_of_the_next_message() {
    for (channel, _, samples) in channels() {
        let (near, far) = Socket::pair().unwrap();
        let mut endpoint = Endpoint::exact(far, channel);
        let plain: Vec<_> = samples.iter().filter(|sample| sample.handles == 0 && sample.image.is_empty()).collect();
        near.send(&[plain[0].whole(), plain[1].whole()].concat(), &[], Deadline::NEVER).unwrap();
        assert_eq!(next(&mut endpoint).0, plain[0].bytes);
        assert!(!endpoint.has_received());
        let mut rest = [0; 1024];
        let (count, _) = rustix::net::recv(&endpoint, &mut rest, rustix::net::RecvFlags::DONTWAIT).unwrap();
        assert_eq!(rest[..count], plain[1].whole());
    }
}

/// An image goes to where it is wanted, whatever of it came with the message, and the next message is whole.
#[test]
fn an_image_is_received_to_where_it_is_wanted() {
    let image: Vec<u8> = (0..251).cycle().take(10_000).collect();
    let update = [&header(8, 0, 20 + 10_000)[..], &[1; 20], &image].concat();
    let owner = header(3, 0, 0);
    let never = Deadline::NEVER;
    let kinds: [fn(Socket) -> Endpoint; 2] =
        [|socket| Endpoint::new(socket, Channel::Gpu), |socket| Endpoint::exact(socket, Channel::Gpu)];
    for kind in kinds {
        let (near, far) = Socket::pair().unwrap();
        let mut endpoint = kind(far);
        near.send(&[&update[..], &owner, &update, &owner].concat(), &[], never).unwrap();
        for wanted in [10_000, 5000] {
            assert_eq!(next(&mut endpoint).0, update[..32]);
            assert_eq!(endpoint.image_left(), 10_000);
            let mut received = Vec::new();
            while received.len() < wanted {
                let mut line = vec![0; (wanted - received.len()).min(777)];
                let count = endpoint.receive_image(&mut line, never).unwrap();
                received.extend_from_slice(&line[..count]);
            }
            assert_eq!(received, image[..wanted]);
            assert_eq!(endpoint.image_left(), 10_000 - wanted);
            assert_eq!(next(&mut endpoint).0, owner, "what was left of the image is skipped");
            assert_eq!(endpoint.receive_image(&mut [0; 8], never), Ok(0));
        }
        near.send(&update[..100], &[], never).unwrap();
        assert_eq!(next(&mut endpoint).0, update[..32]);
        drop(near);
        let mut rest = [0; 200];
        let mut received = 0;
        let end = loop {
            match endpoint.receive_image(&mut rest, never) {
                Ok(count) => received += count,
                Err(error) => break error,
            }
        };
        assert_eq!((received, end), (68, EndpointError::Truncated));
    }
}
