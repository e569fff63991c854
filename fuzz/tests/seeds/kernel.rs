//! Messages of the kernel's IOTLB and of VDUSE, field by field, and translations.

use vhost_tests::wire::Bytes;

use crate::Seed;

/// What the first byte of an input asks for.
const MESSAGES: u8 = 0;
const ANY_TRANSLATIONS: u8 = 1;
const TRANSLATIONS: u8 = 2;

pub fn all() -> Vec<Seed> {
    let inputs = [iotlb(), vduse(), told(), told_a_few_addresses()].concat();
    inputs.into_iter().map(|input| ("kernel", input)).collect()
}

/// struct vhost_iotlb_msg.
fn translation(iova: u64, size: u64, user: u64, permission: u8, kind: u8) -> Vec<u8> {
    Bytes::new().u64(iova).u64(size).u64(user).u8(permission).u8(kind).padding(6).done()
}

/// struct vhost_msg and vhost_msg_v2: misses, updates, invalidations, failed accesses, both ends of a batch.
fn iotlb() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    for version in 0..4 {
        for kind in 0..8 {
            let translation = translation(0x1000, 0x2000, 0x7f00_0000, 3, kind);
            let message = Bytes::new().u8(MESSAGES).u32(version).u32(5).raw(&translation).padding(32);
            inputs.push(message.done());
        }
    }
    inputs
}

/// struct vduse_dev_request and vduse_dev_response: type or id, id or result, four reserved words, a union of 128 bytes.
fn vduse() -> Vec<Vec<u8>> {
    let message = |first, second, body: Bytes| {
        let mut input = Bytes::new().u8(MESSAGES).u32(first).u32(second).padding(16).raw(&body.done()).done();
        input.resize(1 + 152, 0);
        input
    };
    let packed = Bytes::new().u32(1).u16(1).u16(0x7fff).u16(0).u16(3);
    let mut inputs = vec![
        message(0, 7, Bytes::new().u32(2)),
        message(1, 7, Bytes::new().u8(0xf)),
        message(2, 7, Bytes::new().u64(0x1000).u64(u64::MAX).u32(1).u32(0)),
        message(3, 7, Bytes::new().u32(2).u32(5)),
        message(4, 7, Bytes::new()),
        // Answers: done with a ring's position, failed, a result that there is not.
        message(7, 0, packed.clone()),
        message(0, 0, packed),
        message(7, 1, Bytes::new()),
        message(7, u32::MAX, Bytes::new()),
    ];
    // A byte too few, and a reserved byte that is not zero.
    inputs.push(inputs[0][..152].to_vec());
    let mut reserved = inputs[5].clone();
    reserved[10] = 1;
    inputs.push(reserved);
    inputs
}

/// Translations of any size: whole address spaces, the last page, none, overlapping ones.
fn told() -> Vec<Vec<u8>> {
    let told = |messages: &[(u64, u64, u64, u8, u8)]| {
        let all =
            messages.iter().flat_map(|&(iova, size, user, access, kind)| translation(iova, size, user, access, kind));
        [ANY_TRANSLATIONS].into_iter().chain(all).collect()
    };
    let last = u64::MAX - 0xfff;
    vec![
        told(&[(0, u64::MAX, 0, 3, 2), (last, 0x1000, 0, 3, 2)]),
        told(&[(last, 0x1000, last, 3, 2), (last, 0x1001, 0, 3, 2), (0, 0x1000, last + 1, 3, 2)]),
        told(&[(0, 0, 0, 3, 2), (0, 0, 0, 0, 3), (0x1000, 0x1000, 0, 4, 2), (0, 1, 0, 0, 2)]),
        told(&[(0x1000, 0x9000, 0, 1, 2), (0x3000, 0x1000, 0, 2, 2), (0x3000, 0x1000, 0, 0, 3)]),
        told(&[(0, 1, 0, 1, 2), (2, 1, 0, 1, 2), (4, 1, 0, 1, 2), (6, 1, 0, 1, 2), (8, 1, 0, 1, 2), (0, 9, 0, 3, 2)]),
        told(&[(0x1000, 0x1000, 0, 1, 1), (0x1000, 0x1000, 0, 1, 4)]),
    ]
}

/// Updates, invalidations and look-ups of 256 addresses: see the target.
fn told_a_few_addresses() -> Vec<Vec<u8>> {
    const UPDATE: u8 = 0;
    const INVALIDATE: u8 = 2;
    const LOOK_UP: u8 = 3;
    let told = |steps: &[(u8, u8, u8)]| {
        let all = steps.iter().flat_map(|&(operation, first, size)| [operation, first, size]);
        [TRANSLATIONS].into_iter().chain(all).collect()
    };
    let each = |operation, sizes: u8| Vec::from_iter((0..20).map(|number| (operation, number * 12, sizes)));
    vec![
        told(&[(UPDATE, 10, 20), (LOOK_UP, 10, 0), (LOOK_UP, 29, 0), (LOOK_UP, 30, 0), (LOOK_UP, 9, 0)]),
        told(&[(UPDATE, 10, 20), (4, 15, 5), (LOOK_UP, 14, 0), (LOOK_UP, 15, 0), (7, 19, 0), (LOOK_UP, 20, 0)]),
        told(&[(UPDATE, 10, 20), (INVALIDATE, 15, 5), (LOOK_UP, 14, 0), (LOOK_UP, 17, 0), (LOOK_UP, 20, 0)]),
        told(&[(UPDATE, 0, 255), (INVALIDATE, 128, 0), (LOOK_UP, 127, 0), (LOOK_UP, 200, 0)]),
        told(&[each(UPDATE, 6), each(LOOK_UP, 0), each(INVALIDATE, 3), each(LOOK_UP, 0)].concat()),
        told(&[each(UPDATE, 12), vec![(UPDATE, 5, 240)], each(LOOK_UP, 0)].concat()),
    ]
}
