//! Replies to each call: the right one, and what can be wrong with it.

use vhost_core::FrontendCode;
use vhost_core::wire::row::{HandleRule, ReplyRule};
use vhost_tests::driver::table;
use vhost_tests::wire::region::{ADDED, REGIONS, Region};
use vhost_tests::wire::{self, Answer, Bytes, Fixture, Layout, REPLY, header};

use super::calls::Call;
use super::session::{Mode, Reply};
use crate::recorder::{PROTOCOL, VIRTIO};

/// A reply, and what is special about it.
pub(super) struct Fed {
    pub(super) name: String,
    pub(super) reply: Reply,
}

/// The right reply, which is nothing where none is due.
pub(super) fn usual(call: &Call, mode: Mode) -> Reply {
    let (id, answer) = (id(call), answers(call, mode).into_iter().next());
    answer.map_or_else(Reply::default, |answer| whole(id, REPLY, &answer))
}

/// The replies that the protocol has for this call, and wrong ones.
pub(super) fn replies_to(call: &Call, mode: Mode) -> Vec<Fed> {
    let id = id(call);
    let mut fed = vec![Fed { name: "nothing".to_owned(), reply: Reply::default() }];
    let mut add = |name: String, reply| fed.push(Fed { name, reply });
    let answers = answers(call, mode);
    let Some(usual) = answers.first().cloned() else {
        add("an acknowledgement unasked".to_owned(), whole(id, REPLY, &number("", 0)));
        return fed;
    };
    for answer in answers.into_iter().chain(strange(call)) {
        add(answer.form.to_owned(), whole(id, REPLY, &answer));
    }
    for flags in [0x0, 0x1, 0x4, 0x6, 0x7, 0xd, 0x15, 0xffff_fff5] {
        add(format!("flags {flags:#x}"), whole(id, flags, &usual));
    }
    add("another request's".to_owned(), whole(id ^ 1, REPLY, &usual));
    add("an unknown request's".to_owned(), whole(4711, REPLY, &usual));
    let size = usual.payload.len();
    for wrong in
        [Some(0), size.checked_sub(1), Some(size + 1), Some(4097)].into_iter().flatten().filter(|wrong| *wrong != size)
    {
        let mut answer = usual.clone();
        answer.payload.resize(wrong, 0);
        add(format!("{wrong} bytes, not {size}"), whole(id, REPLY, &answer));
    }
    for wrong in [0, 1, 2].into_iter().filter(|wrong| *wrong != usual.descriptors) {
        let answer = Answer { descriptors: wrong, ..usual.clone() };
        add(format!("{wrong} descriptors, not {}", usual.descriptors), whole(id, REPLY, &answer));
    }
    fed
}

fn fixture(call: &Call) -> Fixture {
    match call.name.ends_with("in postcopy") {
        true => wire::frontend_form(call.request, "postcopy"),
        false => wire::frontend_request(call.request),
    }
}

fn id(call: &Call) -> u32 {
    fixture(call).id
}

/// What the protocol answers to this call, the right answer first; none where no reply is due.
fn answers(call: &Call, mode: Mode) -> Vec<Answer> {
    let row = FrontendCode(id(call)).row().unwrap();
    match row.reply {
        ReplyRule::Acknowledged | ReplyRule::Postcopy if !call.name.ends_with("in postcopy") => match mode {
            // The request that negotiates acknowledgements is not asked for one.
            Mode::Flagged if call.request != "SET_PROTOCOL_FEATURES" => acknowledgements(),
            _ => Vec::new(),
        },
        // Only when asked, and ours always asks.
        ReplyRule::AcknowledgedWhenFlagged => acknowledgements(),
        ReplyRule::Status => acknowledgements(),
        _ => fixture(call).answers().iter().cloned().map(|answer| fitted(call, answer)).collect(),
    }
}

fn acknowledgements() -> Vec<Answer> {
    vec![number("yes", 0), number("no", 1), number("no, loudly", u64::MAX), number("no, in the second byte", 0x100)]
}

fn number(form: &'static str, number: u64) -> Answer {
    Answer { form, layout: Layout::U64, payload: number.to_ne_bytes().to_vec(), descriptors: 0 }
}

/// A fixture's answer as it answers this call.
fn fitted(call: &Call, answer: Answer) -> Answer {
    let payload = match call.request {
        "GET_FEATURES" => VIRTIO.to_ne_bytes().to_vec(),
        "GET_PROTOCOL_FEATURES" => PROTOCOL.to_ne_bytes().to_vec(),
        "GET_QUEUE_NUM" => 2_u64.to_ne_bytes().to_vec(),
        "GET_CONFIG" if !answer.payload.is_empty() => config(0x14, 8, &[1, 2, 3, 4, 5, 6, 7, 8]),
        _ => return answer,
    };
    Answer { payload, ..answer }
}

fn config(offset: u32, size: u32, data: &[u8]) -> Vec<u8> {
    Bytes::new().u32(offset).u32(size).u32(1).raw(data).done()
}

/// Answers that say something that was not asked.
fn strange(call: &Call) -> Vec<Answer> {
    let HandleRule::None = FrontendCode(id(call)).row().unwrap().reply_handles else {
        return strange_with_descriptors(call);
    };
    let [first, second, third, ..] = REGIONS.map(Region::mapped);
    let regions: Vec<(&'static str, Vec<u8>)> = match (call.request, call.after) {
        ("GET_QUEUE_NUM", _) => vec![("too many", 0x101_u64.to_ne_bytes().to_vec()), ("none", vec![0; 8])],
        ("GET_MAX_MEM_SLOTS", _) => vec![("none", vec![0; 8]), ("all", vec![0xff; 8])],
        ("GET_VRING_BASE", _) => vec![
            ("of another ring", Bytes::new().u32(0).u32(7).done()),
            ("of no ring", Bytes::new().u32(256).u32(7).done()),
            ("a large one", Bytes::new().u32(1).u32(0x1_0007).done()),
        ],
        ("GET_CONFIG", _) => vec![
            ("nothing of it", config(0x14, 0, &[])),
            ("less of it", config(0x14, 4, &[1, 2, 3, 4])),
            ("more of it", config(0x14, 12, &[9; 12])),
            ("more than it says", config(0x14, 8, &[9; 12])),
            ("another part", config(0, 8, &[9; 8])),
            ("the head alone", config(0x14, 8, &[])),
            ("all 256 bytes", config(0, 256, &[9; 256])),
        ],
        ("SET_LOG_BASE", _) => vec![("another log", vec![1; 16])],
        ("SET_MEM_TABLE", ["postcopy_advise", ..]) => vec![
            ("three regions", table(&[first, second, third])),
            ("one region", table(&[first])),
            ("out of order", table(&[second, first])),
            ("other regions", table(&[third, second])),
            ("another size", table(&[first, Region { size: 0x1000, ..second }])),
        ],
        ("ADD_MEM_REG", ["postcopy_advise", ..]) => vec![
            ("another region", Bytes::new().u64(0).raw(&first.plain()).done()),
            ("another size", Bytes::new().u64(0).raw(&Region { size: 0x1000, ..ADDED }.plain()).done()),
        ],
        ("GET_SHMEM_CONFIG", _) => vec![("more than it counts", Bytes::new().u32(0).u32(0).raw(&[1; 2048]).done())],
        _ => Vec::new(),
    };
    regions.into_iter().map(|(form, payload)| Answer { form, layout: Layout::Empty, payload, descriptors: 0 }).collect()
}

fn strange_with_descriptors(call: &Call) -> Vec<Answer> {
    let record = |size, offset, queues| Bytes::new().u64(size).u64(offset).u16(queues).u16(256).u32(0).done();
    let all: Vec<(&'static str, Vec<u8>, usize)> = match call.request {
        "GET_INFLIGHT_FD" => vec![
            ("no byte and a descriptor", record(0, 0, 2), 1),
            ("bytes and no descriptor", record(0x2080, 0, 2), 0),
            ("an offset that wraps", record(0x2080, u64::MAX, 2), 1),
            ("of 3 queues", record(0x3000, 0, 3), 1),
            ("zeros", vec![0; 24], 0),
        ],
        "SET_DEVICE_STATE_FD" => vec![
            ("take yours, and this", 0x100_u64.to_ne_bytes().to_vec(), 1),
            ("take this, without it", vec![0; 8], 0),
            ("an error", 1_u64.to_ne_bytes().to_vec(), 0),
            ("an error and a descriptor", 1_u64.to_ne_bytes().to_vec(), 1),
            ("a bit that means nothing", 0x300_u64.to_ne_bytes().to_vec(), 0),
        ],
        _ => Vec::new(),
    };
    all.into_iter()
        .map(|(form, payload, descriptors)| Answer { form, layout: Layout::Empty, payload, descriptors })
        .collect()
}

fn whole(id: u32, flags: u32, answer: &Answer) -> Reply {
    let size = u32::try_from(answer.payload.len()).unwrap();
    let bytes = [&header(id, flags, size)[..], &answer.payload].concat();
    Reply { bytes, descriptors: answer.descriptors }
}
