//! What the driver prints, on its way to a descriptor that may take it slowly.

use super::stream::Stream;
use crate::chain::Readable;

/// Bytes of one request that are kept while the output takes no more. Drivers send less at a time.
const KEPT: usize = 64 << 10;

/// An output, and what it has not taken yet.
#[derive(Debug)]
pub(super) struct Output {
    stream: Stream,
    kept: Vec<u8>,
}

impl Output {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, kept: Vec::new() }
    }

    /// Writes what was kept, and tells whether more can be taken.
    pub(super) fn is_ready(&mut self) -> bool {
        let count = self.write_out(&self.kept);
        self.kept.drain(..count);
        self.kept.is_empty()
    }

    /// Takes a request whole. What the output does not take now is kept; what is more than that is lost, as on a line
    /// without anybody at its end.
    pub(super) fn write(&mut self, request: Readable<'_>) {
        let mut rest = request;
        let mut bytes = [0; 4096];
        while !rest.is_empty() && self.kept.len() < KEPT {
            let count = usize::try_from(rest.len()).unwrap_or(usize::MAX).min(bytes.len());
            let piece = bytes.get_mut(..count).unwrap_or_default();
            if rest.read(piece).is_err() {
                return;
            }
            let written = if self.kept.is_empty() { self.write_out(piece) } else { 0 };
            self.kept.extend_from_slice(piece.get(written..).unwrap_or_default());
        }
    }

    /// Writes as much as the output takes.
    fn write_out(&self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                0 => break,
                count => done = done.saturating_add(count),
            }
        }
        done
    }
}
