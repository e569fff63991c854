//! Frames that come for the guest.

use super::config::feature;
use super::{FRAME, HEADER, NetLink, Packet, header_size};
use crate::chain::{Chain, Writable};
use crate::device::Queue;

/// Offset of the number of buffers in a header.
const BUFFERS: usize = 10;

/// The frame that came last, until the driver has it.
pub(super) struct Received {
    packet: Box<Packet>,
    /// Bytes of header and frame; zero for none.
    length: usize,
}

impl Default for Received {
    fn default() -> Self {
        Self { packet: Box::new([0; HEADER + FRAME]), length: 0 }
    }
}

impl Received {
    /// Gives the driver all frames that are there, as far as it has buffers. The rest stays where it is.
    pub(super) fn deliver(&mut self, link: &NetLink, queue: &mut Queue<'_>, acknowledged: u64) {
        while self.fill(link) {
            let Some(first) = queue.next() else { return };
            if self.put(first, queue, acknowledged) == Outcome::Waits {
                return;
            }
            self.length = 0;
        }
    }

    /// What is here is for nobody any more.
    pub(super) fn forget(&mut self) {
        self.length = 0;
    }

    /// Whether there is a frame.
    fn fill(&mut self, link: &NetLink) -> bool {
        if self.length == 0 {
            self.length = link.receive(&mut self.packet).unwrap_or(0);
        }
        self.length > 0
    }

    /// Puts the frame into `first` and as many more buffers as it needs. Without enough of them it is lost, and those that
    /// were taken go back empty; while one cannot be reached yet, it waits.
    fn put<'m>(&mut self, first: Chain<'m>, queue: &mut Queue<'m>, acknowledged: u64) -> Outcome {
        let header_size = header_size(acknowledged);
        let needed = (header_size + self.length - HEADER) as u64;
        let mut room = first.writable().len();
        let mut chains = vec![first];
        while room < needed
            && acknowledged & feature::MRG_RXBUF != 0
            && let Some(chain) = queue.next_for_same()
        {
            room += chain.writable().len();
            chains.push(chain);
        }
        if room < needed {
            if queue.is_waiting() {
                queue.put_back(chains);
                return Outcome::Waits;
            }
            queue.complete_together(chains.into_iter().map(|chain| (chain, 0)));
            return Outcome::Done;
        }
        // Without merged buffers it is one (specification, 5.1.6.4.1).
        let [low, high] = u16::try_from(chains.len()).unwrap_or(u16::MAX).to_le_bytes();
        let (header, rest) = self.packet.split_at_mut(HEADER);
        for (to, from) in header.iter_mut().skip(BUFFERS).zip([low, high]) {
            *to = from;
        }
        let mut source = Source {
            header: header.get(..header_size).unwrap_or_default(),
            frame: rest.get(..self.length - HEADER).unwrap_or_default(),
        };
        queue.complete_together(chains.into_iter().map(|chain| {
            let written = source.fill(chain.writable());
            (chain, written)
        }));
        Outcome::Done
    }
}

/// What became of a frame.
#[derive(PartialEq, Eq)]
enum Outcome {
    /// The driver has it, or it is lost.
    Done,
    /// It is put into the same buffers again.
    Waits,
}

/// What is left to be written.
struct Source<'p> {
    header: &'p [u8],
    frame: &'p [u8],
}

impl Source<'_> {
    /// Writes as much as fits; how many bytes.
    fn fill(&mut self, target: Writable<'_>) -> u32 {
        let mut target = target;
        let mut written = 0;
        for part in [&mut self.header, &mut self.frame] {
            let count = usize::try_from(target.len()).unwrap_or(usize::MAX).min(part.len());
            let (now, later) = part.split_at(count);
            // It was made to fit.
            let _ = target.write(now);
            *part = later;
            written += count as u32;
        }
        written
    }
}
