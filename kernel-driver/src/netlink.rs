//! Netlink: requests to the kernel by socket, as many as this crate needs.

use std::os::fd::OwnedFd;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::netdevice::name_to_index;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};
use vhost_std::system_error::SystemError;

/// `NLM_F_REQUEST` and `NLM_F_ACK`: every request is answered, by an error number of 0 if by nothing else.
const REQUEST_WITH_ANSWER: u16 = 0x1 | 0x4;
/// `NLMSG_ERROR`, the type of the answer that comes last.
const ERROR: u16 = 2;
/// Bytes of a message's head: length, type, flags, sequence number, port.
const HEAD: usize = 16;

/// The family of network interfaces, `NETLINK_ROUTE`, is number 0.
const ROUTE: Option<Protocol> = None;

/// A netlink socket.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    /// What errors call it.
    call: &'static str,
}

impl Netlink {
    /// Opens a socket to the generic families of netlink.
    pub(crate) fn generic(call: &'static str) -> Result<Self, SystemError> {
        Self::open(Some(netlink::GENERIC), call)
    }

    fn open(protocol: Option<Protocol>, call: &'static str) -> Result<Self, SystemError> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
            .map_err(|errno| SystemError { call: "socket", errno })?;
        Ok(Self { socket, call })
    }

    /// Makes a request and waits until the kernel is done with it; the first answer's content, which is empty if success is
    /// the whole answer.
    pub(crate) fn request(&self, kind: u16, content: &[u8]) -> Result<Vec<u8>, SystemError> {
        let failed = |errno| SystemError { call: self.call, errno };
        let length = u32::try_from(HEAD + content.len()).map_err(|_| failed(Errno::MSGSIZE))?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend(REQUEST_WITH_ANSWER.to_ne_bytes());
        // The sequence number and the port are for those who have several requests under way.
        message.extend([0; 8]);
        message.extend(content);
        retry_on_intr(|| send(&self.socket, &message, SendFlags::empty())).map_err(failed)?;
        self.answer().map_err(failed)
    }

    fn answer(&self) -> Result<Vec<u8>, Errno> {
        let mut first = None;
        loop {
            let mut buffer = [0_u8; 8192];
            let (length, _) = retry_on_intr(|| recv(&self.socket, &mut buffer[..], RecvFlags::empty()))?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((kind, content, behind)) = next_message(rest) {
                if kind == ERROR {
                    let number = content.first_chunk().copied().map(i32::from_ne_bytes).ok_or(Errno::BADMSG)?;
                    return match number.checked_neg() {
                        Some(0) => Ok(first.unwrap_or_default()),
                        Some(number) => Err(Errno::from_raw_os_error(number)),
                        None => Err(Errno::BADMSG),
                    };
                }
                first.get_or_insert_with(|| content.to_vec());
                rest = behind;
            }
        }
    }
}

/// Type and content of the first message, and what comes behind it.
fn next_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let behind = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, bytes.get(HEAD..length)?, behind))
}

/// Adds an attribute to a message.
pub(crate) fn push_attribute(message: &mut Vec<u8>, kind: u16, content: &[u8]) {
    // Callers' contents are short.
    let length = (4 + content.len()) as u16;
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(content);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// The content of the first attribute of this type.
pub(crate) fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?);
        if kind == wanted {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

/// The index of a network interface.
pub(crate) fn interface_index(name: &str) -> Result<i32, SystemError> {
    let failed = |errno| SystemError { call: "SIOCGIFINDEX", errno };
    let socket = Netlink::open(ROUTE, "SIOCGIFINDEX")?;
    let index = name_to_index(&socket.socket, name).map_err(failed)?;
    i32::try_from(index).map_err(|_| failed(Errno::OVERFLOW))
}

/// Takes a network interface into use.
pub(crate) fn set_interface_up(name: &str) -> Result<(), SystemError> {
    const RTM_NEWLINK: u16 = 16;
    const IFF_UP: u32 = 1;
    let index = interface_index(name)?;
    // struct ifinfomsg: family, padding, hardware type, index, flags, and which flags change.
    let mut content = vec![0; 4];
    content.extend(index.to_ne_bytes());
    content.extend(IFF_UP.to_ne_bytes());
    content.extend(IFF_UP.to_ne_bytes());
    Netlink::open(ROUTE, "RTM_NEWLINK")?.request(RTM_NEWLINK, &content).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_found_by_their_type() {
        let mut message = Vec::new();
        push_attribute(&mut message, 4, b"name\0");
        push_attribute(&mut message, 1, &7_u16.to_ne_bytes());
        assert_eq!(message.len(), 12 + 8);
        assert_eq!(attribute(&message, 4), Some(&b"name\0"[..]));
        assert_eq!(attribute(&message, 1), Some(&7_u16.to_ne_bytes()[..]));
        assert_eq!(attribute(&message, 2), None);
        assert_eq!(attribute(&message[..10], 1), None);
        assert_eq!(attribute(&[0; 8], 1), None, "lengths of zero are no endless loop");
    }

    #[test]
    fn the_kernel_answers_a_request_with_its_error_number() {
        let socket = Netlink::generic("CTRL_CMD_GETFAMILY").unwrap();
        // The family "nlctrl" is the one that knows all families.
        let ask = |name: &[u8]| {
            let mut content = vec![3, 1, 0, 0];
            push_attribute(&mut content, 2, name);
            socket.request(16, &content)
        };
        let answer = ask(b"nlctrl\0").unwrap();
        assert_eq!(attribute(&answer[4..], 1), Some(&16_u16.to_ne_bytes()[..]));
        assert_eq!(ask(b"no-such-family\0").unwrap_err().errno, Errno::NOENT);
    }

    #[test]
    fn the_loopback_interface_is_the_first() {
        assert_eq!(interface_index("lo"), Ok(1));
        assert_eq!(interface_index("no-such-name").unwrap_err().errno, Errno::NODEV);
    }
}
