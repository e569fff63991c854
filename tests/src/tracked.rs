//! Handles that count their own drops: what the machines pass through in the place of file descriptors.

use core::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

/// Makes [`Token`]s and knows what became of each.
#[derive(Clone, Default)]
pub struct Ledger {
    // For each token, in the order of their making, how often it was dropped.
    drops: Arc<Mutex<Vec<usize>>>,
}

/// A handle that tells its ledger when it is dropped. It cannot be copied, like a descriptor.
pub struct Token {
    number: usize,
    ledger: Ledger,
}

impl Ledger {
    /// Nothing made yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A new token.
    pub fn token(&self) -> Token {
        let mut drops = self.lock();
        drops.push(0);
        Token { number: drops.len() - 1, ledger: self.clone() }
    }

    /// That many new tokens.
    pub fn tokens(&self, count: usize) -> Vec<Token> {
        (0..count).map(|_| self.token()).collect()
    }

    /// How many were made.
    pub fn made(&self) -> usize {
        self.lock().len()
    }

    /// How many of them were dropped.
    pub fn dropped(&self) -> usize {
        self.lock().iter().filter(|&&drops| drops > 0).count()
    }

    /// The numbers of the tokens that still exist, or were forgotten.
    pub fn open(&self) -> Vec<usize> {
        self.numbers(|drops| drops == 0)
    }

    /// Fails unless every token was dropped, and none twice.
    #[track_caller]
    pub fn assert_settled(&self) {
        self.assert_open(0);
    }

    /// Fails unless exactly `count` tokens still exist, and none was dropped twice.
    #[track_caller]
    pub fn assert_open(&self, count: usize) {
        let twice = self.numbers(|drops| drops > 1);
        assert!(twice.is_empty(), "tokens {twice:?} were dropped more than once: {self:?}");
        let open = self.open();
        assert!(open.len() == count, "{count} tokens should be open, these are: {open:?}: {self:?}");
    }

    fn numbers(&self, which: impl Fn(usize) -> bool) -> Vec<usize> {
        self.lock().iter().enumerate().filter(|&(_, &drops)| which(drops)).map(|(number, _)| number).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<usize>> {
        // A poisoned ledger belongs to a test that fails anyway, and drops must not panic on its way out.
        self.drops.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn record_drop(&self, number: usize) {
        self.lock()[number] += 1;
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} made, {} dropped", self.made(), self.dropped())
    }
}

impl Token {
    /// Its number in the order of making, from 0.
    pub fn number(&self) -> usize {
        self.number
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.ledger.record_drop(self.number);
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number && Arc::ptr_eq(&self.ledger.drops, &other.ledger.drops)
    }
}

impl Eq for Token {}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Token({})", self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_is_settled_when_all_tokens_are_dropped() {
        let ledger = Ledger::new();
        let mut tokens = ledger.tokens(3);
        let last = tokens.pop().unwrap();
        drop(tokens);
        assert_eq!((ledger.made(), ledger.dropped(), ledger.open()), (3, 2, vec![last.number()]));
        ledger.assert_open(1);
        drop(last);
        ledger.assert_settled();
    }

    #[test]
    #[should_panic(expected = "0 tokens should be open, these are: [1]")]
    fn a_forgotten_token_is_found() {
        let ledger = Ledger::new();
        drop(ledger.token());
        core::mem::forget(ledger.token());
        ledger.assert_settled();
    }

    #[test]
    #[should_panic(expected = "tokens [0] were dropped more than once")]
    fn a_second_drop_is_found() {
        let ledger = Ledger::new();
        drop(ledger.token());
        // What a second drop by unsound code would do.
        ledger.record_drop(0);
        ledger.assert_settled();
    }

    #[test]
    fn tokens_of_two_ledgers_differ() {
        let ledger = Ledger::new();
        let (first, second) = (ledger.token(), ledger.token());
        assert_ne!(first, second);
        assert_ne!(first, Ledger::new().token());
        assert_eq!(first, first);
    }
}
