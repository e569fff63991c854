//! A descriptor that is counted.

use core::cell::Cell;

thread_local! {
    static ALIVE: Cell<usize> = const { Cell::new(0) };
}

/// Stands for a descriptor; must be dropped exactly once, wherever it ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Token(());

impl Token {
    /// One more.
    pub fn new() -> Self {
        ALIVE.set(ALIVE.get() + 1);
        Self(())
    }
}

impl Default for Token {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        ALIVE.set(ALIVE.get().checked_sub(1).expect("a descriptor was closed twice"));
    }
}

/// How many there are on this thread.
pub fn alive() -> usize {
    ALIVE.get()
}
