//! How much memory idle devices take.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use vhost_std::entropy::EntropyDevice;
use vhost_std::server::{BackendServer, RingThreads, ServerOptions};
use vhost_std::socket::Socket;

/// Keeps so many devices of one queue, each with a front-end that says nothing, until the standard input ends.
pub(crate) fn serve(devices: usize) {
    let mut kept = Vec::new();
    for _ in 0..devices {
        let mut options = ServerOptions::default();
        options.threads = RingThreads::Caller;
        let device = Arc::new(EntropyDevice::open(Path::new("/dev/urandom")).unwrap());
        let server = Box::leak(Box::new(BackendServer::new(device, options).unwrap()));
        let (near, far) = Socket::pair().unwrap();
        let mut connection = server.connect(far);
        let _ = connection.process().unwrap();
        kept.push((near, connection));
    }
    println!("ready");
    drop(std::io::stdin().read(&mut [0]));
}

/// Prints a table.
pub(crate) fn print() {
    println!("| idle devices in a process | resident KiB |");
    println!("| ------------------------: | -----------: |");
    let resident = Vec::from_iter([1, 1000].map(|devices| {
        let kibibytes = resident(devices);
        println!("| {devices} | {kibibytes} |");
        kibibytes
    }));
    println!("\nKiB for one more device: {:.1}", (resident[1] - resident[0]) as f64 / 999.0);
}

fn resident(devices: usize) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    // Each device takes several descriptors.
    let mut child = Command::new("sh");
    child.args(["-c", "ulimit -n 20000; exec \"$0\" idle \"$1\""]).arg(command.get_program()).arg(devices.to_string());
    command = child;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kibibytes = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    drop(child.stdin.take());
    child.wait().unwrap();
    kibibytes
}
