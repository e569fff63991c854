//! The back-end's own requests: the same bytes to our front-end's channel and to rust-vmm's.

mod asked;
mod handlers;

use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use vhost::VhostBackend;
use vhost::vhost_user::{Frontend as TheirFrontend, FrontendReqHandler, VhostUserFrontend, VhostUserProtocolFeatures};
use vhost_core::{FrontendConfig, ProtocolFeatures, VirtioFeatures};
use vhost_std::frontend::{BackendChannel, ChannelState, Confirmation, Frontend};
use vhost_std::socket::Socket;
use vhost_tests::dialog;
use vhost_tests::wire::{REPLY, header};

use crate::accepted::channel::ACCEPTED;
use crate::conversation::{Served, hear, say};
use crate::difference::{Compared, check};
use crate::outcome::{Contents, End, Outcome, words};
use crate::recorder::{PROTOCOL, RINGS, VIRTIO};
use asked::{Asked, all};
use handlers::Diary;

#[test]
fn our_channel_and_rust_vmms_make_the_same_of_the_same_bytes() {
    let compare = |asked: &Asked| {
        let [ours, theirs] = [hold(asked, OurChannel::open()), hold(asked, TheirChannel::open())];
        Compared { case: asked.name.clone(), ours: ours.line(), theirs: theirs.line() }
    };
    let compared = Vec::from_iter(all().iter().map(compare));
    println!("{}", check("rust-vmm's channel for requests of the back-end", &compared, ACCEPTED));
}

/// Asks, and asks once more for something that is always answered.
fn hold<C: Served>(asked: &Asked, (socket, channel): (dialog::Socket, C)) -> Outcome {
    let (mut channel, mut told) = (Some(channel), Vec::new());
    let barrier = asked.barrier();
    for said in [&asked.said, &barrier] {
        say(&socket, said);
        if let Some(served) = &mut channel {
            let goes_on = served.serve();
            told.extend(served.take_told());
            channel = channel.filter(|_| goes_on);
        }
    }
    drop(channel);
    let mut heard = hear(&socket).unwrap();
    let mut end = End::Closed;
    if heard.last().is_some_and(|last| last.id() == barrier.id) {
        heard.pop();
        // What it was told is that of the barrier.
        told.pop();
        end = End::GoesOn;
    }
    let replies = heard.iter().map(|reply| words(Some(&asked.said), reply, Contents::Compared)).collect();
    Outcome { told, replies, end, echoes: 0 }
}

/// A connection on which the back-end has offered everything, and what it received of the front-end.
fn offering() -> (dialog::Socket, UnixStream) {
    let (main, end) = dialog::Socket::pair();
    for (id, value) in [(1, VIRTIO), (15, PROTOCOL)] {
        main.send(&[&header(id, REPLY, 8)[..], &value.to_ne_bytes()].concat(), &[]);
    }
    (main, end)
}

/// The back-end's end of the channel that was sent last.
fn channel_of(main: &dialog::Socket) -> dialog::Socket {
    loop {
        let mut received = main.receive();
        if received.id() == 21 {
            return dialog::Socket::new(UnixStream::from(received.descriptors.remove(0)));
        }
    }
}

struct OurChannel {
    channel: BackendChannel,
    diary: Arc<Mutex<Diary>>,
    /// The session that the channel belongs to.
    _frontend: Frontend,
}

impl OurChannel {
    fn open() -> (dialog::Socket, Self) {
        let (main, end) = offering();
        let mut frontend = Frontend::with_config(Socket::from(end), FrontendConfig::new(RINGS as u16));
        frontend.set_confirmation(Confirmation::None);
        frontend.get_features().unwrap();
        frontend.get_protocol_features().unwrap();
        frontend.set_protocol_features(ProtocolFeatures::from_bits_retain(PROTOCOL)).unwrap();
        frontend.set_features(VirtioFeatures::from_bits_retain(VIRTIO)).unwrap();
        let channel = frontend.set_backend_req_fd().unwrap();
        (channel_of(&main), Self { channel, diary: Arc::default(), _frontend: frontend })
    }
}

impl Served for OurChannel {
    fn serve(&mut self) -> bool {
        self.channel.process(Arc::clone(&self.diary)) == Ok(ChannelState::Open)
    }

    fn take_told(&mut self) -> Vec<String> {
        core::mem::take(&mut self.diary.lock().unwrap().0)
    }
}

struct TheirChannel {
    channel: FrontendReqHandler<Mutex<Diary>>,
    diary: Arc<Mutex<Diary>>,
}

impl TheirChannel {
    fn open() -> (dialog::Socket, Self) {
        let (main, end) = offering();
        let mut frontend = TheirFrontend::from_stream(end, RINGS);
        frontend.get_features().unwrap();
        frontend.get_protocol_features().unwrap();
        frontend.set_protocol_features(VhostUserProtocolFeatures::from_bits_retain(PROTOCOL)).unwrap();
        let diary = Arc::<Mutex<Diary>>::default();
        let mut channel = FrontendReqHandler::new(Arc::clone(&diary)).unwrap();
        channel.set_reply_ack_flag(true);
        frontend.set_backend_request_fd(&channel.get_tx_raw_fd()).unwrap();
        (channel_of(&main), Self { channel, diary })
    }
}

impl Served for TheirChannel {
    /// One message was sent, and this takes one. It ends at its first error, as the threads do that serve it.
    fn serve(&mut self) -> bool {
        self.channel.handle_request().is_ok()
    }

    fn take_told(&mut self) -> Vec<String> {
        core::mem::take(&mut self.diary.lock().unwrap().0)
    }
}
