//! The tables of messages against the hand-made fixtures, and the machines against both.

mod backend_requests;
mod encoding;
mod missing;
mod requests;
mod rows;
mod sending;
