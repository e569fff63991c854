//! Many requests at a time, and what must come of them.

use vhost_std::driver::{BlockClient, BlockClientError, BlockQueue, BlockRequest, BlockStatus, SECTOR};

use crate::daemon::{DISK, soon};

/// Bytes that differ from sector to sector and from seed to seed.
pub(crate) fn pattern(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(step).collect()
}

/// Writes through all queues of `client` at a time, reads everything back, and leaves the bytes that the disk must have.
pub(crate) fn fill_and_read_back(client: &mut BlockClient) -> Vec<u8> {
    let expected = pattern(7, usize::try_from(DISK).unwrap());
    let queues = client.queues_mut();
    let share = expected.len() / queues.len();
    let start = (0..).step_by(share / usize::try_from(SECTOR).unwrap());
    std::thread::scope(|scope| {
        for ((queue, share), start) in queues.iter_mut().zip(expected.chunks(share)).zip(start) {
            scope.spawn(move || fill_share_and_read_back(queue, share, start));
        }
    });
    expected
}

fn fill_share_and_read_back(queue: &mut BlockQueue, share: &[u8], start: u64) {
    let piece = 60 << 10;
    let pieces = || (start..).step_by(piece / 512).zip(share.chunks(piece));
    let mut write = pieces();
    transfer(queue, || write.next().map(|(sector, data)| BlockRequest::Write { sector, data }), |_, _| ());
    let mut read = pieces();
    let next = || {
        let (sector, data) = read.next()?;
        Some(BlockRequest::Read { sector, length: u32::try_from(data.len()).unwrap() })
    };
    let chunks = Vec::from_iter(share.chunks(piece));
    transfer(queue, next, |number, data| assert!(data == chunks[number], "piece {number} differs"));
}

/// Makes all requests, as many at a time as the queue takes; all must succeed. `done` gets the number of each and its data.
fn transfer<'d>(
    queue: &mut BlockQueue,
    mut next: impl FnMut() -> Option<BlockRequest<'d>>,
    mut done: impl FnMut(usize, &[u8]),
) {
    let mut first = None;
    let mut waiting = next();
    let mut most = 0;
    while waiting.is_some() || queue.in_flight() > 0 {
        while let Some(request) = waiting {
            match queue.submit(request) {
                Ok(ticket) => _ = first.get_or_insert(ticket),
                Err(BlockClientError::Busy) => break,
                Err(error) => panic!("{error}"),
            }
            waiting = next();
        }
        most = most.max(queue.in_flight());
        let completion = queue.wait(soon()).unwrap().expect("the disk is silent");
        assert_eq!(completion.status(), BlockStatus::Ok);
        let mut data = vec![0; usize::try_from(completion.length()).unwrap()];
        completion.read(&mut data).unwrap();
        done(usize::try_from(completion.ticket() - first.unwrap()).unwrap(), &data);
    }
    assert!(most > 8, "only {most} requests were in flight together");
}
