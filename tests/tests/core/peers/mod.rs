//! What real programs do that the specification does not say, row by row as it was observed; each test begins with the id of
//! its row: F framing, R replies, S states. [`ELSEWHERE`] lists what of the rows is not the machines' business.

mod framing;
mod memory;
mod migration;
mod payloads;
mod replies;
mod rings;
mod states;

use crate::machines::{Back, Packet, Reaction, buffer, frame};
use crate::stage::flagged;
use vhost_core::{FrontendReply, Incoming};
use vhost_tests::tracked::{Ledger, Token};

/// Rows, or parts of them, that are no business of the machines: the row, whose it is, and what is to be shown there.
const ELSEWHERE: [(&str, &str, &str); 16] = [
    ("F2", "std driver", "a message goes out in one call; what a short write left goes before anything else"),
    ("F4", "std driver", "messages that arrive together keep their own descriptors"),
    ("F5", "std driver", "ancillary data with no descriptor in it is let pass"),
    ("F8", "std driver", "descriptors of a message that had too many are closed, also when the kernel cut them off"),
    (
        "R4",
        "std driver",
        "an acknowledgement of success and then the end of the stream is a failure of the last request",
    ),
    ("R10", "std driver", "the end of the stream while replies are pending fails all of them as disconnected"),
    ("S10", "std driver", "a split ring's used index is read from guest memory when the ring starts"),
    ("S30", "std driver", "a replaced kick descriptor loses no kick: the ring is looked at once more"),
    ("S31", "std driver", "a call is a hint: back-ends signal every new call descriptor"),
    ("S32", "std driver", "a kick before a ring is enabled is not lost: the ring is looked at when it is enabled"),
    ("S35", "std driver", "neither channel is blocked by waiting for the other"),
    ("S36", "std driver", "requests of the back-end wait for their channel; a replaced one is closed"),
    ("S37", "std driver", "host notifiers are offered again after each start"),
    ("S47", "std driver", "regions are mapped one by one at aligned offsets, also several of the same file"),
    ("S51", "tests", "virtiofsd and vhost-device-* end with their connection and are started anew"),
    ("S53", "documentation", "older names of messages and features are aliases"),
];

/// The files with the tests, to see that no row is missing.
const SOURCES: [&str; 7] = [
    include_str!("framing.rs"),
    include_str!("memory.rs"),
    include_str!("migration.rs"),
    include_str!("payloads.rs"),
    include_str!("replies.rs"),
    include_str!("rings.rs"),
    include_str!("states.rs"),
];

#[test]
fn every_row_has_a_test_here_or_a_place_elsewhere() {
    let rows = [("F", 25), ("R", 16), ("S", 53)];
    let rows = rows.into_iter().flat_map(|(letter, last)| (1..=last).map(move |number| format!("{letter}{number}")));
    for row in rows {
        let test = format!("fn {}_", row.to_lowercase());
        let is_here = SOURCES.iter().any(|source| source.contains(&test));
        let is_elsewhere = ELSEWHERE.iter().any(|(elsewhere, ..)| *elsewhere == row);
        assert!(is_here || is_elsewhere, "{row}");
    }
    assert!(ELSEWHERE.iter().is_sorted_by_key(|(row, ..)| (&row[..1], row[1..].parse::<u32>().unwrap())));
}

/// The back-end takes a request, its device gives this answer or the machine its own.
#[track_caller]
fn answer(back: &mut Back, bytes: &[u8], tokens: Vec<Token>, reply: Option<FrontendReply<'_, Token>>) -> Reaction {
    match back.handle_request(frame(bytes, tokens)) {
        Ok(Incoming::Request(_)) => {}
        Ok(Incoming::PostcopyMemoryMapped) => return Reaction::Silent,
        Err(rejection) => panic!("{rejection}"),
    }
    let reply = reply.or_else(|| back.own_answer()).unwrap_or(FrontendReply::Done);
    back.answer(reply, &mut buffer()).unwrap().into()
}

/// The back-end does what it is asked; gives back what it sends, if anything.
#[track_caller]
fn done(back: &mut Back, id: u32, flags: u32, payload: &[u8], descriptors: usize) -> Option<Vec<u8>> {
    let ledger = Ledger::new();
    let reaction = answer(back, &flagged(id, flags, payload), ledger.tokens(descriptors), None);
    ledger.assert_settled();
    match reaction {
        Reaction::Sent(Packet { bytes, handles }) => {
            assert!(handles.is_empty());
            Some(bytes)
        }
        Reaction::Silent => None,
        Reaction::Closed => panic!("closed"),
    }
}
