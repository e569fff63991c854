//! Back-ends that cannot take requests together: what their front-end is told, and that the next session takes care.

use core::time::Duration;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::{self, JoinHandle};

use vhost_core::{FrontendCode, ProtocolFeatures, VirtioFeatures};
use vhost_std::deadline::Deadline;
use vhost_std::frontend::{FrontendError, Pacing, Reconnect, ReconnectError, SessionEnd};
use vhost_tests::dialog::{PATIENCE, memory};
use vhost_tests::wire::{self, REPLY, feature, header};

use crate::bring_up::{BASIC, region, start};

/// What such a back-end does with bytes behind a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Surplus {
    /// Reads them and forgets them.
    Dropped,
    /// Takes them for a fault.
    Closes,
    /// Closes because of this request, whoever comes with it.
    ClosesAt(u32),
}

/// Serves one connection with one large read a request that is answered; how many were since features were agreed on.
fn serve(mut stream: UnixStream, surplus: Surplus) -> usize {
    let mut buffer = vec![0; 65536];
    let mut unread = 0..0;
    let mut answered = 0;
    loop {
        if unread.is_empty() {
            let Ok(count @ 1..) = stream.read(&mut buffer) else { return answered };
            unread = 0..count;
        }
        let Some((request, length)) = wire::Message::read(&buffer[unread.clone()]) else { panic!("half a message") };
        unread.start += length;
        let id = request.header.request;
        let reply = match id {
            1 => BASIC.to_ne_bytes().to_vec(),
            15 => feature::REPLY_ACK.to_ne_bytes().to_vec(),
            11 => request.payload,
            _ if request.header.needs_reply() => vec![0; 8],
            // Nobody waits for it, so others may well come behind it.
            _ => continue,
        };
        if !unread.is_empty() && surplus == Surplus::Closes || surplus == Surplus::ClosesAt(id) {
            return answered;
        }
        unread = 0..0;
        if stream.write_all(&[&header(id, REPLY, 8)[..], &reply].concat()).is_err() {
            return answered;
        }
        answered = if id == 2 { 0 } else { answered + 1 };
    }
}

/// A back-end that serves these connections one after another, and where it listens.
fn listening(sessions: Vec<Surplus>) -> (Reconnect, JoinHandle<Vec<usize>>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = UnixListener::bind(&path).unwrap();
    let serving = move || sessions.iter().map(|surplus| serve(listener.accept().unwrap().0, *surplus)).collect();
    let mut reconnect = Reconnect::to(path, VirtioFeatures::all(), ProtocolFeatures::KNOWN);
    reconnect.set_timeout(Some(PATIENCE));
    (reconnect, thread::spawn(serving), folder)
}

fn soon() -> Deadline {
    Deadline::after(PATIENCE)
}

#[test]
fn a_back_end_that_goes_is_started_one_by_one_in_the_next_session() {
    let (mut reconnect, serving, _folder) = listening(vec![Surplus::Closes; 3]);
    let file = memory(0x10000);
    let memory = [(region(0), file.as_fd())];
    let mut frontend = reconnect.connect(soon()).unwrap();
    assert_eq!((frontend.pacing(), frontend.next_pacing()), (Pacing::Pipelined, Pacing::Pipelined));
    let FrontendError::Closed(closed) = start(&mut frontend, &memory).unwrap_err() else { panic!("not closed") };
    // The calls have descriptors and come alone; the memory comes with the settings of a ring behind it.
    assert_eq!(closed.waiting_for, Some(FrontendCode::SET_MEM_TABLE.message()));
    assert_eq!(closed.previous, Some(FrontendCode::SET_VRING_CALL.message()));
    assert_eq!(frontend.next_pacing(), Pacing::OneByOne);
    drop(frontend);
    for _ in 0..2 {
        let mut frontend = reconnect.connect(soon()).unwrap();
        assert_eq!(frontend.pacing(), Pacing::OneByOne);
        start(&mut frontend, &memory).unwrap();
        assert!(frontend.vring(0).is_running() && frontend.vring(1).is_running());
        assert_eq!(frontend.tear_down().unwrap().len(), 2);
    }
    assert_eq!(serving.join().unwrap(), [3, 18, 18]);
}

/// The answer to a later request comes in the place of that to the first one which was dropped.
#[test]
fn a_back_end_that_drops_requests_is_started_by_the_second_attempt() {
    let (mut reconnect, serving, _folder) = listening(vec![Surplus::Dropped; 2]);
    let file = memory(0x10000);
    let mut attempts = Vec::new();
    let frontend = reconnect.start(soon(), |frontend| {
        attempts.push(frontend.pacing());
        start(frontend, &[(region(0), file.as_fd())]).inspect_err(|error| {
            assert_eq!(error.ends_session(), Some(SessionEnd::Peer));
            assert_eq!(error.request(), Some(FrontendCode::SET_VRING_NUM.message()));
        })
    });
    assert!(frontend.unwrap().vring(1).is_running());
    assert_eq!(attempts, [Pacing::Pipelined, Pacing::OneByOne]);
    assert_eq!(serving.join().unwrap()[1], 14);
}

/// What nothing follows is missed when the time is over.
#[test]
fn a_back_end_that_drops_the_last_requests_is_known_by_the_limit() {
    let (mut reconnect, serving, _folder) = listening(vec![Surplus::Dropped; 2]);
    let mut frontend = reconnect.connect(soon()).unwrap();
    start(&mut frontend, &[]).unwrap_err();
    drop(frontend);
    let mut frontend = reconnect.connect(soon()).unwrap();
    start(&mut frontend, &[]).unwrap();
    frontend.set_pacing(Pacing::Pipelined);
    frontend.set_timeout(Some(Duration::from_millis(1)));
    // Both rings are disabled together.
    let error = frontend.tear_down().unwrap_err();
    assert_eq!(error, FrontendError::TimedOut { waiting_for: FrontendCode::SET_VRING_ENABLE.message() });
    assert_eq!(frontend.next_pacing(), Pacing::OneByOne);
    drop(frontend);
    serving.join().unwrap();
}

/// It was not because they came together: nothing is slower than before because of it.
#[test]
fn a_back_end_that_goes_either_way_is_not_blamed_on_the_pace() {
    let enable = Surplus::ClosesAt(18);
    let (mut reconnect, serving, _folder) = listening(vec![enable; 3]);
    let file = memory(0x10000);
    let mut attempts = Vec::new();
    let error = reconnect.start(soon(), |frontend| {
        attempts.push(frontend.pacing());
        start(frontend, &[(region(0), file.as_fd())])
    });
    let Err(ReconnectError::Frontend(FrontendError::Closed(closed))) = error else { panic!("{error:?}") };
    assert_eq!(closed.waiting_for, Some(FrontendCode::SET_VRING_ENABLE.message()));
    assert_eq!(attempts, [Pacing::Pipelined, Pacing::OneByOne]);
    assert_eq!(reconnect.connect(soon()).unwrap().pacing(), Pacing::Pipelined);
    serving.join().unwrap();
}

/// A refusal, or misuse, is no reason to start anew.
#[test]
fn an_error_that_leaves_the_session_is_given_back_at_once() {
    let (mut reconnect, serving, _folder) = listening(vec![Surplus::Dropped]);
    let mut attempts = 0;
    let outcome = reconnect.start(soon(), |frontend| {
        attempts += 1;
        frontend.set_vring_num(0, 3)
    });
    assert!(matches!(outcome, Err(ReconnectError::Frontend(FrontendError::Misuse(_)))), "{outcome:?}");
    assert_eq!((attempts, serving.join().unwrap()), (1, vec![0]));
}
