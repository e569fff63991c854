//! The soft back-end: threads of this process, or the caller's.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use vhost_core::VhostBackend;
use vhost_std::soft::{RingThreads, SoftBackend, SoftError};

use crate::driver::Driver;
use crate::subject::{Image, Packed, Subject, wait_for_any};
use crate::suite::suite;

fn backend(image: &Image, queues: u16, threads: RingThreads) -> SoftBackend {
    SoftBackend::new(Arc::new(image.device(queues)), threads).unwrap()
}

#[test]
fn a_vmm_need_not_know_at_compile_time_who_processes_its_rings() {
    let image = Image::new();
    let mut soft = backend(&image, 1, RingThreads::Shared(1));
    let driver = Driver::new(1);
    let mut any: &mut dyn VhostBackend<Handle = dyn AsFd, Memory = dyn AsFd, Error = SoftError> = &mut soft;
    driver.bring_up(&mut any);
    assert_eq!(any.stop_vring(0).unwrap(), driver.queues[0].base());
}

mod one_thread {
    use super::*;

    struct Soft(SoftBackend);

    impl Subject for Soft {
        type Backend = SoftBackend;

        fn start(image: &Image, queues: u16) -> Option<Self> {
            Some(Self(backend(image, queues, RingThreads::Shared(1))))
        }

        fn backend(&mut self) -> &mut SoftBackend {
            &mut self.0
        }
    }

    suite!(Soft);

    mod packed {
        use super::*;

        suite!(Packed<Soft>);
    }
}

mod one_thread_a_queue {
    use super::*;

    struct Soft(SoftBackend);

    impl Subject for Soft {
        type Backend = SoftBackend;

        fn start(image: &Image, queues: u16) -> Option<Self> {
            Some(Self(backend(image, queues, RingThreads::Shared(u16::MAX))))
        }

        fn backend(&mut self) -> &mut SoftBackend {
            &mut self.0
        }
    }

    suite!(Soft);

    mod packed {
        use super::*;

        suite!(Packed<Soft>);
    }
}

mod callers_thread {
    use super::*;

    struct Soft(SoftBackend);

    impl Subject for Soft {
        type Backend = SoftBackend;

        fn start(image: &Image, queues: u16) -> Option<Self> {
            Some(Self(backend(image, queues, RingThreads::Caller)))
        }

        fn backend(&mut self) -> &mut SoftBackend {
            &mut self.0
        }

        fn wait_for(&mut self, descriptor: BorrowedFd<'_>) {
            wait_for_any(&[descriptor, self.0.descriptor().unwrap()]);
            self.work();
        }

        fn work(&mut self) {
            self.0.process().unwrap();
        }
    }

    suite!(Soft);

    mod packed {
        use super::*;

        suite!(Packed<Soft>);
    }
}
