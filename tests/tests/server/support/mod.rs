//! What these tests share: a front-end's words, a back-end that takes one step at a time, devices.

mod bench;
mod dialog;
mod disk;
pub(crate) mod iommu;

pub(crate) use bench::Bench;
pub(crate) use dialog::{Dialog, EVERYTHING, OFFER, id, message, number, state};
pub(crate) use disk::{ALL_THREADS, Image, server, tolerant};
