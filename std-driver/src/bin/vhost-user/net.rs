//! `vhost-user net`: a network interface.

use core::error::Error;
use std::{os::unix::net::UnixDatagram, path::PathBuf, sync::Arc};

use vhost_std::net::{NetDevice, NetLink, NetOptions};

use crate::service;

/// The arguments of `vhost-user net`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    service: service::Arguments,
    /// Connect to this tap interface, which is made if it does not exist.
    #[arg(long, value_name = "NAME", required_unless_present = "dgram_remote", conflicts_with = "dgram_remote")]
    tap: Option<String>,
    /// Number of pairs of queues of the tap interface.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=128))]
    queue_pairs: u16,
    /// Connect to a Unix datagram socket, such as that of QEMU's `-netdev dgram`; each datagram is a frame.
    #[arg(long, value_name = "PATH", requires = "dgram_local", conflicts_with = "queue_pairs")]
    dgram_remote: Option<PathBuf>,
    /// Where the other end finds our datagram socket.
    #[arg(long, value_name = "PATH", requires = "dgram_remote")]
    dgram_local: Option<PathBuf>,
    /// The guest's address, for front-ends that ask for it.
    #[arg(long, value_name = "MAC", value_parser = parse_mac)]
    mac: Option<[u8; 6]>,
    /// The largest packet of the network in bytes, for front-ends that ask for it.
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u16>,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let service = self.service.open()?;
        let links = match (self.tap, self.dgram_remote.zip(self.dgram_local)) {
            (Some(name), _) => {
                NetLink::tap(&name, self.queue_pairs).map_err(|error| format!("--tap={name}: {error}"))?
            }
            (None, Some((remote, local))) => {
                let socket = UnixDatagram::bind(&local)
                    .map_err(|error| format!("--dgram-local={}: {error}", local.display()))?;
                socket.connect(&remote).map_err(|error| format!("--dgram-remote={}: {error}", remote.display()))?;
                vec![NetLink::datagram(socket.into())?]
            }
            (None, None) => return Err("--tap or --dgram-remote is missing".into()),
        };
        let options = NetOptions { mac: self.mac, mtu: self.mtu };
        service.run(Arc::new(NetDevice::new(links, &options)?))
    }
}

/// Six bytes in hexadecimal with colons between them; not the address of a group.
fn parse_mac(text: &str) -> Result<[u8; 6], String> {
    let wrong = || format!("expected an address such as 52:54:00:12:34:56, found {text:?}");
    let byte = |digits: &str| {
        // The standard library would also take a sign.
        let is_plain = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        u8::from_str_radix(digits, 16).ok().filter(|_| is_plain)
    };
    let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
    let mac: [u8; 6] = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(wrong)?;
    if mac[0] & 1 == 0 { Ok(mac) } else { Err(format!("{text} is the address of a group")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_six_bytes_and_not_that_of_a_group() {
        assert_eq!(parse_mac("52:54:00:aB:34:5f"), Ok([0x52, 0x54, 0, 0xab, 0x34, 0x5f]));
        for wrong in
            ["", "52:54:00:12:34", "52:54:00:12:34:56:78", "52-54-00-12-34-56", "5:54:00:12:34:56", "+2:54:00:12:34:56"]
        {
            assert!(parse_mac(wrong).is_err_and(|error| error.contains("52:54:00:12:34:56")), "{wrong}");
        }
        assert!(parse_mac("53:54:00:12:34:56").is_err_and(|error| error.contains("group")));
    }
}
