//! The front-end process: writes the whole disk and reads it back, whatever happens to the back-end.

use core::{error::Error, time::Duration};
use std::{collections::HashMap, os::fd::AsFd, path::Path, sync::Arc, time::Instant};

use rustix::event::{PollFd, PollFlags, poll};

use vhost_core::VirtioFeatures;
use vhost_std::{
    deadline::Deadline,
    driver::{BlockClient, BlockClientError, BlockClientOptions, BlockRequest, BlockStatus, SECTOR},
    frontend::Frontend,
    socket::Socket,
};

use crate::{QUEUES, Result, pattern, report::Note, timeline::Timeline};

/// Bytes of one request.
const REQUEST: u32 = 128 << 10;
/// Requests that are under way in each queue.
const DEPTH: u16 = 16;
/// A back-end that says nothing for so long is broken.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn run(socket: &Path) -> Result<()> {
    let timeline = Arc::new(Timeline::new());
    let packed =
        BlockClientOptions { queues: QUEUES, slots: DEPTH, slot_size: REQUEST, ..BlockClientOptions::default() };
    let split = BlockClientOptions { features: packed.features - VirtioFeatures::RING_PACKED, ..packed };
    let client = BlockClient::start(connect(socket, &timeline)?, split)?;
    let mut user = User { client, socket, timeline: Arc::clone(&timeline), reconnections: 0 };
    user.timeline.note("the disk is ready, with split rings");

    let written = user.work(Work::Write)?;
    user.flush()?;
    user.timeline.note("everything is written and flushed");
    user.client = BlockClient::start(user.client.stop()?, packed)?;
    if !user.client.agreed().acknowledged.contains(VirtioFeatures::RING_PACKED) {
        return Err("the disk does not know packed rings".into());
    }
    user.timeline.note("the disk is ready once more, with packed rings");
    let read = user.work(Work::Read)?;
    let reconnections = user.reconnections;
    drop(user.client.stop()?);

    for line in timeline.lines() {
        Note::Line(line).tell();
    }
    Note::Line(format!("written through split rings: {written}")).tell();
    Note::Line(format!("read through packed rings:   {read}")).tell();
    Note::Line(format!("reconnected {reconnections} time(s); requests that were under way were made once more")).tell();
    Ok(())
}

fn connect(socket: &Path, timeline: &Arc<Timeline>) -> Result<Frontend> {
    let socket = Socket::connect_when_ready(socket, Deadline::after(PATIENCE))?;
    let mut frontend = Frontend::from_socket(socket);
    frontend.set_timeout(Some(PATIENCE));
    frontend.observe(Some(Arc::clone(timeline) as _));
    Ok(frontend)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Write,
    Read,
}

/// Who uses the disk.
struct User<'s> {
    client: BlockClient,
    socket: &'s Path,
    timeline: Arc<Timeline>,
    reconnections: u32,
}

impl User<'_> {
    /// Goes once over the whole disk; says how fast it was.
    fn work(&mut self, work: Work) -> Result<String> {
        let size = self.client.limits().capacity * SECTOR;
        let mut pass =
            Pass { work, size, next: 0, done: 0, under_way: HashMap::new(), checksum: pattern::Checksum::default() };
        let started = Instant::now();
        let mut told = 0;
        while pass.done < size {
            for queue in 0..usize::from(QUEUES) {
                self.repeat_until_alive(|client| pass.submit(client, queue))?;
            }
            for queue in 0..usize::from(QUEUES) {
                self.repeat_until_alive(|client| pass.collect(client, queue))?;
            }
            if work == Work::Write && self.reconnections == 0 && pass.done > size / 4 * 3 {
                self.wait_for_the_crash()?;
            }
            let percent = (pass.done * 100 / size) as u8;
            if percent != told {
                pass.tell(told, percent);
                told = percent;
            }
        }
        let seconds = started.elapsed().as_secs_f64();
        let mebibytes = size as f64 / f64::from(1 << 20);
        let checked =
            if work == Work::Read { format!(", checksum {:016x}", pass.checksum.value()) } else { String::new() };
        Ok(format!("{mebibytes:.0} MiB in {seconds:.2} s, {:.0} MiB/s{checked}", mebibytes / seconds))
    }

    /// Connects until there is a living back-end: a dying one may still take a connection and then drop it.
    fn reconnect(&mut self, deadline: Deadline) -> Result<()> {
        loop {
            let frontend = connect(self.socket, &self.timeline)?;
            let error: Box<dyn Error> = match self.client.reconnect(frontend) {
                Ok(()) => return Ok(()),
                Err(error) => error.into(),
            };
            if !has_died(&*error) || deadline.remaining() == Some(Duration::ZERO) {
                return Err(error);
            }
        }
    }

    /// The crash was announced at half; should this machine be so fast that most is written by now, it is waited for, or
    /// nothing would be shown.
    fn wait_for_the_crash(&mut self) -> Result<()> {
        while self.reconnections == 0 {
            self.repeat_until_alive(|client| {
                let frontend = client.frontend_mut();
                let mut closed = [PollFd::from_borrowed_fd(frontend.as_fd(), PollFlags::IN)];
                poll(&mut closed, None)?;
                frontend.process().map_err(|error| BlockClientError::from(error).into())
            })?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let Some(ring) = self.client.queues_mut().first_mut() else { return Err("there is no queue".into()) };
        // Submitted once: if the back-end dies, it is still under way and made once more like the others.
        ring.submit(BlockRequest::Flush)?;
        self.repeat_until_alive(|client| expect_ok(client.wait(0, Deadline::after(PATIENCE))?.status()))
    }

    /// Does something, and if the back-end dies under it, connects to the next one and does it again.
    fn repeat_until_alive(&mut self, mut act: impl FnMut(&mut BlockClient) -> Result<()>) -> Result<()> {
        loop {
            let error = match act(&mut self.client) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if !has_died(&*error) {
                return Err(error);
            }
            self.timeline.note(&format!("the back-end died: {error}"));
            self.reconnect(Deadline::after(PATIENCE))?;
            self.reconnections += 1;
            self.timeline.note("connected again; what was under way is made once more");
        }
    }
}

/// Whether the connection ended under a request.
fn has_died(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(BlockClientError::Frontend(error)) if error.ends_session().is_some())
}

/// One pass over the disk.
struct Pass {
    work: Work,
    size: u64,
    next: u64,
    done: u64,
    /// Which offset belongs to which ticket of which queue.
    under_way: HashMap<(usize, u64), u64>,
    checksum: pattern::Checksum,
}

impl Pass {
    /// Fills a queue with requests.
    fn submit(&mut self, client: &mut BlockClient, queue: usize) -> Result<()> {
        let mut buffer = vec![0; REQUEST as usize];
        let Some(ring) = client.queues_mut().get_mut(queue) else { return Err("there is no such queue".into()) };
        while self.next < self.size && ring.in_flight() < usize::from(DEPTH) {
            let sector = self.next / SECTOR;
            let ticket = match self.work {
                Work::Write => {
                    pattern::fill(self.next, &mut buffer);
                    ring.submit(BlockRequest::Write { sector, data: &buffer })?
                }
                Work::Read => ring.submit(BlockRequest::Read { sector, length: REQUEST })?,
            };
            self.under_way.insert((queue, ticket), self.next);
            self.next += u64::from(REQUEST);
        }
        ring.publish()?;
        Ok(())
    }

    /// Waits for a completion, and takes those that came with it.
    fn collect(&mut self, client: &mut BlockClient, queue: usize) -> Result<()> {
        let is_idle = client.queues_mut().get(queue).is_none_or(|ring| ring.in_flight() == 0);
        if is_idle {
            return Ok(());
        }
        let mut buffer = vec![0; REQUEST as usize];
        let completion = client.wait(queue, Deadline::after(PATIENCE))?;
        self.take(queue, &completion, &mut buffer)?;
        drop(completion);
        let Some(ring) = client.queues_mut().get_mut(queue) else { return Ok(()) };
        while let Some(completion) = ring.poll()? {
            self.take(queue, &completion, &mut buffer)?;
        }
        Ok(())
    }

    fn take(&mut self, queue: usize, completion: &vhost_std::driver::Completion<'_>, buffer: &mut [u8]) -> Result<()> {
        expect_ok(completion.status())?;
        let offset = self.under_way.remove(&(queue, completion.ticket())).ok_or("a request completed twice")?;
        if self.work == Work::Read {
            let found = completion.read(buffer)?;
            if found != buffer.len() {
                return Err(format!("expected {} bytes, found {found}", buffer.len()).into());
            }
            self.checksum.check(offset, buffer)?;
        }
        self.done += u64::from(REQUEST);
        Ok(())
    }

    fn tell(&self, before: u8, percent: u8) {
        if self.work == Work::Write && before < 50 && percent >= 50 {
            Note::HalfWritten.tell();
        }
        let part = if self.work == Work::Write { "writing" } else { "reading" };
        Note::Progress { part: part.to_owned(), percent }.tell();
    }
}

fn expect_ok(status: BlockStatus) -> Result<()> {
    if status == BlockStatus::Ok { Ok(()) } else { Err(format!("the disk said {status:?}").into()) }
}
