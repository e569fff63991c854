//! The recorded sessions of real programs.

mod bytes;
mod difference;
mod replay;
