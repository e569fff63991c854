//! Programs that nobody here wrote at the other end: libblkio and DPDK with our back-ends, virtiofsd and DPDK with our
//! front-end. `.ci/peer-programs` fetches them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod dpdk;
mod libblkio;
mod machine;
mod testpmd;
mod virtiofsd;
