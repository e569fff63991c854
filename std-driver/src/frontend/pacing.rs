//! How many requests are under way at a time.

use super::Frontend;

/// How [`bring_up`](Frontend::bring_up) and [`tear_down`](Frontend::tear_down) make their requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pacing {
    /// Each is confirmed before the next is made: for a back-end that cannot take them otherwise.
    OneByOne,
    /// All that go into one system call; then all are confirmed. Several times as fast, and every back-end that reads its
    /// requests from a stream takes it. After a refusal the requests behind it have been carried out too.
    #[default]
    Pipelined,
}

impl Frontend {
    /// Sets how devices are started and stopped.
    pub fn set_pacing(&mut self, pacing: Pacing) {
        self.pacing = pacing;
    }
}
