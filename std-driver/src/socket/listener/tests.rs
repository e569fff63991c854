use core::time::Duration;
use std::fs;
use std::os::unix::net::{UnixDatagram, UnixListener};

use super::*;
use crate::socket::Received;

/// A directory of its own for one test, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let name = format!("vhost-listener-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("socket")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn passed() -> Deadline {
    Deadline::after(Duration::ZERO)
}

fn occupant(path: &Path) -> Occupant {
    match Listener::bind(path).unwrap_err() {
        ListenError::Occupied { occupant, path: at } => {
            assert_eq!(at, path);
            occupant
        }
        error @ ListenError::System(_) => panic!("{error}"),
    }
}

#[test]
fn a_connection_is_accepted_and_carries_data() {
    let directory = Directory::new("accept");
    let listener = Listener::bind(directory.socket()).unwrap();
    assert!(listener.try_accept().unwrap().is_none());
    assert_eq!(listener.accept(passed()).unwrap_err(), SocketError::TimedOut);
    let near = Socket::connect(directory.socket(), passed()).unwrap();
    let far = listener.accept(Deadline::NEVER).unwrap();
    for socket in [&near, &far] {
        let flags = rustix::io::fcntl_getfd(socket).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    }
    near.send(b"hello", &[], Deadline::NEVER).unwrap();
    let received = far.receive(&mut [0; 8], Deadline::NEVER).unwrap();
    assert!(matches!(received, Received::Data { bytes: 5, .. }));
}

#[test]
fn dropping_removes_the_path() {
    let directory = Directory::new("drop");
    let listener = Listener::bind(directory.socket()).unwrap();
    assert_eq!(listener.path(), Some(directory.socket().as_path()));
    drop(listener);
    assert!(!directory.socket().exists());
}

#[test]
fn dropping_leaves_what_somebody_else_has_put_there() {
    let directory = Directory::new("replaced");
    let path = directory.socket();
    let listener = Listener::bind(&path).unwrap();
    fs::rename(&path, directory.0.join("aside")).unwrap();
    let other = UnixListener::bind(&path).unwrap();
    drop(listener);
    assert!(path.exists());
    drop(other);
}

#[test]
fn a_dead_socket_is_replaced() {
    let directory = Directory::new("dead");
    let path = directory.socket();
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listener = Listener::bind(&path).unwrap();
    let _near = Socket::connect(&path, passed()).unwrap();
    listener.accept(passed()).unwrap();
}

#[test]
fn a_living_socket_is_left_alone_and_sees_no_connection() {
    let directory = Directory::new("living");
    let path = directory.socket();
    let first = Listener::bind(&path).unwrap();
    assert_eq!(occupant(&path), Occupant::LivingSocket);
    assert!(first.try_accept().unwrap().is_none());
    let _near = Socket::connect(&path, passed()).unwrap();
    assert!(first.try_accept().unwrap().is_some());
}

#[test]
fn a_socket_that_is_bound_but_not_listening_yet_is_living() {
    let directory = Directory::new("early");
    let path = directory.socket();
    let early = new_socket(SocketType::STREAM).unwrap();
    rustix::net::bind(&early, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    assert_eq!(occupant(&path), Occupant::LivingSocket);
}

#[test]
fn sockets_of_other_kinds_and_other_files_are_left_alone() {
    let directory = Directory::new("kinds");
    let path = directory.socket();
    let datagram = UnixDatagram::bind(&path).unwrap();
    assert_eq!(occupant(&path), Occupant::LivingSocket);
    drop(datagram);
    let file = directory.0.join("file");
    fs::write(&file, "data").unwrap();
    assert_eq!(occupant(&file), Occupant::OtherFile);
    assert_eq!(fs::read(&file).unwrap(), b"data");
    let link = directory.0.join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(occupant(&link), Occupant::OtherFile);
}

#[test]
fn a_path_that_cannot_be_bound_names_the_reason() {
    let directory = Directory::new("reasons");
    let error = |path: PathBuf| match Listener::bind(path).unwrap_err() {
        ListenError::System(error) => error,
        error @ ListenError::Occupied { .. } => panic!("{error}"),
    };
    let (call, errno) = ("bind", Errno::NOENT);
    assert_eq!(error(directory.0.join("none/socket")), SystemError { call, errno });
    assert_eq!(error(PathBuf::new()), SystemError { call, errno });
    let (call, errno) = ("bind", Errno::NAMETOOLONG);
    assert_eq!(error(directory.0.join("x".repeat(108))), SystemError { call, errno });
}

#[test]
fn an_inherited_listener_accepts_without_blocking_and_keeps_its_path() {
    let directory = Directory::new("inherited");
    let path = directory.socket();
    let inherited = UnixListener::bind(&path).unwrap();
    let listener = Listener::from_descriptor(inherited.into()).unwrap();
    assert!(listener.try_accept().unwrap().is_none());
    let _near = Socket::connect(&path, passed()).unwrap();
    listener.accept(passed()).unwrap();
    assert_eq!(listener.path(), None);
    drop(listener);
    assert!(path.exists());
}

#[test]
fn connecting_says_what_is_missing() {
    let directory = Directory::new("missing");
    let path = directory.socket();
    let failure = |outcome: Result<Socket, SocketError>| match outcome.unwrap_err() {
        SocketError::System(error) => (error.call, error.errno),
        error => panic!("{error}"),
    };
    for connect in [Socket::connect, Socket::connect_when_ready] {
        assert_eq!(failure(connect(&path, passed())), ("connect", Errno::NOENT));
    }
    drop(UnixListener::bind(&path).unwrap());
    for connect in [Socket::connect, Socket::connect_when_ready] {
        assert_eq!(failure(connect(&path, passed())), ("connect", Errno::CONNREFUSED));
    }
}

#[test]
fn connecting_when_ready_waits_for_the_listener() {
    let directory = Directory::new("ready");
    let path = directory.socket();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| Socket::connect_when_ready(&path, Deadline::NEVER));
        // Right in either order: if the listener is there first, the first attempt succeeds.
        let listener = Listener::bind(&path).unwrap();
        let far = listener.accept(Deadline::NEVER).unwrap();
        let near = waiting.join().unwrap().unwrap();
        near.send(b"x", &[], Deadline::NEVER).unwrap();
        assert!(far.receive(&mut [0; 8], Deadline::NEVER).is_ok());
    });
}

#[test]
fn connecting_to_a_full_queue_times_out_and_leaves_no_limit_behind() {
    let directory = Directory::new("full");
    let path = directory.socket();
    let listener = new_socket(SocketType::STREAM).unwrap();
    rustix::net::bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let first = Socket::connect(&path, Deadline::after(Duration::from_secs(3600))).unwrap();
    let timeout = rustix::net::sockopt::Timeout::Send;
    assert_eq!(rustix::net::sockopt::socket_timeout(&first, timeout), Ok(None));
    let soon = Deadline::after(Duration::from_millis(5));
    assert_eq!(Socket::connect(&path, soon).unwrap_err(), SocketError::TimedOut);
}
