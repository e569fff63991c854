//! Refusals, ends and reconnections.

use std::fs;

use vhost_core::{FrontendCode, GuestAddress, ProtocolFeatures, RingAddress, VirtioFeatures, wire::vring::VringBase};
use vhost_std::driver::{BlockClient, BlockClientError, BlockClientOptions, BlockQueue, BlockRequest, BlockStatus};
use vhost_std::frontend::{Confirmation, Frontend, FrontendError, Logging, SessionEnd, StoppedRing, VringAddresses};

use crate::daemon::{Access, DISK, Daemon, soon};
use crate::load::{fill_and_read_back, pattern};

/// Sets a ring to where no memory is, which the daemon cannot bear.
fn break_ring(frontend: &mut Frontend) -> Result<(), FrontendError> {
    let [descriptor, available, used] = [0x1000, 0x2000, 0x3000].map(RingAddress);
    frontend.set_vring_num(0, 128)?;
    frontend
        .set_vring_addr(0, &VringAddresses { descriptor, available, used, log: GuestAddress(0), logging: Logging::Off })
}

#[test]
fn what_is_acknowledged_and_then_answered_by_closing_is_blamed_on_the_right_request() {
    let Some(daemon) = Daemon::start(1, Access::ReadWrite) else { return };
    let mut frontend = daemon.connect();
    frontend.negotiate(VirtioFeatures::VERSION_1, ProtocolFeatures::REPLY_ACK).unwrap();
    break_ring(&mut frontend).expect("libvhost-user acknowledges first");
    let FrontendError::Closed(closed) = frontend.get_features().unwrap_err() else { panic!("not closed") };
    assert_eq!(closed.previous, Some(FrontendCode::SET_VRING_ADDR.message()));
    assert_eq!(closed.waiting_for, Some(FrontendCode::GET_FEATURES.message()));
    let later = frontend.get_features().unwrap_err();
    assert!(matches!(later, FrontendError::Ended { end: SessionEnd::Closed, .. }), "{later}");
    // The daemon itself goes on.
    daemon.connect().get_features().unwrap();
}

#[test]
fn a_barrier_blames_a_request_at_once_and_without_one_a_later_call_fails() {
    for confirmation in [Confirmation::Barrier, Confirmation::Acknowledgement] {
        let Some(daemon) = Daemon::start(1, Access::ReadWrite) else { return };
        let mut frontend = daemon.connect();
        frontend.set_confirmation(confirmation);
        frontend.negotiate(VirtioFeatures::VERSION_1, ProtocolFeatures::empty()).unwrap();
        let outcome = break_ring(&mut frontend);
        let broken = Some(FrontendCode::SET_VRING_ADDR.message());
        if confirmation == Confirmation::Barrier {
            let FrontendError::Closed(closed) = outcome.unwrap_err() else { panic!("not closed") };
            assert_eq!(closed.waiting_for, broken);
        } else {
            outcome.unwrap();
            let FrontendError::Closed(closed) = frontend.get_features().unwrap_err() else { panic!("not closed") };
            assert_eq!(closed.previous, broken);
        }
    }
}

#[test]
fn a_device_is_stopped_and_started_again_on_the_same_connection() {
    let Some(daemon) = Daemon::start(2, Access::ReadWrite) else { return };
    let options = BlockClientOptions { queues: 2, ..BlockClientOptions::default() };
    let mut client = daemon.client(options);
    for sector in 0..5 {
        let write = BlockRequest::Write { sector, data: &[0x11; 512] };
        assert_eq!(client.run(1, write, soon()).unwrap().status(), BlockStatus::Ok);
    }
    let stopped = client.frontend_mut().tear_down().unwrap();
    let base = |available| VringBase::Split { available };
    assert_eq!(stopped, [StoppedRing { ring: 0, base: base(0) }, StoppedRing { ring: 1, base: base(5) }]);
    assert!(client.frontend_mut().tear_down().unwrap().is_empty(), "nothing runs any more");

    let mut other = BlockClient::start(client.stop().unwrap(), options).unwrap();
    fill_and_read_back(&mut other);
}

#[test]
fn requests_of_a_daemon_that_was_killed_are_done_by_the_next() {
    let Some(daemon) = Daemon::start(1, Access::ReadWrite) else { return };
    let mut client = daemon.client(BlockClientOptions::default());
    let pieces = 24;
    let expected = pattern(11, pieces * (32 << 10));
    let mut data = expected.chunks(32 << 10).zip((0_u64..).step_by(64));
    let mut submit = |queue: &mut BlockQueue, count| {
        for (data, sector) in data.by_ref().take(count) {
            queue.submit(BlockRequest::Write { sector, data }).unwrap();
        }
    };
    // One that is done, some that may be done, some that the daemon has never seen.
    let queue = &mut client.queues_mut()[0];
    submit(queue, 1);
    assert_eq!(queue.wait(soon()).unwrap().unwrap().ticket(), 0);
    submit(queue, 11);
    queue.publish().unwrap();
    let daemon = daemon.killed_and_started_again(1);
    submit(queue, 12);
    assert_eq!(queue.in_flight(), 23);

    client.reconnect(daemon.connect()).unwrap();
    let mut tickets = Vec::new();
    while client.queues_mut()[0].in_flight() > 0 {
        let completion = client.wait(0, soon()).unwrap();
        assert_eq!(completion.status(), BlockStatus::Ok);
        tickets.push(completion.ticket());
    }
    tickets.sort_unstable();
    assert_eq!(tickets, Vec::from_iter(1..24), "each comes back exactly once");
    assert!(fs::read(daemon.disk()).unwrap()[..expected.len()] == expected);
    assert_eq!(fs::metadata(daemon.disk()).unwrap().len(), DISK);
}

#[test]
fn a_daemon_that_goes_away_ends_a_wait() {
    let Some(daemon) = Daemon::start(1, Access::ReadWrite) else { return };
    let mut client = daemon.client(BlockClientOptions::default());
    let _folder = daemon.kill();
    let error = client.run(0, BlockRequest::Flush, soon()).unwrap_err();
    let BlockClientError::Frontend(FrontendError::Closed(closed)) = error else { panic!("{error}") };
    assert_eq!(closed.waiting_for, None);
    assert_eq!(client.queues_mut()[0].in_flight(), 1);
}

#[test]
fn a_disk_without_enough_queues_is_not_started() {
    let Some(daemon) = Daemon::start(2, Access::ReadWrite) else { return };
    let options = BlockClientOptions { queues: 3, ..BlockClientOptions::default() };
    let error = BlockClient::start(daemon.connect(), options).unwrap_err();
    assert_eq!(error, BlockClientError::TooFewQueues { wanted: 3, found: 2 });
}
