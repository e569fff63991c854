//! A guest gets its random numbers from our entropy source.

use vhost_tests::guest::Guest;

use crate::machine::GUEST_LIMIT;
use vhost_tests::program::Daemon;

const READ_TWICE: &str = r#"
echo "current $(cat /sys/class/misc/hw_random/rng_current)"
dd if=/dev/hwrng of=/first bs=4096 count=16 iflag=fullblock
dd if=/dev/hwrng of=/second bs=4096 count=16 iflag=fullblock
echo "first $(wc -c </first)"
echo "second $(wc -c </second)"
if cmp -s /first /second; then echo "contents equal"; else echo "contents differ"; fi
echo "compressed $(gzip -9 </first | wc -c)"
"#;

#[test]
fn a_guest_reads_random_numbers() {
    let Some(guest) = Guest::find() else { return };
    let daemon = Daemon::start("rng", []);
    let guest = guest.module("virtio_rng").vhost_user("vhost-user-rng-pci", &daemon.socket());
    let report = guest.boot(READ_TWICE).finish(GUEST_LIMIT);
    assert_eq!(report.status, 0);
    assert_eq!(report.value("current"), "virtio_rng.0");
    assert_eq!((report.value("first"), report.value("second")), ("65536", "65536"));
    assert_eq!(report.value("contents"), "differ");
    let compressed: u32 = report.value("compressed").parse().unwrap();
    assert!(compressed > 65_000, "65536 random bytes were compressed to {compressed}");
    daemon.end();
}
