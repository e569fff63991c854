//! Memory is plugged into a guest, used for its disk's buffers, and unplugged, while the disk is used all the time.

use serde_json::json;
use vhost_tests::dialog::Speaker;
use vhost_tests::guest::Guest;
use vhost_tests::program::require;
use vhost_tests::wire::{Layout, feature};

use crate::disk::{Disk, GUEST_LIMIT};

const MEBIBYTE: u64 = 1 << 20;

/// Ids of requests.
const SET_MEM_TABLE: u32 = 5;
const SET_PROTOCOL_FEATURES: u32 = 16;
const GET_MAX_MEM_SLOTS: u32 = 36;
const ADD_MEM_REG: u32 = 37;
const REM_MEM_REG: u32 = 38;

/// What is plugged in: one memory block of Linux on x86-64.
const PLUGGED: u64 = 128 * MEBIBYTE;

/// The file that fills memory, which lies in the plugged module as far as it has room, because Linux takes pages that can be
/// moved from there first.
const FILE: u64 = 24 * MEBIBYTE;

#[test]
fn memory_is_plugged_in_and_out_while_a_guest_uses_its_disk() {
    let (Some(guest), Some(mkfs)) = (Guest::find(), require("mkfs.ext4")) else { return };
    let disk = Disk::serve(128, 1);
    let guest = guest.memory(224).hot_plug(4, 1024).kernel_arguments("memhp_default_state=online_movable");
    let guest = guest.module("virtio_blk").program(&mkfs).vhost_user("vhost-user-blk-pci,num-queues=1", &disk.socket());

    let mut booted = guest.boot(SCRIPT);
    booted.wait_for_line("runs", GUEST_LIMIT);
    let added_at_first = disk.relay.count(Speaker::Frontend, ADD_MEM_REG, |_| true);
    assert_eq!(disk.touched().len(), 1);
    let mut monitor = booted.monitor();
    monitor.execute(
        "object-add",
        json!({ "qom-type": "memory-backend-memfd", "id": "module", "size": PLUGGED, "share": true }),
    );
    monitor.execute("device_add", json!({ "driver": "pc-dimm", "id": "slot", "memdev": "module" }));
    booted.wait_for_line("filled", GUEST_LIMIT);

    let added = disk.relay.messages(Speaker::Frontend, ADD_MEM_REG).split_off(added_at_first);
    let [added] = &added[..] else { panic!("one region was added: {added:?}") };
    let added = added.fields(Layout::SingleRegion);
    assert_eq!(added.number("size"), PLUGGED);
    let touched = disk.touched();
    assert_eq!(touched.len(), 2, "memory in {touched:?}");
    assert!(touched[1] >= FILE / 2, "the back-end read into {} bytes of the module", touched[1]);

    monitor.execute("device_del", json!({ "id": "slot" }));
    while monitor.wait_for_event("DEVICE_DELETED")["device"] != "slot" {}
    monitor.execute("object-del", json!({ "id": "module" }));
    booted.wait_for_line("unplugged", GUEST_LIMIT);
    let removed = disk.relay.messages(Speaker::Frontend, REM_MEM_REG);
    let removed = removed.last().unwrap().fields(Layout::SingleRegion);
    for field in ["guest_address", "size", "user_address"] {
        assert_eq!(removed.number(field), added.number(field), "{field}");
    }
    assert_eq!(disk.touched().len(), 1, "the module's file is let go");
    let report = booted.finish(GUEST_LIMIT);

    assert_eq!(report.status, 0, "the script's status");
    assert!(!report.console.contains("I/O error"), "the guest complains of its disk:\n{}", report.console);
    let plugged = report.value("plugged").parse::<u64>().unwrap() << 10;
    assert!(plugged >= PLUGGED, "the guest has {plugged} bytes more");
    for moment in ["alone", "with-module", "without-module"] {
        assert_eq!(report.value(&format!("sum-{moment}")), report.value("sum"), "{moment}");
    }
    assert!(report.value("rounds").parse::<u32>().unwrap() >= 3, "the other reader went on all the time");
    assert_eq!(disk.relay.count(Speaker::BackendReplying, ADD_MEM_REG, |reply| reply.number() != 0), 0);
    assert_eq!(disk.relay.count(Speaker::BackendReplying, REM_MEM_REG, |reply| reply.number() != 0), 0);
    let features = disk.relay.messages(Speaker::Frontend, SET_PROTOCOL_FEATURES);
    assert!(features.iter().all(|message| message.number() & feature::CONFIGURE_MEM_SLOTS != 0));
    assert_eq!(disk.relay.count(Speaker::BackendReplying, GET_MAX_MEM_SLOTS, |reply| reply.number() == 509), 1);
    assert_eq!(disk.relay.count(Speaker::Frontend, SET_MEM_TABLE, |_| true), 0);
    disk.end();
}

/// Beside it all, another reader compares a MiB behind the file system with what was written there, past the page cache.
const SCRIPT: &str = r#"
dd if=/dev/urandom of=/noise bs=64k count=16
dd if=/noise of=/dev/vda bs=64k seek=1600 oflag=direct
(
    rounds=0
    while [ ! -e /stop ]; do
        dd if=/dev/vda of=/again bs=64k skip=1600 count=16 iflag=direct
        cmp /noise /again
        rounds=$((rounds + 1))
        echo $rounds >/rounds
    done
    touch /stopped
) &
total() { awk '/^MemTotal:/ { print $2 }' /proc/meminfo; }
blocks() { grep -l online /sys/devices/system/memory/memory*/state | wc -l; }
sum() { md5sum </disk/file | cut -d ' ' -f 1; }
forget() { echo 3 >/proc/sys/vm/drop_caches; }
total=$(total)
blocks=$(blocks)

mkfs.ext4 -q /dev/vda 64M
mkdir /disk
mount -t ext4 /dev/vda /disk
part=0
while [ $part -lt 24 ]; do
    echo $part
    cat /noise
    part=$((part + 1))
done >/disk/file
sync
echo "sum $(sum)"
forget
echo "sum-alone $(sum)"
forget
echo runs
while [ $(blocks) -eq $blocks ]; do usleep 20000; done
echo "plugged $(($(total) - total))"
echo "sum-with-module $(sum)"
echo filled
while [ $(blocks) -ne $blocks ]; do usleep 20000; done
echo unplugged
forget
echo "sum-without-module $(sum)"
touch /stop
wait
test -e /stopped
echo "rounds $(cat /rounds)"
umount /disk
"#;
