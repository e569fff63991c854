//! A back-end that never stops asking: no call and no channel goes on beyond its deadline.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use vhost_std::deadline::Deadline;
use vhost_std::frontend::{BackendRequestHandlerMut, ChannelState, Refusal, SessionEnd};
use vhost_tests::dialog::Socket;
use vhost_tests::wire::{self, REQUEST, feature};

use crate::channel::{Ends, open};

/// The flood dries up at last, so that a test which is not held up in time fails and does not hang.
const FLOOD: u32 = 2000;

/// Whatever is taken from the channel is followed by the next, so that there is always one more.
struct Flood {
    theirs: Socket,
    taken: Arc<Mutex<u32>>,
}

impl Flood {
    fn begin(theirs: Socket) -> (Self, Arc<Mutex<u32>>) {
        let taken = Arc::new(Mutex::new(0));
        let flood = Self { theirs, taken: taken.clone() };
        flood.next();
        (flood, taken)
    }

    fn next(&self) {
        self.theirs.send(&wire::backend_request("CONFIG_CHANGE_MSG").message(REQUEST), &[]);
    }
}

impl BackendRequestHandlerMut for Flood {
    fn config_changed(&mut self) -> Result<(), Refusal> {
        let mut taken = self.taken.lock().unwrap();
        *taken += 1;
        if *taken < FLOOD {
            self.next();
        }
        Ok(())
    }
}

#[test]
fn a_flood_on_the_attached_channel_does_not_hold_up_the_deadline() {
    let Ends { mut frontend, backend: _backend, ours, theirs } = open(feature::PROTOCOL_OFFERED);
    let (flood, taken) = Flood::begin(theirs);
    frontend.attach(ours, flood);
    let late = frontend.with_deadline(Deadline::at(Instant::now())).get_features().unwrap_err();
    assert_eq!(late.ends_session(), Some(SessionEnd::TimedOut), "{late}");
    assert!(*taken.lock().unwrap() < FLOOD, "the call served the flood to its end");
}

#[test]
fn a_flood_does_not_keep_a_channel_running_beyond_its_deadline() {
    let Ends { frontend: _frontend, backend: _backend, mut ours, theirs } = open(feature::PROTOCOL_OFFERED);
    let (flood, taken) = Flood::begin(theirs);
    assert_eq!(ours.run(flood, Deadline::at(Instant::now())), Ok(ChannelState::Open));
    assert!(*taken.lock().unwrap() < FLOOD, "it ran until the flood was over");
}
