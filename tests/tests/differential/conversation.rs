//! A case as a conversation on a socket.
//!
//! Nothing here waits for silence: after the last message comes a request that is always answered, then the end of the stream.
//! What the peer says until it closes its own end is all that it has to say.

use std::io::{self, ErrorKind};
use std::net::Shutdown;

use vhost_tests::dialog::{Received, Socket, borrowed};
use vhost_tests::wire::{REQUEST, REQUEST_NEEDING_REPLY};

use crate::case::{Case, Said};
use crate::outcome::{self, Contents, End, Outcome, is_echo};
use crate::stage::Offer;

/// A back-end in the thread of the test.
pub(crate) trait Served {
    /// Does everything that can be done without waiting; whether the connection goes on.
    fn serve(&mut self) -> bool;

    /// What happened since the last time, beside replies.
    fn take_told(&mut self) -> Vec<String>;
}

/// Holds a conversation with a back-end in this thread, whose other end `socket` is.
pub(crate) fn hold(case: &Case, offer: Offer, contents: Contents, socket: &Socket, served: impl Served) -> Outcome {
    let stage = case.stage.said(offer);
    let (mut peer, mut told) = (Some(served), Vec::new());
    for said in &stage {
        say(socket, said);
        assert!(peer.as_mut().is_some_and(Served::serve), "{}: closed before the case begins, at {said:?}", case.name);
    }
    peer.as_mut().map(Served::take_told);
    let barrier = Said::new(case.barrier(), REQUEST, &[]);
    for said in case.said.iter().chain([&barrier]) {
        say(socket, said);
        if let Some(served) = &mut peer {
            let goes_on = served.serve();
            told.extend(served.take_told());
            peer = peer.filter(|_| goes_on);
        }
    }
    drop(peer);
    sort(case, &stage, contents, hear(socket).unwrap(), told)
}

/// Sends one message; a peer that has closed its end will be noticed by its silence.
pub(crate) fn say(socket: &Socket, said: &Said) {
    let descriptors = said.descriptors();
    match socket.try_send(&said.bytes(), &borrowed(&descriptors)) {
        Err(error) if !matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            panic!("{said:?}: {error}")
        }
        _ => {}
    }
}

/// Sends everything with the barrier at the end, and hears what comes until the peer closes.
pub(crate) fn hold_at_once(socket: &Socket, case: &Case, stage: &[Said]) -> io::Result<Vec<Received>> {
    let barrier = Said::new(case.barrier(), REQUEST, &[]);
    for said in stage.iter().chain(&case.said).chain([&barrier]) {
        say(socket, said);
    }
    // It fails only when the peer has closed already.
    let _ = socket.stream().shutdown(Shutdown::Write);
    hear(socket)
}

/// All messages until the peer closes its end.
pub(crate) fn hear(socket: &Socket) -> io::Result<Vec<Received>> {
    let mut heard = Vec::new();
    loop {
        match socket.try_receive() {
            Ok(Some(received)) => heard.push(received),
            Ok(None) => return Ok(heard),
            // What a close with unread bytes looks like.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(heard),
            Err(error) => return Err(error),
        }
    }
}

/// Sorts replies: those of the stage, which must be good ones, those of the case, and that of the barrier.
pub(crate) fn sort(
    case: &Case,
    stage: &[Said],
    contents: Contents,
    mut heard: Vec<Received>,
    told: Vec<String>,
) -> Outcome {
    let due = Vec::from_iter(stage.iter().filter(|said| is_answered(said)));
    assert!(heard.len() >= due.len(), "{}: {} replies before it, not {}", case.name, heard.len(), due.len());
    let rest = heard.split_off(due.len());
    for (said, reply) in due.iter().zip(&heard) {
        assert_eq!(reply.id(), said.id, "{}: the reply to another request", case.name);
        let is_good = said.flags == REQUEST || reply.number() == 0;
        assert!(is_good, "{}: {said:?} was refused", case.name);
    }
    let (end, replies) = match rest.split_last() {
        Some((last, before)) if last.id() == case.barrier() => (End::GoesOn, before),
        _ => (End::Closed, &rest[..]),
    };
    // Replies come in the order of their requests, of which some have none.
    let mut requests = case.said.iter();
    let (mut words, mut echoes) = (Vec::new(), 0);
    for reply in replies {
        let request = requests.by_ref().find(|said| said.id == reply.id());
        echoes += usize::from(is_echo(request, reply));
        words.push(outcome::words(request, reply, contents));
    }
    Outcome { told, replies: words, end, echoes }
}

/// Whether a message of a stage is answered.
fn is_answered(said: &Said) -> bool {
    // GET_FEATURES, GET_PROTOCOL_FEATURES, POSTCOPY_ADVISE.
    matches!(said.id, 1 | 15 | 28) || said.flags == REQUEST_NEEDING_REPLY
}
