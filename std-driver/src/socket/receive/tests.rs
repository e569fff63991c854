use core::time::Duration;
use std::fs;
use std::io::IoSlice;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_getfd};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::*;

/// A file that can be recognised by its name among the descriptors of the process.
fn file(name: &str) -> OwnedFd {
    memfd_create(name, MemfdFlags::CLOEXEC).unwrap()
}

/// How many descriptors of this process are the file of `name`, whatever other tests open.
fn open_count(name: &str) -> usize {
    let wanted = format!("/memfd:{name} (deleted)");
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    let targets = entries.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    targets.filter(|target| target.as_os_str() == wanted.as_str()).count()
}

/// Sends without the limit that `Socket::send` has.
fn send_raw(socket: &Socket, bytes: &[u8], handles: &[BorrowedFd<'_>]) {
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(handles)));
    let vector = [IoSlice::new(bytes)];
    let sent = rustix::net::sendmsg(socket, &vector, &mut control, SendFlags::empty());
    assert_eq!(sent, Ok(bytes.len()));
}

fn passed() -> Deadline {
    Deadline::after(Duration::ZERO)
}

/// The bytes and the number of descriptors of the next read.
fn next(socket: &Socket, room: usize) -> (Vec<u8>, usize) {
    let mut buffer = vec![0; room];
    match socket.receive(&mut buffer, passed()).unwrap() {
        Received::Data { bytes, handles } => (buffer[..bytes].to_vec(), handles.len()),
        Received::EndOfStream => (Vec::new(), 0),
    }
}

#[test]
fn reads_are_cut_where_the_buffer_ends() {
    let (near, far) = Socket::pair().unwrap();
    near.send(b"abcdefgh", &[near.as_fd(), far.as_fd()], passed()).unwrap();
    assert_eq!(next(&far, 1), (b"a".to_vec(), 2));
    assert_eq!(next(&far, 3), (b"bcd".to_vec(), 0));
    assert_eq!(next(&far, 100), (b"efgh".to_vec(), 0));
    assert_eq!(far.receive(&mut [0; 8], passed()).unwrap_err(), SocketError::TimedOut);
}

#[test]
fn descriptors_end_a_read_ahead() {
    let (near, far) = Socket::pair().unwrap();
    let handles = [near.as_fd(), far.as_fd()];
    near.send(b"A", &[], passed()).unwrap();
    near.send(b"B", &handles[..1], passed()).unwrap();
    near.send(b"C", &[], passed()).unwrap();
    near.send(b"D", &handles, passed()).unwrap();
    near.send(b"E", &[], passed()).unwrap();
    near.send(b"F", &[], passed()).unwrap();
    assert_eq!(next(&far, 100), (b"AB".to_vec(), 1));
    assert_eq!(next(&far, 100), (b"CD".to_vec(), 2));
    assert_eq!(next(&far, 100), (b"EF".to_vec(), 0));
}

#[test]
fn received_descriptors_are_close_on_exec_and_closed_when_dropped() {
    let name = "vhost-receive-owned";
    let (near, far) = Socket::pair().unwrap();
    let sent = file(name);
    near.send(b"x", &[sent.as_fd(); 4], passed()).unwrap();
    drop(sent);
    let received = far.receive(&mut [0; 8], passed()).unwrap();
    let Received::Data { mut handles, .. } = received else {
        panic!("nothing came");
    };
    assert_eq!((handles.len(), open_count(name)), (4, 4));
    let first = handles.next().unwrap();
    assert!(fcntl_getfd(&first).unwrap().contains(FdFlags::CLOEXEC));
    assert_eq!(handles.len(), 3);
    for handle in handles.by_ref().take(2) {
        assert!(fcntl_getfd(&handle).unwrap().contains(FdFlags::CLOEXEC));
    }
    assert_eq!(open_count(name), 2);
    drop(handles);
    assert_eq!(open_count(name), 1);
    drop(first);
    assert_eq!(open_count(name), 0);
}

#[test]
fn an_iterator_of_descriptors_ends_and_stays_ended() {
    let mut handles = ReceivedHandles::default();
    assert!(handles.next().is_none());
    let (near, _far) = Socket::pair().unwrap();
    for _ in 0..MAX_HANDLES {
        handles.push(near.as_fd().try_clone_to_owned().unwrap());
    }
    assert_eq!(handles.by_ref().count(), MAX_HANDLES);
    assert!(handles.next().is_none());
    assert_eq!(handles.len(), 0);
}

#[test]
fn too_many_descriptors_are_refused_and_all_closed() {
    for count in [9, 10, 20, 253] {
        let name = format!("vhost-receive-{count}");
        let (near, far) = Socket::pair().unwrap();
        let sent = file(&name);
        send_raw(&near, b"xyz", &vec![sent.as_fd(); count]);
        drop(sent);
        let error = far.receive(&mut [0; 8], passed()).unwrap_err();
        let SocketError::TooManyReceived { received } = error else {
            panic!("{count} gave {error:?}");
        };
        assert!(received > MAX_HANDLES && received <= count, "{count} gave {received}");
        assert_eq!(open_count(&name), 0);
        // What is left cannot be told from the lost message, and the socket says so.
        assert!(far.is_receiving_broken());
        let again = far.try_receive(&mut [0; 8]);
        assert_eq!(again.unwrap_err(), SocketError::ReceivingBroken);
    }
}

#[test]
fn lost_descriptors_are_an_error_and_the_others_closed() {
    const ROOM_FOR_TWO: usize = rustix::cmsg_space!(ScmRights(2));
    let name = "vhost-receive-lost";
    let (near, far) = Socket::pair().unwrap();
    let sent = file(name);
    near.send(b"x", &[sent.as_fd(); 8], passed()).unwrap();
    drop(sent);
    let lost = far.receive_once::<ROOM_FOR_TWO>(&mut [0; 8], RecvFlags::DONTWAIT);
    let Err(SocketError::HandlesLost { received }) = lost else {
        panic!("{lost:?}");
    };
    assert!((2..8).contains(&received), "{received}");
    assert_eq!(open_count(name), 0);
    assert!(far.is_receiving_broken());
}

#[test]
fn a_control_message_without_descriptors_is_taken_for_none() {
    let (near, far) = Socket::pair().unwrap();
    send_raw(&near, b"abc", &[]);
    assert_eq!(next(&far, 8), (b"abc".to_vec(), 0));
}

#[test]
fn foreign_control_messages_are_ignored() {
    let (near, far) = Socket::pair().unwrap();
    rustix::net::sockopt::set_socket_passcred(&far, true).unwrap();
    near.send(b"abc", &[near.as_fd(); MAX_HANDLES], passed()).unwrap();
    assert_eq!(next(&far, 8), (b"abc".to_vec(), MAX_HANDLES));
}

#[test]
fn the_end_of_the_stream_comes_after_the_data() {
    let (near, far) = Socket::pair().unwrap();
    near.send(b"last", &[], passed()).unwrap();
    drop(near);
    assert_eq!(next(&far, 8), (b"last".to_vec(), 0));
    for _ in 0..2 {
        let end = far.receive(&mut [0; 8], Deadline::NEVER).unwrap();
        assert!(matches!(end, Received::EndOfStream));
    }
    let end = far.try_receive(&mut [0; 8]).unwrap();
    assert!(matches!(end, Some(Received::EndOfStream)));
}

#[test]
fn an_end_with_our_data_unread_is_an_error_that_names_the_call() {
    let (near, far) = Socket::pair().unwrap();
    far.send(b"unread", &[], passed()).unwrap();
    drop(near);
    let error = far.receive(&mut [0; 8], Deadline::NEVER).unwrap_err();
    let (call, errno) = ("recvmsg", Errno::CONNRESET);
    assert_eq!(error, SystemError { call, errno }.into());
}

#[test]
fn an_empty_buffer_is_refused_and_loses_nothing() {
    let (near, far) = Socket::pair().unwrap();
    near.send(b"kept", &[], passed()).unwrap();
    let refused = far.receive(&mut [], Deadline::NEVER).unwrap_err();
    assert_eq!(refused, SocketError::NoRoom);
    assert_eq!(next(&far, 8), (b"kept".to_vec(), 0));
}

#[test]
fn a_deadline_and_its_absence_work_in_both_modes() {
    for non_blocking in [false, true] {
        let (near, far) = Socket::pair().unwrap();
        rustix::io::ioctl_fionbio(&far, non_blocking).unwrap();
        assert!(far.try_receive(&mut [0; 8]).unwrap().is_none());
        let deadline = Deadline::after(Duration::from_millis(5));
        let late = far.receive(&mut [0; 8], deadline).unwrap_err();
        assert_eq!(late, SocketError::TimedOut);
        for limit in [Deadline::NEVER, Deadline::after(Duration::from_secs(3600))] {
            thread::scope(|scope| {
                let waiting = scope.spawn(|| far.receive(&mut [0; 8], limit));
                near.send(b"now", &[], passed()).unwrap();
                let received = waiting.join().unwrap().unwrap();
                assert!(matches!(received, Received::Data { bytes: 3, .. }));
            });
        }
    }
}

#[test]
fn bytes_alone_come_as_they_are_and_end_as_they_do() {
    let (near, far) = Socket::pair().unwrap();
    let mut buffer = [0; 4];
    assert_eq!(far.receive_bytes(&mut buffer, passed()), Err(SocketError::TimedOut));
    assert_eq!(far.receive_bytes(&mut [], passed()), Err(SocketError::NoRoom));
    near.send(b"abcdef", &[], passed()).unwrap();
    assert_eq!(far.receive_bytes(&mut buffer, passed()), Ok(4));
    assert_eq!(&buffer, b"abcd");
    assert_eq!(far.receive_bytes(&mut buffer, Deadline::NEVER), Ok(2));
    drop(near);
    assert_eq!(far.receive_bytes(&mut buffer, Deadline::NEVER), Ok(0));
}

/// Waits until a thread, as `/proc/thread-self` names it, sleeps; so long that only one that never does meets the limit.
fn wait_until_asleep(thread: &Path) {
    let start = Instant::now();
    loop {
        let stat = fs::read_to_string(Path::new("/proc").join(thread).join("stat")).unwrap();
        // Its state comes behind its name, which is in parentheses.
        if stat.rsplit_once(')').unwrap().1.starts_with(" S") {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "{stat}");
        thread::yield_now();
    }
}

#[test]
fn bytes_are_waited_for_asleep_on_a_socket_in_either_mode() {
    for blocking in [true, false] {
        let (near, far) = Socket::pair().unwrap();
        rustix::io::ioctl_fionbio(&far, !blocking).unwrap();
        // A failure drops the near end, which ends the wait.
        thread::scope(move |scope| {
            let (told, tell) = mpsc::channel();
            let waiting = scope.spawn(move || {
                told.send(fs::read_link("/proc/thread-self").unwrap()).unwrap();
                far.receive_bytes(&mut [0; 8], Deadline::NEVER)
            });
            wait_until_asleep(&tell.recv().unwrap());
            near.send(b"x", &[], passed()).unwrap();
            assert_eq!(waiting.join().unwrap(), Ok(1));
        });
    }
}

#[test]
fn descriptors_that_come_with_bytes_alone_are_closed() {
    let name = "vhost-receive-bytes";
    let (near, far) = Socket::pair().unwrap();
    let sent = file(name);
    near.send(b"x", &[sent.as_fd(); 4], passed()).unwrap();
    drop(sent);
    assert_eq!(far.receive_bytes(&mut [0; 8], passed()), Ok(1));
    assert_eq!(open_count(name), 0);
    near.send(b"y", &[], passed()).unwrap();
    assert_eq!(next(&far, 8), (b"y".to_vec(), 0));
}
