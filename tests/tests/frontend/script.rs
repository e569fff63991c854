//! A front-end under test, and a back-end that follows a script in a thread of its own.

use std::thread::JoinHandle;

use vhost_core::{ProtocolFeatures, VirtioFeatures};
use vhost_std::frontend::Frontend;
use vhost_std::socket::Socket;
use vhost_tests::dialog::{FakeBackend, PATIENCE, Received};
use vhost_tests::wire::feature;

/// Feature bit of packed rings, which the fixtures do not offer.
pub(crate) const RING_PACKED: u64 = 1 << 34;

/// A front-end whose back-end follows `script`. Neither waits for ever for the other.
pub(crate) fn scripted<T: Send + 'static>(
    script: impl FnOnce(FakeBackend) -> T + Send + 'static,
) -> (Frontend, JoinHandle<T>) {
    let (backend, stream) = FakeBackend::pair();
    let mut frontend = Frontend::from_socket(Socket::from(stream));
    frontend.set_timeout(Some(PATIENCE));
    (frontend, std::thread::spawn(move || script(backend)))
}

/// As [`scripted`], with features agreed on before the script begins: all that the fixtures offer and packed rings, these
/// protocol features and no others.
pub(crate) fn agreed<T: Send + 'static>(
    protocol: u64,
    script: impl FnOnce(FakeBackend) -> T + Send + 'static,
) -> (Frontend, JoinHandle<T>) {
    let (mut frontend, thread) = scripted(|backend| {
        backend.serve(16);
        backend.serve(2);
        script(backend)
    });
    let virtio = VirtioFeatures::from_bits_retain(feature::OFFERED | RING_PACKED);
    let protocol = ProtocolFeatures::from_bits_retain(protocol);
    frontend.assume_offer(virtio, protocol);
    frontend.set_protocol_features(protocol).unwrap();
    frontend.set_features(virtio).unwrap();
    (frontend, thread)
}

/// All requests that come until the front-end goes away, each answered by `answer`.
pub(crate) fn until_closed(backend: &FakeBackend, mut answer: impl FnMut(&Received)) -> Vec<Received> {
    let mut all = Vec::new();
    while let Some(request) = backend.try_receive().unwrap() {
        answer(&request);
        all.push(request);
    }
    all
}

/// Has the front-end end, and takes what the script gives.
pub(crate) fn finish<T>(frontend: Frontend, thread: JoinHandle<T>) -> T {
    drop(frontend);
    thread.join().unwrap()
}
