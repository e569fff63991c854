//! The calls that Rust cannot check: ioctls, and the binding of a packet socket.
//!
//! The only file of this crate with `unsafe` code. What a command moves is known by the type of its argument, so that the
//! kernel touches the argument and nothing else; commands that hold addresses of this process have functions of their own,
//! which take the memory instead of a number.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::ptr;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use vhost_core::uapi::ioctl::{Command, Direction, IoctlNumber, IoctlRow};
use vhost_core::uapi::layout::{self, VringAddr};
use vhost_core::uapi::vduse::{VDUSE_IOTLB_DEREG_UMEM, VDUSE_IOTLB_GET_FD, VDUSE_IOTLB_GET_FD2, VDUSE_IOTLB_REG_UMEM};
use vhost_core::uapi::vduse_layout::{self, IotlbEntry, IotlbEntryV2, UserMemory};
use vhost_core::uapi::vhost::{VHOST_SET_LOG_BASE, VHOST_SET_MEM_TABLE, VHOST_SET_VRING_ADDR};
use vhost_core::{Iova, UserAddress};
use vhost_std::memory::MappedRegion;
use vhost_std::system_error::SystemError;
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Arguments that hold no address of this process: whatever they say, the kernel touches nothing but the argument.
pub(crate) trait Plain: FromBytes + IntoBytes + Immutable {}

macro_rules! plain {
    ($($type:ty),* $(,)?) => { $(impl Plain for $type {})* };
}

plain! {
    (), u8, u16, u32, u64, i32,
    layout::VringState, layout::VringFile, layout::WorkerState, layout::VringWorker, layout::ScsiTarget,
    layout::IovaRange, layout::ConfigRange, layout::FeaturesArray,
    vduse_layout::DeviceConfig, vduse_layout::DeviceName, vduse_layout::ConfigData, vduse_layout::VringConfig,
    vduse_layout::VringInfo, vduse_layout::VringEventfd, vduse_layout::IovaInfo,
}

/// Makes a call without an argument.
pub(crate) fn none(fd: BorrowedFd<'_>, command: Command<()>) -> Result<(), SystemError> {
    call(fd, command.row(), &mut []).map(drop)
}

/// Makes a call that takes an argument.
pub(crate) fn write<T: Plain + Copy>(fd: BorrowedFd<'_>, command: Command<T>, argument: T) -> Result<(), SystemError> {
    exchange(fd, command, argument).map(drop)
}

/// Makes a call that gives an argument.
pub(crate) fn read<T: Plain>(fd: BorrowedFd<'_>, command: Command<T>) -> Result<T, SystemError> {
    exchange(fd, command, T::new_zeroed())
}

/// Makes a call that takes an argument and changes it.
pub(crate) fn exchange<T: Plain>(fd: BorrowedFd<'_>, command: Command<T>, mut argument: T) -> Result<T, SystemError> {
    let row = command.row();
    if row.element != 0 {
        // Elements would follow the argument.
        return Err(SystemError { call: row.name, errno: Errno::INVAL });
    }
    call(fd, row, argument.as_mut_bytes()).map(|_| argument)
}

/// Makes a call whose argument is followed by elements, and returns the elements as they are then.
///
/// `head` gives the argument that announces so many elements.
pub(crate) fn exchange_array<T: Plain, E: FromBytes + IntoBytes + Immutable + Clone>(
    fd: BorrowedFd<'_>,
    command: Command<T>,
    head: impl FnOnce(usize) -> T,
    elements: &[E],
) -> Result<Vec<E>, SystemError> {
    let row = command.row();
    let wrong = SystemError { call: row.name, errno: Errno::INVAL };
    if row.element != size_of::<E>() {
        return Err(wrong);
    }
    let mut bytes = [head(elements.len()).as_bytes(), elements.as_bytes()].concat();
    call(fd, row, &mut bytes)?;
    let chunks = bytes.get(size_of::<T>()..).unwrap_or_default().chunks_exact(size_of::<E>());
    chunks.map(|chunk| E::read_from_bytes(chunk).map_err(|_| wrong)).collect()
}

/// `VHOST_SET_MEM_TABLE`. The caller keeps the regions mapped for as long as the kernel may use them.
pub(crate) fn set_mem_table(fd: BorrowedFd<'_>, regions: &[&MappedRegion]) -> Result<(), SystemError> {
    let head = layout::MemoryTable::new(u32::try_from(regions.len()).unwrap_or(u32::MAX), 0);
    let mut bytes = head.as_bytes().to_vec();
    for mapped in regions {
        let (region, here) = (mapped.region(), host_address(mapped, 0));
        let region = layout::MemoryRegion::new(region.guest_address, region.size, here, 0);
        bytes.extend_from_slice(region.as_bytes());
    }
    call(fd, VHOST_SET_MEM_TABLE.row(), &mut bytes).map(drop)
}

/// `VHOST_SET_VRING_ADDR`. The addresses are I/O virtual ones, or those of a ring that the caller keeps mapped.
pub(crate) fn set_vring_addr(fd: BorrowedFd<'_>, mut argument: VringAddr) -> Result<(), SystemError> {
    call(fd, VHOST_SET_VRING_ADDR.row(), argument.as_mut_bytes()).map(drop)
}

/// `VHOST_SET_LOG_BASE`. The caller keeps the log mapped, and guest memory no higher than it has bits for.
pub(crate) fn set_log_base(fd: BorrowedFd<'_>, log: &MappedRegion) -> Result<(), SystemError> {
    let mut argument = layout::LogBase::new(host_address(log, 0));
    call(fd, VHOST_SET_LOG_BASE.row(), argument.as_mut_bytes()).map(drop)
}

/// `VDUSE_IOTLB_REG_UMEM`. The kernel holds the pages themselves, whether they stay mapped here or not.
pub(crate) fn register_user_memory(
    fd: BorrowedFd<'_>,
    memory: &MappedRegion,
    iova: Iova,
    asid: u32,
) -> Result<(), SystemError> {
    let mut argument = UserMemory::new(host_address(memory, 0), iova, memory.region().size, asid, [0; 20]);
    call(fd, VDUSE_IOTLB_REG_UMEM.row(), argument.as_mut_bytes()).map(drop)
}

/// `VDUSE_IOTLB_DEREG_UMEM`, which looks at no address of this process.
pub(crate) fn deregister_user_memory(fd: BorrowedFd<'_>, iova: Iova, size: u64, asid: u32) -> Result<(), SystemError> {
    let mut argument = UserMemory::new(UserAddress(0), iova, size, asid, [0; 20]);
    call(fd, VDUSE_IOTLB_DEREG_UMEM.row(), argument.as_mut_bytes()).map(drop)
}

/// `VDUSE_IOTLB_GET_FD`: the region and the descriptor to map it from.
pub(crate) fn iotlb_get_fd(fd: BorrowedFd<'_>, mut entry: IotlbEntry) -> Result<(IotlbEntry, OwnedFd), SystemError> {
    let descriptor = call(fd, VDUSE_IOTLB_GET_FD.row(), entry.as_mut_bytes())?;
    Ok((entry, own(descriptor)?))
}

/// `VDUSE_IOTLB_GET_FD2`: the region and the descriptor to map it from.
pub(crate) fn iotlb_get_fd2(
    fd: BorrowedFd<'_>,
    mut entry: IotlbEntryV2,
) -> Result<(IotlbEntryV2, OwnedFd), SystemError> {
    let descriptor = call(fd, VDUSE_IOTLB_GET_FD2.row(), entry.as_mut_bytes())?;
    Ok((entry, own(descriptor)?))
}

/// The address of the byte at `offset` in this process.
pub(crate) fn host_address(region: &MappedRegion, offset: u64) -> UserAddress {
    UserAddress((region.host_address().addr() as u64).wrapping_add(offset))
}

/// The descriptor that a call has made. It comes without close-on-exec.
fn own(descriptor: IoctlOutput) -> Result<OwnedFd, SystemError> {
    // SAFETY: the two calls that get here return a descriptor that they have made for the caller (linux/vduse.h,
    // VDUSE_IOTLB_GET_FD), so that it is open and nobody else has it. `raw` has refused a negative result.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    fcntl_setfd(&descriptor, FdFlags::CLOEXEC).map_err(|errno| SystemError { call: "fcntl", errno })?;
    Ok(descriptor)
}

/// Makes the call of `row`, whose argument and elements are `bytes`; its result, which is not negative.
fn call(fd: BorrowedFd<'_>, row: IoctlRow, bytes: &mut [u8]) -> Result<IoctlOutput, SystemError> {
    if bytes.len() < row.number.size() {
        return Err(SystemError { call: row.name, errno: Errno::INVAL });
    }
    let argument = if bytes.is_empty() { ptr::null_mut() } else { bytes.as_mut_ptr().cast() };
    raw(fd, row.name, Call { number: row.number, argument })
}

/// `TUNSETIFF`: makes or finds the tap device that `request`, a `struct ifreq`, describes.
pub(crate) fn tap_interface(fd: BorrowedFd<'_>, request: &mut [u8; 40]) -> Result<(), SystemError> {
    // Declared with the size of an `int`, though all of a `struct ifreq` is read and written.
    let number = tap_number(Direction::Write, 202);
    raw(fd, "TUNSETIFF", Call { number, argument: request.as_mut_ptr().cast() }).map(drop)
}

/// `TUNSETVNETHDRSZ`: the bytes of the header in front of each frame.
pub(crate) fn tap_header_size(fd: BorrowedFd<'_>, size: i32) -> Result<(), SystemError> {
    let mut size = size;
    let argument = ptr::from_mut(&mut size).cast();
    raw(fd, "TUNSETVNETHDRSZ", Call { number: tap_number(Direction::Write, 216), argument }).map(drop)
}

/// `TUNSETOFFLOAD`: what the reader of frames can do with them.
pub(crate) fn tap_offload(fd: BorrowedFd<'_>, offloads: u32) -> Result<(), SystemError> {
    // The argument is the number itself.
    let argument = ptr::without_provenance_mut(offloads as usize);
    raw(fd, "TUNSETOFFLOAD", Call { number: tap_number(Direction::Write, 208), argument }).map(drop)
}

/// A number of linux/if_tun.h; all are declared with an `int`.
const fn tap_number(direction: Direction, ordinal: u8) -> IoctlNumber {
    match IoctlNumber::new(direction, b'T', ordinal, size_of::<i32>()) {
        Some(number) => number,
        None => IoctlNumber(0),
    }
}

fn raw(fd: BorrowedFd<'_>, name: &'static str, call: Call) -> Result<IoctlOutput, SystemError> {
    // SAFETY: every function above that makes a `Call` has put as many bytes behind `argument` as the kernel reads and
    // writes there: those that the number says, and after them the elements that the argument announces. They are borrowed
    // for writing until that function returns. What an argument itself points to is the business of those functions:
    // `Plain` arguments point to nothing, and the others take memory that is kept mapped.
    let outcome = unsafe { rustix::ioctl::ioctl(fd, call) };
    match outcome {
        Ok(result) if result >= 0 => Ok(result),
        Ok(_) => Err(SystemError { call: name, errno: Errno::INVAL }),
        Err(errno) => Err(SystemError { call: name, errno }),
    }
}

/// An ioctl as rustix wants it.
struct Call {
    number: IoctlNumber,
    argument: *mut c_void,
}

// SAFETY: the functions of this file make the only values, with a number of the kernel's headers and an argument that has
// the bytes which that ioctl reads and writes; the output is the call's own result and is not read through the pointer.
unsafe impl Ioctl for Call {
    type Output = IoctlOutput;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.number.0 as Opcode
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument
    }

    unsafe fn output_from_ptr(result: IoctlOutput, _: *mut c_void) -> rustix::io::Result<IoctlOutput> {
        Ok(result)
    }
}

/// Where a packet socket is bound: `struct sockaddr_ll` of linux/if_packet.h.
#[derive(Debug, IntoBytes, Immutable)]
#[repr(C)]
pub(crate) struct LinkAddress {
    family: u16,
    /// In the network's byte order.
    protocol: u16,
    interface: i32,
    /// Hardware type, packet type, and the hardware address with its length: none of them counts when binding.
    unused: [u8; 12],
}

impl LinkAddress {
    /// Every frame of the interface with this index.
    pub(crate) fn all_frames(interface: i32) -> Self {
        const ETH_P_ALL: u16 = 3;
        let family = rustix::net::AddressFamily::PACKET.as_raw();
        Self { family, protocol: ETH_P_ALL.to_be(), interface, unused: [0; 12] }
    }
}

// SAFETY: the pointer is that of the value itself, which lives during the call, and the length is the value's size. Its
// layout is the one that the kernel expects of its address family.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, call: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        call(ptr::from_ref(self).cast(), size_of::<Self>() as SocketAddrLen)
    }
}
