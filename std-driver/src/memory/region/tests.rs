use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;
use vhost_tests::program::not_run;
use vm_memory::Bytes;

use super::*;
use crate::system_error::SystemError;

/// A file of `size` bytes that can be recognised by its name among the mappings of the process.
fn file(name: &str, size: u64) -> OwnedFd {
    let file = memfd_create(name, MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, size).unwrap();
    file
}

/// How many mappings and descriptors of this process are the file of `name`.
fn uses(name: &str) -> (usize, usize) {
    let wanted = format!("/memfd:{name} (deleted)");
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let mappings = maps.lines().filter(|line| line.ends_with(&wanted)).count();
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    let targets = entries.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let descriptors = targets.filter(|target| target.as_os_str() == wanted.as_str());
    (mappings, descriptors.count())
}

fn region(size: u64, mmap_offset: u64) -> MemoryRegion {
    MemoryRegion::new(vhost_core::GuestAddress(0x1000), size, UserAddress(0x7000_0000), mmap_offset)
}

fn refused(region: MemoryRegion) -> MemoryError {
    MappedRegion::new(region, file("refused", 0x2000)).unwrap_err()
}

#[test]
fn a_region_begins_at_its_offset_and_ends_with_its_size() {
    let page = rustix::param::page_size() as u64;
    for offset in [0, 1, page - 1, page, page + 0x123, 3 * page] {
        let descriptor = file("offset", 8 * page);
        let file = File::from(descriptor.try_clone().unwrap());
        file.write_all_at(b"<", offset).unwrap();
        file.write_all_at(b">", offset + 2 * page - 1).unwrap();
        let mapped = MappedRegion::new(region(2 * page, offset), descriptor).unwrap();
        assert_eq!(mapped.len(), 2 * page);
        let byte = |at| mapped.read_obj::<u8>(MemoryRegionAddress(at)).unwrap();
        assert_eq!((byte(0), byte(2 * page - 1)), (b'<', b'>'));
        let behind = mapped.read_obj::<u8>(MemoryRegionAddress(2 * page));
        assert!(behind.is_err());
    }
}

#[test]
fn a_file_that_is_too_short_is_refused_with_both_numbers() {
    for (size, offset, needed) in
        [(0x2001, 0, 0x2001), (0x2000, 1, 0x2001), (1, 0x2000, 0x2001), (u64::MAX >> 1, 0, u64::MAX >> 1)]
    {
        let actual = 0x2000;
        let error = MemoryError::FileTooShort { needed, actual };
        assert_eq!(refused(region(size, offset)), error);
    }
    MappedRegion::new(region(0x2000, 0), file("exact", 0x2000)).unwrap();
    MappedRegion::new(region(1, 0x1fff), file("exact", 0x2000)).unwrap();
}

#[test]
fn a_file_larger_than_memory_is_refused_by_the_kernel_or_here() {
    // What a file can have at most, which no process can map.
    let size = i64::MAX as u64;
    let error = MappedRegion::new(region(size, 0), file("huge", size)).unwrap_err();
    let (call, errno) = ("mmap", Errno::NOMEM);
    let by_kernel = MemoryError::System(SystemError { call, errno });
    assert!([by_kernel, MemoryError::TooLarge { size }].contains(&error));
}

#[test]
fn regions_without_bytes_or_with_a_wrapping_end_are_refused() {
    let empty = region(0, 0);
    assert_eq!(refused(empty), MemoryError::EmptyRegion(empty));
    let base = region(0x1000, 0);
    // One byte below the end of 64 bits is the first that does not fit.
    let last = u64::MAX - 0xfff;
    for (space, region) in [
        (AddressSpace::Guest, MemoryRegion { guest_address: vhost_core::GuestAddress(last), ..base }),
        (AddressSpace::User, MemoryRegion { user_address: UserAddress(last), ..base }),
        (AddressSpace::File, MemoryRegion { mmap_offset: last, ..base }),
    ] {
        assert_eq!(refused(region), MemoryError::RegionWraps { space, region });
    }
    let highest =
        MemoryRegion { guest_address: vhost_core::GuestAddress(last - 1), user_address: UserAddress(last - 1), ..base };
    MappedRegion::new(highest, file("highest", 0x1000)).unwrap();
}

#[test]
fn what_has_no_size_is_refused_by_name() {
    let refused = |descriptor: OwnedFd| MappedRegion::new(region(1, 0), descriptor).unwrap_err();
    let (reader, _writer) = std::io::pipe().unwrap();
    let found = "a pipe";
    assert_eq!(refused(reader.into()), MemoryError::NotAFile { found });
    let zero = File::options().read(true).write(true).open("/dev/zero").unwrap();
    let found = "a character device";
    assert_eq!(refused(zero.into()), MemoryError::NotAFile { found });
}

#[test]
fn a_descriptor_that_cannot_be_written_to_is_refused() {
    let path = std::env::temp_dir().join(format!("vhost-read-only-{}", std::process::id()));
    fs::write(&path, [0; 16]).unwrap();
    let read_only = File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let error = MappedRegion::new(region(16, 0), read_only.into()).unwrap_err();
    let (call, errno) = ("mmap", Errno::ACCESS);
    assert_eq!(error, MemoryError::System(SystemError { call, errno }));
}

#[test]
fn two_regions_of_one_file_share_nothing_but_the_file() {
    let descriptor = file("two-regions", 0x4000);
    let low = MappedRegion::new(region(0x2000, 0), descriptor.try_clone().unwrap()).unwrap();
    let high = MappedRegion::new(region(0x2000, 0x2000), descriptor).unwrap();
    low.write_obj(0x11_u8, MemoryRegionAddress(0x10)).unwrap();
    high.write_obj(0x22_u8, MemoryRegionAddress(0x10)).unwrap();
    assert_eq!(low.read_obj::<u8>(MemoryRegionAddress(0x10)).unwrap(), 0x11);
    assert_eq!(high.read_obj::<u8>(MemoryRegionAddress(0x10)).unwrap(), 0x22);
}

#[test]
fn the_descriptor_is_closed_at_once_and_the_mapping_with_the_region() {
    let name = "vhost-region-lifetime";
    let descriptor = file(name, 0x4000);
    assert_eq!(uses(name), (0, 1));
    // An offset within a page, so that the mapping begins before the region.
    let mapped = MappedRegion::new(region(0x2000, 0x1234), descriptor).unwrap();
    assert_eq!(uses(name), (1, 0));
    drop(mapped);
    assert_eq!(uses(name), (0, 0));
}

#[test]
fn slices_end_where_the_region_does() {
    let mapped = MappedRegion::new(region(0x1800, 0x100), file("slices", 0x4000)).unwrap();
    let slice = |at, count| mapped.get_slice(MemoryRegionAddress(at), count);
    assert_eq!(slice(0, 0x1800).unwrap().len(), 0x1800);
    assert_eq!(slice(0x1800, 0).unwrap().len(), 0);
    for (at, count) in [(0, 0x1801), (0x1800, 1), (1, usize::MAX), (u64::MAX, 1)] {
        assert!(slice(at, count).is_err(), "{count} bytes at {at:#x}");
    }
    let last = mapped.get_host_address(MemoryRegionAddress(0x17ff)).unwrap();
    assert_eq!(last.addr(), mapped.host_address().addr() + 0x17ff);
    assert!(mapped.get_host_address(MemoryRegionAddress(0x1800)).is_err());
}

#[test]
fn huge_pages_are_mapped_and_unmapped_as_a_whole() {
    let name = "vhost-huge-pages";
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::HUGETLB;
    let Ok(descriptor) = memfd_create(name, flags) else {
        return not_run("the kernel has no huge pages");
    };
    let huge_page = rustix::fs::fstat(&descriptor).unwrap().st_blksize as u64;
    ftruncate(&descriptor, 2 * huge_page).unwrap();
    // Nothing is touched, so that it works without a single huge page set aside.
    let offset = huge_page + 0xc_0000;
    let mapped = MappedRegion::new(region(0x1000, offset), descriptor).unwrap();
    let address = mapped.host_address().addr() as u64;
    assert_eq!(address % huge_page, 0xc_0000);
    let maps = || fs::read_to_string("/proc/self/maps").unwrap();
    assert!(maps().contains(name));
    drop(mapped);
    assert!(!maps().contains(name));
}
