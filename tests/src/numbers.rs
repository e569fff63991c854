//! Numbers that look random and are the same in every run.

/// A generator (xorshift, 64 bits).
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// Starts anew for each seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds should not begin alike.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next one, never zero.
    #[expect(clippy::should_implement_trait, reason = "it has no end")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// 0 to `bound` - 1.
    pub fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }
}
