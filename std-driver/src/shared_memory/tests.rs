//! Mappings as the kernel has them.

use core::ffi::c_void;
use core::ptr::NonNull;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, OFlags, memfd_create};
use rustix::io::Errno;
use vhost_core::{CacheAccess, MapChange};
use vhost_tests::program::not_run;

use super::*;
use crate::frontend::BackendRequestHandlerMut;

const PAGE: u64 = 0x1000;
const BOTH: CacheAccess = CacheAccess::READ.union(CacheAccess::WRITE);

/// A file of so many pages, each filled with its number.
fn numbered(pages: u8) -> File {
    let file = tempfile::tempfile().unwrap();
    for page in 0..pages {
        file.write_all_at(&[page; PAGE as usize], u64::from(page) * PAGE).unwrap();
    }
    file
}

fn window(rules: MapRules) -> SharedWindow {
    SharedWindow::new(Reservation::new(16 * PAGE as usize).unwrap(), rules)
}

/// The first byte of each page; `None` where nothing can be read.
fn bytes(window: &SharedWindow) -> Vec<Option<u8>> {
    let byte = |page| {
        let mut byte = [0];
        window.read(page * PAGE, &mut byte).ok().map(|()| byte[0])
    };
    (0..16).map(byte).collect()
}

fn first(pages: &[Option<u8>]) -> Vec<Option<u8>> {
    let mut all = pages.to_vec();
    all.resize(16, None);
    all
}

/// How the kernel has mapped the pages of a window: its lines of `/proc/self/maps`, without addresses.
fn kernel_view(window: &SharedWindow) -> Vec<(u64, String)> {
    let start = window.reservation().start().addr() as u64;
    let end = start + window.reservation().length() as u64;
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let lines = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let [from, to] = [from, to].map(|digits| u64::from_str_radix(digits, 16).unwrap());
        let (from, to) = (from.max(start), to.min(end));
        (from < to).then(|| ((to - from) / PAGE, rest.split(' ').next().unwrap().to_owned()))
    });
    lines.collect()
}

#[test]
fn parts_of_files_appear_and_disappear() {
    let mut window = window(MapRules::Exact);
    let file = numbered(8);
    window.map(PAGE, 2 * PAGE, file.as_fd(), 5 * PAGE, BOTH).unwrap();
    window.map(4 * PAGE, PAGE, file.as_fd(), 0, CacheAccess::READ).unwrap();
    assert_eq!(bytes(&window), first(&[None, Some(5), Some(6), None, Some(0)]));
    window.write(PAGE + 7, &[77]).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 5 * PAGE + 7).unwrap();
    assert_eq!(byte, [77], "it is the file itself");
    let refused = window.write(4 * PAGE, &[1]).unwrap_err();
    assert_eq!(refused.errno(), Errno::FAULT, "{refused}");
    let protections = kernel_view(&window);
    let protections = Vec::from_iter(protections.iter().map(|(pages, protection)| (*pages, &**protection)));
    assert_eq!(protections, [(1, "---p"), (2, "rw-s"), (1, "---p"), (1, "r--s"), (11, "---p")]);
    window.sync(0, 16 * PAGE).unwrap();
    window.unmap(PAGE, 2 * PAGE).unwrap();
    assert_eq!(bytes(&window), first(&[None, None, None, None, Some(0)]));
    window.unmap_all().unwrap();
    assert_eq!(kernel_view(&window), [(16, "---p".to_owned())]);
    assert_eq!(window.mappings().count(), 0);
}

#[test]
fn the_address_space_of_a_caller_is_left_as_it_was() {
    let whole = Reservation::new(16 * PAGE as usize).unwrap();
    let start = NonNull::new(whole.start().cast::<u8>().wrapping_add(4 * PAGE as usize).cast::<c_void>()).unwrap();
    #[allow(unsafe_code, reason = "the promise is made here")]
    // SAFETY: these pages are part of `whole`, which nobody uses meanwhile and which outlives the window.
    let part = unsafe { Reservation::of_caller(start, 4 * PAGE as usize) };
    let mut window = SharedWindow::new(part, MapRules::Replacing);
    window.map(0, 4 * PAGE, numbered(4).as_fd(), 0, BOTH).unwrap();
    let outside = WindowError::OutOfBounds { offset: PAGE, length: 4 * PAGE, size: 4 * PAGE };
    assert_eq!(window.map(PAGE, 4 * PAGE, numbered(4).as_fd(), 0, BOTH), Err(outside));
    let whole = SharedWindow::new(whole, MapRules::Exact);
    let nothing = [None; 4].to_vec();
    assert_eq!(bytes(&whole), [nothing.clone(), [0, 1, 2, 3].map(Some).to_vec(), [None; 8].to_vec()].concat());
    drop(window);
    assert_eq!(bytes(&whole), [None; 16]);
    assert_eq!(kernel_view(&whole), [(16, "---p".to_owned())]);
}

#[test]
fn what_cannot_be_mapped_changes_nothing() {
    let mut window = window(MapRules::Replacing);
    window.map(0, 2 * PAGE, numbered(2).as_fd(), 0, BOTH).unwrap();
    let read_only = rustix::fs::open("/proc/self/exe", OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
    let hostile: [(OwnedFd, CacheAccess, Errno); 8] = [
        (read_only, BOTH, Errno::ACCESS),
        (std::io::pipe().unwrap().0.into(), BOTH, Errno::NODEV),
        (std::os::unix::net::UnixStream::pair().unwrap().0.into(), BOTH, Errno::NODEV),
        (File::open("/").unwrap().into(), CacheAccess::READ, Errno::NODEV),
        (File::open("/dev/zero").unwrap().into(), CacheAccess::READ, Errno::NODEV),
        (crate::eventfd::EventFd::new().unwrap().into(), BOTH, Errno::NODEV),
        (numbered(1).into(), CacheAccess::empty(), Errno::INVAL),
        (numbered(1).into(), CacheAccess::from_bits_retain(1 << 40), Errno::INVAL),
    ];
    for (file, access, errno) in &hostile {
        let refused = window.map(0, PAGE, file.as_fd(), 0, *access).unwrap_err();
        assert_eq!(refused.errno(), *errno, "{refused}");
    }
    let file = numbered(4);
    for (offset, length, file_offset) in [
        (0, 0, 0),
        (PAGE, PAGE, 1),
        (1, PAGE, 0),
        (0, PAGE + 1, 0),
        (0, 17 * PAGE, 0),
        (16 * PAGE, PAGE, 0),
        (!(PAGE - 1), PAGE, 0),
        (0, u64::MAX, 0),
        (0, PAGE, u64::MAX),
        (0, PAGE, !(PAGE - 1)),
        (PAGE, !(PAGE - 1), PAGE),
    ] {
        window.map(offset, length, file.as_fd(), file_offset, BOTH).unwrap_err();
        assert_eq!(bytes(&window), first(&[Some(0), Some(1)]), "{length:#x} of {file_offset:#x} at {offset:#x}");
    }
    assert_eq!(kernel_view(&window).len(), 2);
}

#[test]
fn beyond_the_end_of_a_file_reading_is_refused_and_kills_nobody() {
    let mut window = window(MapRules::Exact);
    let file = numbered(2);
    window.map(0, 4 * PAGE, file.as_fd(), 0, BOTH).unwrap();
    assert_eq!(bytes(&window), first(&[Some(0), Some(1)]));
    file.set_len(0).unwrap();
    assert_eq!(bytes(&window), first(&[]));
    assert_eq!(window.write(0, &[1]).unwrap_err().errno(), Errno::FAULT);
    let mut many = [0; 2 * PAGE as usize];
    assert_eq!(window.read(15 * PAGE, &mut many).unwrap_err().errno(), Errno::INVAL);
    file.set_len(4 * PAGE).unwrap();
    assert_eq!(bytes(&window), first(&[Some(0); 4]));
}

/// As they come in one request: all or none.
#[test]
fn changes_of_one_request_are_carried_out_together() {
    let mut regions = SharedRegions::default();
    assert!(regions.insert(0, window(MapRules::Replacing)).is_none());
    let map = |region, page: u64, length: u64, from: u64| MapChange::Map {
        region,
        offset: page * PAGE,
        length: length * PAGE,
        file_offset: from * PAGE,
        access: BOTH,
    };
    let file = || OwnedFd::from(numbered(8));
    regions.shmem_map(&[map(0, 0, 2, 0), map(0, 4, 1, 7), map(0, 1, 1, 5)], file()).unwrap();
    let before = first(&[Some(0), Some(5), None, None, Some(7)]);
    assert_eq!(bytes(regions.window(0).unwrap()), before);
    for wrong in [map(0, 15, 2, 0), map(3, 0, 1, 0), map(0, 0, 1, u64::MAX >> 12)] {
        regions.shmem_map(&[map(0, 8, 1, 1), wrong], file()).unwrap_err();
        assert_eq!(bytes(regions.window(0).unwrap()), before);
    }
    let unmap = |page: u64, length: u64| MapChange::Unmap { region: 0, offset: page * PAGE, length: length * PAGE };
    regions.shmem_unmap(&[unmap(0, 1), unmap(0, 17)]).unwrap_err();
    assert_eq!(bytes(regions.window(0).unwrap()), before);
    regions.shmem_unmap(&[unmap(1, 3), unmap(8, 8)]).unwrap();
    assert_eq!(bytes(regions.window(0).unwrap()), first(&[Some(0), None, None, None, Some(7)]));
    regions.shmem_unmap(&[MapChange::UnmapAll { region: 0 }]).unwrap();
    assert_eq!(bytes(regions.window(0).unwrap()), first(&[]));
    regions.shmem_map(&[], file()).unwrap();
    regions.shmem_map(&[map(0, 0, 2, 0)], file()).unwrap();
    regions.reset().unwrap();
    assert_eq!(kernel_view(regions.window(0).unwrap()), [(16, "---p".to_owned())]);
}

#[test]
fn regions_are_made_as_a_device_tells_their_sizes() {
    let mut sizes = [0; 256];
    (sizes[0], sizes[7], sizes[255]) = (PAGE, 2 * PAGE, 16 << 30);
    let regions = SharedRegions::reserve(&sizes, 16 << 30, MapRules::Exact).unwrap();
    let found = Vec::from_iter((0..=255).filter_map(|id| regions.window(id)).map(|one| one.reservation().length()));
    assert_eq!(found, [0x1000, 0x2000, 16 << 30]);
    let refused = SharedRegions::reserve(&sizes, (16 << 30) - 1, MapRules::Exact).unwrap_err();
    assert_eq!(refused, WindowError::OutOfBounds { offset: 0, length: 16 << 30, size: (16 << 30) - 1 });
    sizes[1] = 1;
    assert_eq!(SharedRegions::reserve(&sizes, u64::MAX, MapRules::Exact).unwrap_err().errno(), Errno::INVAL);
    sizes[1] = !(PAGE - 1);
    assert_eq!(SharedRegions::reserve(&sizes, u64::MAX, MapRules::Exact).unwrap_err().errno(), Errno::INVAL);
}

/// A back-end can take no more of the process' mappings than it is given.
#[test]
fn there_is_a_limit_to_the_number_of_mappings() {
    let mut window = window(MapRules::Replacing);
    window.set_limit(3);
    let file = numbered(16);
    for page in [0, 2, 4] {
        window.map(page * PAGE, PAGE, file.as_fd(), 0, BOTH).unwrap();
    }
    let too_many = Err(WindowError::TooMany { limit: 3 });
    assert_eq!(window.map(6 * PAGE, PAGE, file.as_fd(), 0, BOTH), too_many);
    window.map(0, 16 * PAGE, file.as_fd(), 0, BOTH).unwrap();
    window.unmap(PAGE, PAGE).unwrap();
    window.unmap(3 * PAGE, PAGE).unwrap();
    assert_eq!(window.unmap(5 * PAGE, PAGE), too_many);
    assert_eq!(bytes(&window)[5], Some(5));
}

#[test]
fn huge_pages_are_mapped_whole_or_refused() {
    const HUGE: u64 = 2 << 20;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let Ok(file) = memfd_create("huge", flags) else { return not_run("the kernel has no huge pages") };
    rustix::fs::ftruncate(&file, 2 * HUGE).unwrap();
    let mut window = SharedWindow::new(Reservation::new(4 * HUGE as usize).unwrap(), MapRules::Replacing);
    let mut refused = |offset, length, file_offset| {
        let error = window.map(offset, length, file.as_fd(), file_offset, BOTH).unwrap_err();
        assert!(matches!(error, WindowError::Misaligned { page: HUGE, .. }), "{error}");
    };
    refused(PAGE, HUGE, 0);
    refused(0, PAGE, 0);
    refused(0, HUGE, PAGE);
    // There may be no huge pages at hand, and what is not touched needs none.
    window.map(HUGE, 2 * HUGE, file.as_fd(), 0, BOTH).unwrap();
    let cut = window.unmap(HUGE, PAGE).unwrap_err();
    assert!(matches!(cut, WindowError::Misaligned { page: HUGE, .. }), "{cut}");
    window.unmap(2 * HUGE, HUGE).unwrap();
    assert_eq!(Vec::from_iter(window.mappings()), [Mapped { offset: HUGE, length: HUGE, page: HUGE }]);
    window.unmap_all().unwrap();
}
