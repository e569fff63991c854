//! Answers: refusals that end nothing, what a front-end puts up with, and many requests at once.

mod failed;
mod granted;
mod pipelining;
mod random;
mod refusal;
mod replies;
mod wrong;
