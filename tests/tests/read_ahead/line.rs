//! A stream as Linux has it: buffers, each with its descriptors.

use std::collections::VecDeque;

use vhost_tests::tracked::Token;

#[derive(Default)]
pub(crate) struct Line(VecDeque<(VecDeque<u8>, Vec<Token>)>);

impl Line {
    /// One system call.
    pub(crate) fn send(&mut self, bytes: &[u8], handles: Vec<Token>) {
        if !bytes.is_empty() {
            self.0.push_back((bytes.iter().copied().collect(), handles));
        }
    }

    /// What one `recvmsg` gives: it joins buffers and ends behind the first that has descriptors, or in the middle of one.
    pub(crate) fn receive(&mut self, room: &mut [u8]) -> (usize, Vec<Token>) {
        let mut filled = 0;
        while let Some((bytes, handles)) = self.0.front_mut() {
            let taken = bytes.len().min(room.len() - filled);
            for byte in bytes.drain(..taken) {
                room[filled] = byte;
                filled += 1;
            }
            let handles = core::mem::take(handles);
            let is_empty = bytes.is_empty();
            if is_empty {
                self.0.pop_front();
            }
            if !handles.is_empty() || !is_empty || filled == room.len() {
                return (filled, handles);
            }
        }
        (filled, Vec::new())
    }
}
