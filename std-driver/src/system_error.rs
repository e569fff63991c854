//! A system call that failed: which one, and why.

use core::fmt;

use rustix::io::Errno;

/// A system call that failed.
///
/// The text is `call: reason`, for example `recvmsg: Connection reset by peer (os error 104)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemError {
    /// Name of the system call, as its manual page has it.
    pub call: &'static str,
    /// What the kernel answered.
    pub errno: Errno,
}

impl SystemError {
    /// The function that turns an errno of `call` into this error, for `map_err`.
    pub(crate) fn of(call: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self { call, errno }
    }
}

impl fmt::Display for SystemError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.call, self.errno)
    }
}

impl core::error::Error for SystemError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_the_call_and_the_reason() {
        let error = SystemError::of("recvmsg")(Errno::CONNRESET);
        assert_eq!(error.to_string(), "recvmsg: Connection reset by peer (os error 104)");
    }
}
