//! The vdpa bus: devices come and go by generic netlink.

use rustix::io::Errno;
use vhost_std::system_error::SystemError;

use crate::netlink::{Netlink, attribute, push_attribute};

/// The family that knows all families, its request for one of them, and the attributes that go with it
/// (linux/genetlink.h).
const CONTROL: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// Requests and attributes of the family "vdpa" (linux/vdpa.h).
const DEV_NEW: u8 = 3;
const DEV_DEL: u8 = 4;
const MANAGEMENT_BUS: u16 = 1;
const MANAGEMENT_NAME: u16 = 2;
const DEVICE_NAME: u16 = 4;

/// Bytes of a generic netlink head: request, version, two unused.
const HEAD: usize = 4;

/// Has a management device make a device of this name on the vdpa bus, where the first driver that was loaded takes it.
///
/// A management device is what makes devices of one kind: `pci/0000:01:00.0` for example, or `vduse`, for which
/// [`vduse::add_to_bus`](crate::vduse::add_to_bus) says more.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`, `ENOENT` if the kernel has no vdpa bus, `ENODEV` if there is no such management device,
/// and what that one answers.
#[doc(alias = "VDPA_CMD_DEV_NEW")]
pub fn add_to_bus(management_device: &str, name: &str) -> Result<(), SystemError> {
    let (bus, management_device) = management_device.rsplit_once('/').unwrap_or(("", management_device));
    let socket = Netlink::generic("VDPA_CMD_DEV_NEW")?;
    let mut request = vec![DEV_NEW, 1, 0, 0];
    if !bus.is_empty() {
        push_string(&mut request, MANAGEMENT_BUS, bus);
    }
    push_string(&mut request, MANAGEMENT_NAME, management_device);
    push_string(&mut request, DEVICE_NAME, name);
    socket.request(family(&socket)?, &request).map(drop)
}

/// Takes a device off the vdpa bus, and away from its driver, which resets it.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN`, `ENODEV` if it is not on the bus.
#[doc(alias = "VDPA_CMD_DEV_DEL")]
pub fn remove_from_bus(name: &str) -> Result<(), SystemError> {
    let socket = Netlink::generic("VDPA_CMD_DEV_DEL")?;
    let mut request = vec![DEV_DEL, 1, 0, 0];
    push_string(&mut request, DEVICE_NAME, name);
    socket.request(family(&socket)?, &request).map(drop)
}

/// The number that the family "vdpa" has at this boot.
fn family(socket: &Netlink) -> Result<u16, SystemError> {
    let mut request = vec![GET_FAMILY, 1, 0, 0];
    push_string(&mut request, FAMILY_NAME, "vdpa");
    let answer = socket.request(CONTROL, &request)?;
    let number = attribute(answer.get(HEAD..).unwrap_or_default(), FAMILY_ID);
    let number = number.and_then(|content| content.first_chunk()).copied().map(u16::from_ne_bytes);
    number.ok_or(SystemError { call: "CTRL_CMD_GETFAMILY", errno: Errno::BADMSG })
}

fn push_string(request: &mut Vec<u8>, kind: u16, text: &str) {
    push_attribute(request, kind, &[text.as_bytes(), &[0]].concat());
}
