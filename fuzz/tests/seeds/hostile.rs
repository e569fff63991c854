//! What has broken other programs, one input each: counts and indices out of range, sums that wrap, needless descriptors,
//! requests out of order.

use vhost_tests::wire::{self, Bytes, feature};

use crate::{Seed, bytes};

/// A request: what it tries, id, payload, descriptors.
type Attempt = (&'static str, u32, Vec<u8>, usize);

pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (_, id, payload, handles) in [memory(), rings(), records(), others(), needless()].concat() {
        let size = u32::try_from(payload.len()).unwrap();
        let mut input = vec![0];
        for (id, payload) in bytes::negotiation() {
            let size = u32::try_from(payload.len()).unwrap();
            input.extend(bytes::stream(0, 0, &[&wire::header(id, wire::REQUEST, size), &payload[..]].concat()));
        }
        let whole = [&wire::header(id, wire::REQUEST_NEEDING_REPLY, size), &payload[..]].concat();
        input.extend(bytes::stream(0, handles, &whole));
        // The next message is heard as if nothing had been.
        input.extend(bytes::stream(0, 0, &wire::frontend_request("GET_FEATURES").request()));
        seeds.push(("backend", input));
        let decoded = bytes::message(0, handles, id, &payload);
        let protocol = feature::PROTOCOL_ACKNOWLEDGED.to_le_bytes();
        seeds.push(("decode", [&decoded[..1], &[0], &protocol[..], &decoded[1..]].concat()));
        let asked = bytes::message(0, handles, id, &payload);
        seeds.push(("frontend", [bytes::frontend(), asked.clone()].concat()));
        seeds.push(("pair", [bytes::pair(0), bytes::message(0, 0, 1, &[]), vec![7], asked, vec![7]].concat()));
    }
    seeds.extend(framing());
    seeds
}

fn region(guest: u64, size: u64, user: u64, offset: u64) -> Bytes {
    Bytes::new().u64(guest).u64(size).u64(user).u64(offset)
}

fn memory() -> Vec<Attempt> {
    let single = |what, guest, size, user, offset| {
        (what, 37, Bytes::new().padding(8).raw(&region(guest, size, user, offset).done()).done(), 1)
    };
    let table = |what, count, regions: &[(u64, u64, u64, u64)], handles| {
        let head = Bytes::new().u32(count).padding(4);
        let all = regions
            .iter()
            .fold(head, |table, &(guest, size, user, offset)| table.raw(&region(guest, size, user, offset).done()));
        (what, 5, all.done(), handles)
    };
    vec![
        single("size and offset wrap (DPDK 0fe99cf73e)", 0, u64::MAX, 0, 1),
        single("guest addresses wrap", u64::MAX - 0xfff, 0x2000, 0x1000, 0),
        single("user addresses wrap", 0, 0x2000, u64::MAX - 0xfff, 0),
        single("no bytes", 0x1000, 0, 0x1000, 0),
        table("nine regions (DPDK 4d490c7ce3)", 9, &[(0, 0x1000, 0x1000, 0); 9], 8),
        table("a count that nothing backs", u32::MAX, &[(0, 0x1000, 0x1000, 0)], 1),
        table("fewer descriptors than regions", 2, &[(0, 0x1000, 0, 0), (0x1000, 0x1000, 0x1000, 0)], 1),
        table("regions overlap", 2, &[(0, 0x2000, 0, 0), (0x1000, 0x2000, 0x8000, 0)], 2),
        table("user addresses overlap", 2, &[(0, 0x2000, 0, 0), (0x8000, 0x2000, 0x1000, 0)], 2),
        table("no region", 0, &[], 0),
    ]
}

fn rings() -> Vec<Attempt> {
    let state = |what, id, index, number| (what, id, Bytes::new().u32(index).u32(number).done(), 0);
    let mut all = vec![
        state("no descriptors in the ring (DPDK eb7c574b21)", 8, 0, 0),
        state("a split ring of three", 8, 0, 3),
        state("a ring of 32769", 8, 0, 32769),
        state("a ring of 65536", 8, 0, 65536),
        state("neither on nor off", 18, 0, 2),
        state("neither endianness", 23, 0, 7),
    ];
    // CVE-2020-10723: the index cut to 16 bits before it is compared.
    for id in [8, 10, 11, 18, 23, 35] {
        for index in [4, 5, 0xff, 0x100, 0x1_0000, 0x1_0001, 1 << 31, u32::MAX] {
            all.push(state("an index beyond the rings", id, index, 1));
        }
    }
    for id in [12, 13, 14] {
        for target in [4, 0xff, 0x1ff, 0x200, 0x1_0000, 1 << 32, u64::MAX] {
            all.push((
                "an index beyond the rings",
                id,
                Bytes::new().u64(target).done(),
                usize::from(target & 0x100 == 0),
            ));
        }
    }
    for (index, address) in [(4, 0x1000), (0x1_0000, 0x1000), (0, 1), (0, u64::MAX), (0, u64::MAX - 15)] {
        let address = Bytes::new().u32(index).u32(0).u64(address).u64(address).u64(address).u64(address);
        all.push(("a ring that lies nowhere", 9, address.done(), 0));
    }
    all
}

fn records() -> Vec<Attempt> {
    let inflight = |what, id, size, offset, queues, descriptors, handles| {
        (what, id, Bytes::new().u64(size).u64(offset).u16(queues).u16(descriptors).padding(4).done(), handles)
    };
    let log = |what, size, offset| (what, 6, Bytes::new().u64(size).u64(offset).done(), 1);
    vec![
        inflight("more queues than there are (CVE-2021-3839)", 32, 64, 0, 65535, 256, 1),
        inflight("the same asked for", 31, 0, 0, 65535, 65535, 0),
        inflight("an extent that wraps", 32, u64::MAX, 1, 1, 256, 1),
        inflight("needless descriptors (CVE-2022-0669)", 31, 0, 0, 1, 256, 8),
        inflight("no queue, no descriptor", 31, 0, 0, 0, 0, 0),
        log("size and offset wrap (CVE-2020-10722)", u64::MAX - 4095, 8192),
        log("an offset beyond the size (DPDK f83e0199c8)", 0x1000, 0x2000),
        log("no bytes", 0, 0),
    ]
}

fn others() -> Vec<Attempt> {
    let number = |what, id, value: u64| (what, id, value.to_ne_bytes().to_vec(), 0);
    let config =
        |what, id, offset, size, data: &[u8]| (what, id, Bytes::new().u32(offset).u32(size).u32(0).raw(data).done(), 0);
    let transfer = |what, direction, phase| (what, 42, Bytes::new().u32(direction).u32(phase).done(), 1);
    // CVE-2020-10724: key lengths beyond the key. 16 and 24 bytes into the parameters of a session.
    let crypto = Bytes::new().u64(0).u32(1).u32(u32::MAX).u32(513).padding(1044).u64(0).done();
    vec![
        number("features that were not offered", 2, u64::MAX),
        number("protocol features that were not offered", 16, u64::MAX),
        number("in-band notifications alone", 16, feature::INBAND_NOTIFICATIONS),
        number("nothing any more", 16, 0),
        number("a status of more than eight bits", 39, 0x100),
        config("more bytes than a message has", 24, 0, 257, &[0; 257]),
        config("a size that nothing backs", 24, 0, u32::MAX, &[0; 8]),
        config("an offset at the end of 32 bits", 25, u32::MAX, 8, &[0; 8]),
        transfer("a direction that there is not", 2, 0),
        transfer("a phase that there is not", 0, 1),
        ("key lengths beyond the key (CVE-2020-10724)", 26, crypto, 0),
        ("postcopy listens before it was announced", 29, vec![], 0),
        ("postcopy ends before it began", 30, vec![], 0),
        ("an unknown request", 99, vec![1; 8], 0),
        ("the request that no protocol has", 0, vec![0; 8], 0),
    ]
}

/// CVE-2019-14818: descriptors with messages that take none.
fn needless() -> Vec<Attempt> {
    let plain = wire::all_frontend_requests().into_iter().filter(|fixture| fixture.descriptors == 0);
    plain.map(|fixture| ("needless descriptors", fixture.id, fixture.payload, 8)).collect()
}

/// Bytes that are no message: another version, a reply, a size beyond any, more descriptors than a message has.
fn framing() -> Vec<Seed> {
    let stream = |handles, bytes: &[u8]| ("backend", [vec![0], bytes::stream(0, handles, bytes)].concat());
    let header = |id, flags, size| wire::header(id, flags, size);
    vec![
        stream(0, &header(1, 2, 0)),
        stream(0, &header(1, wire::REPLY, 0)),
        stream(0, &header(1, wire::REQUEST, u32::MAX)),
        stream(0, &header(1, wire::REQUEST, 4097)),
        stream(9, &header(3, wire::REQUEST, 0)),
        stream(15, &header(3, wire::REQUEST, 0)),
        stream(0, &header(1, wire::REQUEST, 8)[..7]),
    ]
}
