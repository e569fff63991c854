//! Everything that is public.

mod features;
mod gpu;
mod machines;
mod messages;
mod rings;
mod std_traits;
mod traits;
mod uapi;
