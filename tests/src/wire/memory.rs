//! Guest memory and its dirty log.

use super::region::{ADDED, REGIONS, Region};
use super::{Bytes, Fixture, Layout, feature};

/// Bytes of the dirty log: a bit for each page of 4096 bytes up to the end of the last region.
const LOG_SIZE: u64 = 0x14_0000;
/// Where the log begins in its descriptor.
const LOG_OFFSET: u64 = 0x3000;

pub(super) fn requests() -> Vec<Fixture> {
    [tables(), single_regions(), logs()].concat()
}

fn tables() -> Vec<Fixture> {
    let two = &REGIONS[..2];
    let mapped = two.iter().map(|region| region.mapped());
    let mapped = table(Vec::from_iter(mapped.map(Region::plain)));
    let set = |layout, payload| Fixture::new(5, "SET_MEM_TABLE", layout, payload);
    let plain = |regions: &[Region]| {
        let payload = table(regions.iter().map(|region| region.plain()).collect());
        set(Layout::MemoryTable, payload).descriptors(regions.len()).without(feature::XEN_MMAP)
    };
    vec![
        plain(two),
        plain(&REGIONS[..1]).form("one region"),
        plain(&REGIONS).form("eight regions"),
        set(Layout::MemoryTableXen, table(two.iter().map(|region| region.xen()).collect()))
            .form("xen")
            .descriptors(2)
            .gate(feature::XEN_MMAP),
        set(Layout::MemoryTableXen, table(REGIONS.iter().map(|region| region.xen()).collect()))
            .form("xen, eight regions")
            .descriptors(8)
            .gate(feature::XEN_MMAP),
        plain(two).form("postcopy").gate(feature::PAGEFAULT).answer("mapped bases", Layout::MemoryTable, mapped, 0),
        set(Layout::U64, Bytes::new().u64(0)).form("postcopy, bases taken").gate(feature::PAGEFAULT).unanswered(),
    ]
}

fn single_regions() -> Vec<Fixture> {
    let plain = || Bytes::new().padding(8).raw(&ADDED.plain());
    let xen = || Bytes::new().padding(8).raw(&ADDED.xen());
    let add = |layout, payload| Fixture::new(37, "ADD_MEM_REG", layout, payload).gate(feature::CONFIGURE_MEM_SLOTS);
    let remove = |layout, payload| Fixture::new(38, "REM_MEM_REG", layout, payload).gate(feature::CONFIGURE_MEM_SLOTS);
    let mapped = Bytes::new().padding(8).raw(&ADDED.mapped().plain());
    // Peers send either 0 or the offset of the addition here; the receiver must not care.
    let without_offset = Bytes::new().padding(8).raw(&Region { offset: 0, ..ADDED }.plain());
    vec![
        Fixture::new(36, "GET_MAX_MEM_SLOTS", Layout::Empty, Bytes::new()).gate(feature::CONFIGURE_MEM_SLOTS).answer(
            "count",
            Layout::U64,
            Bytes::new().u64(32),
            0,
        ),
        add(Layout::SingleRegion, plain()).descriptors(1).without(feature::XEN_MMAP),
        add(Layout::SingleRegionXen, xen()).form("xen").descriptors(1).gate(feature::XEN_MMAP),
        add(Layout::SingleRegion, plain())
            .form("postcopy")
            .descriptors(1)
            .gate(feature::PAGEFAULT)
            .without(feature::XEN_MMAP)
            .answer("mapped base", Layout::SingleRegion, mapped, 0),
        add(Layout::U64, Bytes::new().u64(0)).form("postcopy, base taken").gate(feature::PAGEFAULT).unanswered(),
        remove(Layout::SingleRegion, plain()).without(feature::XEN_MMAP),
        remove(Layout::SingleRegion, plain()).form("one descriptor too many").descriptors(1).without(feature::XEN_MMAP),
        remove(Layout::SingleRegion, without_offset).form("no offset").without(feature::XEN_MMAP),
        remove(Layout::SingleRegionXen, xen()).form("xen").gate(feature::XEN_MMAP),
    ]
}

fn logs() -> Vec<Fixture> {
    let log = || Bytes::new().u64(LOG_SIZE).u64(LOG_OFFSET);
    vec![
        // Three replies are in use: rust-vmm repeats the log, libvhost-user sends a number that means nothing, DPDK no byte.
        Fixture::new(6, "SET_LOG_BASE", Layout::Log, log())
            .descriptors(1)
            .gate(feature::LOG_SHMFD)
            .answer("the log again", Layout::Log, log(), 0)
            .answer("a number", Layout::U64, Bytes::new().u64(LOG_SIZE), 0)
            .answer("empty", Layout::Empty, Bytes::new(), 0),
        Fixture::new(6, "SET_LOG_BASE", Layout::U64, Bytes::new().u64(0x7f0a_a770_0000))
            .form("an address")
            .without(feature::LOG_SHMFD),
        Fixture::new(7, "SET_LOG_FD", Layout::Empty, Bytes::new()).descriptors(1),
    ]
}

fn table(regions: Vec<Vec<u8>>) -> Bytes {
    let count = u32::try_from(regions.len()).unwrap();
    Bytes::new().u32(count).padding(4).raw(&regions.concat())
}
