//! Every call sends exactly the bytes and descriptors of its fixture.

use std::collections::BTreeSet;

use vhost_std::frontend::Confirmation;
use vhost_tests::dialog::{FakeBackend, Received, borrowed, descriptors_for, memory, same_file};
use vhost_tests::wire::{self, Fixture, REQUEST, REQUEST_NEEDING_REPLY, Reply, feature};

use crate::calls::{NEVER_SENT, call, prepare};
use crate::script::{agreed, finish, until_closed};

/// The flag is on these whatever was agreed on.
const ALWAYS_FLAGGED: [&str; 3] = ["IOTLB_MSG", "POSTCOPY_LISTEN", "POSTCOPY_END"];

/// The forms that the front-end sends.
pub(crate) fn sent_forms() -> Vec<Fixture> {
    let is_sent = |fixture: &Fixture| {
        let never = |(name, form, _): &(&str, &str, &str)| (*name, *form) == (fixture.name, fixture.form);
        // The last word in the exchange of postcopy bases is a call of its own.
        !NEVER_SENT.iter().any(never) && !matches!(fixture.reply, Reply::Never)
    };
    wire::all_frontend_forms().into_iter().filter(is_sent).collect()
}

/// Protocol features that let a fixture pass.
pub(crate) fn protocol_of(fixture: &Fixture) -> u64 {
    feature::PROTOCOL_OFFERED | fixture.gate.protocol
}

/// Answers a request as the fixture has it if it is the one, else as usual.
pub(crate) fn answer(backend: &FakeBackend, request: &Received, fixture: &Fixture) {
    let answer = fixture.answers().first().filter(|_| request.payload() == fixture.payload);
    match answer.filter(|_| request.id() == fixture.id) {
        Some(answer) => {
            let descriptors = Vec::from_iter((0..answer.descriptors).map(|_| memory(4096)));
            backend.reply(request, &answer.payload, &borrowed(&descriptors));
        }
        None => backend.answer(request),
    }
}

/// What the back-end receives for the fixture's call: all requests.
fn received(fixture: &Fixture, protocol: u64, confirmation: Confirmation) -> Vec<Received> {
    let theirs = fixture.clone();
    let (mut frontend, thread) =
        agreed(protocol, move |backend| until_closed(&backend, |request| answer(&backend, request, &theirs)));
    frontend.set_confirmation(confirmation);
    prepare(&mut frontend, fixture);
    let descriptors = descriptors_for(fixture);
    call(&mut frontend, fixture, &descriptors).unwrap();
    let received = finish(frontend, thread);
    let request = received.iter().rfind(|request| request.id() == fixture.id).unwrap();
    for (sent, received) in descriptors.iter().zip(&request.descriptors) {
        // The front-end makes the sockets of its back-end channel itself.
        assert!(fixture.name == "SET_BACKEND_REQ_FD" || same_file(sent, received), "{}", fixture.name);
    }
    received
}

#[test]
fn every_form_of_every_request_is_sent_as_its_fixture() {
    let mut names = BTreeSet::new();
    for fixture in sent_forms() {
        names.insert(fixture.name);
        for confirmation in [Confirmation::Acknowledgement, Confirmation::None] {
            let received = received(&fixture, protocol_of(&fixture), confirmation);
            let request = received.last().unwrap();
            // The dirty log's file is answered anyway, and so not flagged.
            let is_acknowledged = matches!(fixture.reply, Reply::Acknowledgement);
            let may_be_flagged = is_acknowledged && fixture.name != "SET_PROTOCOL_FEATURES";
            let is_flagged = ALWAYS_FLAGGED.contains(&fixture.name)
                || (may_be_flagged && confirmation == Confirmation::Acknowledgement);
            let flags = if is_flagged { REQUEST_NEEDING_REPLY } else { REQUEST };
            let title = format!("{} ({}), {confirmation:?}", fixture.name, fixture.form);
            assert_eq!(request.message.bytes(), fixture.message(flags), "{title}");
            assert_eq!(request.descriptors.len(), fixture.descriptors, "{title}");
        }
    }
    assert_eq!(names.len(), 43);
}

#[test]
fn without_acknowledgements_nothing_is_flagged_and_a_barrier_follows_where_nothing_is_answered() {
    for fixture in sent_forms() {
        // What these need includes acknowledgements.
        if matches!(fixture.name, "VRING_KICK") {
            continue;
        }
        let protocol = protocol_of(&fixture) & !(feature::REPLY_ACK | feature::INBAND_NOTIFICATIONS);
        if fixture.name == "SET_PROTOCOL_FEATURES" {
            continue;
        }
        let received = received(&fixture, protocol, Confirmation::Barrier);
        let is_answered = matches!(fixture.reply, Reply::Own(_)) || ALWAYS_FLAGGED.contains(&fixture.name);
        let ids = Vec::from_iter(received.iter().map(Received::id));
        let title = format!("{} ({})", fixture.name, fixture.form);
        let expected = if is_answered { &[fixture.id][..] } else { &[fixture.id, 1] };
        assert!(ids.ends_with(expected), "{title}: {ids:?}");
        let request = &received[received.len() - expected.len()];
        let flags = if ALWAYS_FLAGGED.contains(&fixture.name) { REQUEST_NEEDING_REPLY } else { REQUEST };
        assert_eq!(request.message.bytes(), fixture.message(flags), "{title}");
    }
}

#[test]
fn forms_that_are_never_sent_exist() {
    for (name, form, _) in NEVER_SENT {
        wire::frontend_form(name, form);
    }
}
