//! What the driver asks of a disk, and what it measures.

use core::fmt;
use core::time::Duration;
use std::time::Instant;

use vhost_std::deadline::Deadline;
use vhost_std::driver::{BlockQueue, BlockRequest, BlockStatus};

use crate::backends::{Backend, DISK};
use crate::processors::Processors;

/// Requests of one measurement.
const REQUESTS: usize = 8000;
const BLOCK: u64 = 4096;

#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Read,
    Write,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// Random blocks, so many requests under way at a time in each queue.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) queues: u16,
    pub(crate) depth: usize,
    pub(crate) kind: Kind,
    pub(crate) processors: Processors,
}

/// As `ONLY` names it.
impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {} {}", self.processors, self.queues, self.depth, self.kind)
    }
}

#[derive(Clone)]
pub(crate) struct Outcome {
    pub(crate) per_second: f64,
    /// Microseconds from a request to its completion.
    pub(crate) latency: f64,
    /// Microseconds of the back-end's processor for a request.
    pub(crate) processor: f64,
}

/// Numbers that look random and are the same every time (Knuth's MMIX constants).
struct Dice(u64);

impl Dice {
    fn sector(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % (DISK / BLOCK) * (BLOCK / 512)
    }
}

impl Load {
    pub(crate) fn run(self, backend: &mut Backend) -> Outcome {
        self.processors.drive(|| self.drive(backend))
    }

    fn drive(self, backend: &mut Backend) -> Outcome {
        let requests = if self.depth == 1 { REQUESTS / 2 } else { REQUESTS * 2 };
        let before = backend.processor();
        let start = Instant::now();
        // One thread drives all queues, as the machine may have no more processors than that and the back-end need.
        let mut dice = Dice(self.depth as u64);
        let mut submitted = 0;
        let mut done = 0;
        for queue in backend.client.queues_mut() {
            for _ in 0..self.depth {
                self.submit(queue, &mut dice);
                submitted += 1;
            }
            queue.publish().unwrap();
        }
        let deadline = Deadline::after(Duration::from_secs(60));
        while done < submitted {
            let mut found = 0;
            for queue in backend.client.queues_mut() {
                let mut again = 0;
                while let Some(completion) = queue.poll().unwrap() {
                    assert_eq!(completion.status(), BlockStatus::Ok);
                    again += 1;
                }
                found += again;
                for _ in 0..again.min(requests.saturating_sub(submitted)) {
                    self.submit(queue, &mut dice);
                    submitted += 1;
                }
                if again > 0 {
                    queue.publish().unwrap();
                }
            }
            done += found;
            if found == 0 && done < submitted {
                let mut queues = backend.client.queues_mut().iter_mut();
                let busy = queues.find(|queue| queue.in_flight() > 0).expect("something is under way");
                let completion = busy.wait(deadline).unwrap().expect("the disk is silent");
                assert_eq!(completion.status(), BlockStatus::Ok);
                drop(completion);
                done += 1;
                if submitted < requests {
                    self.submit(busy, &mut dice);
                    submitted += 1;
                    busy.publish().unwrap();
                }
            }
        }
        let time = start.elapsed().as_secs_f64();
        let count = done as f64;
        let under_way = self.depth as f64 * f64::from(self.queues);
        Outcome {
            per_second: count / time,
            latency: time / count * under_way * 1e6,
            processor: (backend.processor() - before) / count,
        }
    }

    fn submit(self, queue: &mut BlockQueue, dice: &mut Dice) {
        const DATA: [u8; BLOCK as usize] = [0xa5; BLOCK as usize];
        let sector = dice.sector();
        let request = match self.kind {
            Kind::Read => BlockRequest::Read { sector, length: BLOCK as u32 },
            Kind::Write => BlockRequest::Write { sector, data: &DATA },
        };
        queue.submit(request).unwrap();
    }
}
