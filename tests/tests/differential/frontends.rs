//! The same calls to our front-end and to rust-vmm's: the same bytes go out, and the same replies give the same results.

mod calls;
mod replies;
mod session;
mod ways;
mod wrong_calls;

use calls::{CALLS, Call, call};
use replies::{Fed, replies_to};
use session::{Mode, ours, theirs};
use wrong_calls::WRONG_CALLS;

use crate::accepted::frontend::{BYTES, REPLIES};
use crate::difference::{Compared, check};

const MODES: [Mode; 3] = [Mode::Fresh, Mode::Silent, Mode::Flagged];

#[test]
fn our_frontend_and_rust_vmms_send_the_same_bytes() {
    let mut compared = Vec::new();
    for (mode, call) in MODES.iter().flat_map(|mode| CALLS.iter().chain(WRONG_CALLS).map(move |call| (*mode, call))) {
        let usual = replies::usual(call, mode);
        let [ours, theirs] = [ours(mode, call, &usual), theirs(mode, call, &usual)].map(|held| held.sent);
        compared.push(Compared { case: format!("{mode:?}/{}", call.name).to_lowercase(), ours, theirs });
    }
    println!("{}", check("what rust-vmm's front-end sends", &compared, BYTES));
}

#[test]
fn our_frontend_and_rust_vmms_make_the_same_of_replies() {
    let mut compared = Vec::new();
    let asked = [Mode::Silent, Mode::Flagged].iter().flat_map(|mode| CALLS.iter().map(move |call| (*mode, call)));
    // Unless it is told to ask, theirs does not take the acknowledgement that stands before these.
    let is_in_step = |mode, call: &Call| mode == Mode::Flagged || !call.after.contains(&"postcopy_listen");
    for (mode, call) in asked.filter(|(mode, call)| is_in_step(*mode, call)) {
        for Fed { name, reply } in replies_to(call, mode) {
            let [ours, theirs] = [ours(mode, call, &reply), theirs(mode, call, &reply)].map(|held| held.result);
            compared.push(Compared { case: format!("{mode:?}/{}/{name}", call.name).to_lowercase(), ours, theirs });
        }
    }
    println!("{}", check("what rust-vmm's front-end makes of replies", &compared, REPLIES));
}

/// The calls that must have succeeded before this one.
fn before(one: &Call) -> Vec<&'static Call> {
    one.after.iter().map(|name| call(name)).collect()
}
