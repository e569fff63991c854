//! The interfaces of the kernel.

use vhost_core::uapi;

reach! { uapi;
    uapi::ioctl::Command<uapi::layout::VringFile>: row, argument;
    uapi::ioctl::IoctlNumber: new, direction, group, ordinal, size;
    uapi::iotlb::Access: from_permission, permission;
    uapi::iotlb::IotlbMessage: encode, decode;
    uapi::layout::ConfigRange: new, offset, length;
    uapi::layout::FeaturesArray: new, count;
    uapi::layout::IovaRange: new, first, last;
    uapi::layout::LogBase: new, user_address;
    uapi::layout::MemoryRegion: new, guest_address, size, user_address, flags;
    uapi::layout::MemoryTable: new, count, reserved;
    uapi::layout::ScsiTarget: new, abi_version, world_wide_name, portal_group, reserved;
    uapi::layout::VringFile: new, index, fd;
    uapi::layout::VringWorker: new, index, worker;
    uapi::layout::WorkerState: new, worker;
    uapi::vduse::VduseIoctl: row, from_number, number, name;
    uapi::vduse_layout::ConfigData: new, offset, length;
    uapi::vduse_layout::DeviceConfig: new, name, vendor_id, device_id, features, vring_count, vring_align,
        group_count, address_space_count, reserved, config_size;
    uapi::vduse_layout::DeviceName: new, name;
    uapi::vduse_layout::IotlbEntry: new, offset, first, last, permission;
    uapi::vduse_layout::IotlbEntryV2: new, offset, first, last, permission, asid, reserved;
    uapi::vduse_layout::IovaInfo: new, first, last, capability, asid, reserved;
    uapi::vduse_layout::UserMemory: new, user_address, iova, size, asid, reserved;
    uapi::vduse_layout::VringConfig: new, index, max_size, group, reserved;
    uapi::vduse_layout::VringEventfd: new, index, fd;
    uapi::vduse_layout::VringInfo: new, index, num, descriptor, driver, device, position, ready, base;
    uapi::vduse_layout::VringPosition: new, first, available, used_wrap, used, base;
    uapi::vduse_message::VduseAnswer: encode, decode;
    uapi::vduse_message::VduseMessage: decode, encode;
    uapi::vduse_message::VduseVersion: number;
    uapi::vhost::VhostIoctl: row, from_number, number, name;
}
