//! A guest with an IOMMU uses our disks by addresses of its own, which QEMU translates for the back-end when it asks.

use vhost_tests::dialog::{Relay, Speaker};
use vhost_tests::guest::Guest;
use vhost_tests::wire::{Layout, Message, feature};

use crate::disk::{Disk, GUEST_LIMIT};

/// Ids of requests: of the front-end, and of the back-end.
const SET_FEATURES: u32 = 2;
const IOTLB_MSG: u32 = 22;
const BACKEND_IOTLB_MSG: u32 = 1;

/// Kinds of messages about translations.
const MISS: u64 = 1;
const UPDATE: u64 = 2;
const INVALIDATE: u64 = 3;

fn is(kind: u64) -> impl Fn(&Message) -> bool {
    move |message| message.fields(Layout::Iotlb).number("type") == kind
}

/// What was said about translations.
#[derive(Debug)]
struct Said {
    misses: usize,
    updates: usize,
    invalidations: usize,
}

impl Said {
    fn over(relay: &Relay) -> Self {
        let refused = relay.count(Speaker::BackendReplying, IOTLB_MSG, |reply| reply.number() != 0);
        assert_eq!(refused, 0, "the back-end refused something");
        Self {
            misses: relay.count(Speaker::Backend, BACKEND_IOTLB_MSG, is(MISS)),
            updates: relay.count(Speaker::Frontend, IOTLB_MSG, is(UPDATE)),
            invalidations: relay.count(Speaker::Frontend, IOTLB_MSG, is(INVALIDATE)),
        }
    }
}

/// Boots a guest that uses its IOMMU in this way; what was said for a disk with split rings, which are so large that they lie
/// scattered over pages, and for one with packed rings.
fn use_disks_behind_iommu(kernel_arguments: &str, kind: &str) -> Option<[Said; 2]> {
    let mut guest = Guest::find()?;
    // It has to be there before the devices behind it.
    guest = guest.arguments(["-device", "intel-iommu,intremap=off,device-iotlb=on"]);
    guest = guest.processors(2).module("virtio_blk").kernel_arguments(kernel_arguments);
    let disks = ["queue-size=1024", "queue-size=128,packed=on"].map(|ring| (Disk::serve(16, 2), ring));
    for (disk, ring) in &disks {
        let device = format!("vhost-user-blk-pci,num-queues=2,{ring},iommu_platform=on,disable-legacy=on,ats=on");
        guest = guest.vhost_user(&device, &disk.socket());
    }

    let report = guest.boot(WRITE_AND_READ).finish(GUEST_LIMIT);

    assert_eq!(report.status, 0, "the script's status");
    assert!(!report.console.contains("I/O error"), "the guest complains of its disk:\n{}", report.console);
    let said = ["vda", "vdb"].into_iter().zip(disks).map(|(name, (disk, ring))| {
        assert_eq!(report.value(&format!("{name} kind")), kind, "{ring}");
        assert_eq!(report.value(&format!("{name} direct")), report.value("sum"), "{ring}");
        assert_eq!(report.value(&format!("{name} cached")), report.value("sum"), "{ring}");
        let said = Said::over(&disk.relay);
        let features = disk.relay.messages(Speaker::Frontend, SET_FEATURES);
        assert_ne!(features.last().unwrap().number() & feature::IOMMU_PLATFORM, 0);
        disk.end();
        said
    });
    let said: [Said; 2] = Vec::from_iter(said).try_into().unwrap();
    for Said { misses, updates, .. } in &said {
        // QEMU tells where used rings are without having been asked.
        assert!(*misses >= 3 && updates >= misses, "{said:?}");
    }
    Some(said)
}

#[test]
fn each_buffer_is_asked_for_and_taken_back() {
    let Some(said) = use_disks_behind_iommu("intel_iommu=on iommu.strict=1", "DMA") else { return };
    for Said { misses, invalidations, .. } in &said {
        assert!(*misses > 100 && *invalidations > 100, "{said:?}");
    }
}

#[test]
fn buffers_are_taken_back_all_at_once() {
    let Some(said) = use_disks_behind_iommu("intel_iommu=on iommu.strict=0", "DMA-FQ") else { return };
    for Said { misses, invalidations, .. } in &said {
        assert!(*misses > 100 && *invalidations >= 1, "{said:?}");
    }
}

#[test]
fn a_guest_may_let_all_addresses_pass() {
    let Some(said) = use_disks_behind_iommu("intel_iommu=on iommu=pt", "identity") else { return };
    for Said { invalidations, .. } in &said {
        assert_eq!(*invalidations, 0, "{said:?}");
    }
}

/// `direct` keeps the page cache out, whose buffers are scattered over pages.
const WRITE_AND_READ: &str = r#"
dd if=/dev/urandom of=/data bs=1M count=4
sum() { md5sum | cut -d ' ' -f 1; }
echo "sum $(sum </data)"
for disk in vda vdb; do
    echo "$disk kind $(cat $(readlink -f /sys/block/$disk/device)/../iommu_group/type)"
    for part in 0 1; do
        taskset -c $part dd if=/data of=/dev/$disk bs=256k skip=$((part * 8)) seek=$((part * 8)) count=8 oflag=direct &
    done
    wait
    for part in 0 1; do
        taskset -c $part dd if=/dev/$disk of=/read$part bs=64k skip=$((part * 32)) count=32 iflag=direct &
    done
    wait
    echo "$disk direct $(cat /read0 /read1 | sum)"
    dd if=/data of=/dev/$disk bs=1M seek=8
    sync
    echo 3 >/proc/sys/vm/drop_caches
    echo "$disk cached $(dd if=/dev/$disk bs=1M skip=8 count=4 | sum)"
done
"#;
