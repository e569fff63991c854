//! What two back-ends have agreed to before they are compared.

use vhost_tests::wire::{self, Bytes, REQUEST, REQUEST_NEEDING_REPLY, feature};

use crate::case::Said;

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nothing was said.
    Fresh,
    /// Everything was agreed on that both peers offer.
    Agreed,
    /// The same, but nobody claimed the device.
    Unowned,
    /// Everything but these protocol features.
    Without(u64),
    /// Everything, but then features without bit 30.
    WithoutBit30,
    /// Agreed, and memory shared as a table.
    Shared,
    /// Agreed, and one region added.
    Added,
    /// Memory shared; ring 1 set up, started and enabled.
    Running,
    /// Agreed, and postcopy announced.
    Advised,
    /// The same, and memory is registered from here on.
    Listening,
}

/// What both of two peers offer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offer {
    pub(crate) virtio: u64,
    pub(crate) protocol: u64,
}

impl Stage {
    pub(crate) fn name(self) -> String {
        match self {
            Self::Without(bits) => format!("without {}", name_of(bits)),
            Self::WithoutBit30 => "without bit 30".to_owned(),
            other => format!("{other:?}").to_lowercase(),
        }
    }

    /// What leads there, and how many replies come. Every acknowledgement must be 0.
    pub(crate) fn said(self, offer: Offer) -> Vec<Said> {
        let missing = if let Self::Without(bits) = self { bits } else { 0 };
        let mut said = Vec::new();
        if self == Self::Fresh {
            return said;
        }
        let number = |id, value: u64| Said::new(id, REQUEST_NEEDING_REPLY, &value.to_ne_bytes());
        said.push(Said::new(1, REQUEST, &[]));
        said.push(Said::new(15, REQUEST, &[]));
        // Whether this one is acknowledged differs and is a case of its own.
        said.push(Said { flags: REQUEST, ..number(16, offer.protocol & !missing) });
        if self != Self::Unowned {
            said.push(Said::new(3, REQUEST_NEEDING_REPLY, &[]));
        }
        said.push(number(2, offer.virtio));
        if self == Self::WithoutBit30 {
            said.push(number(2, offer.virtio & !feature::PROTOCOL_FEATURES));
        }
        said.extend(self.set_up());
        if missing & feature::REPLY_ACK != 0 {
            said.iter_mut().for_each(|said| said.flags = REQUEST);
        }
        said
    }

    fn set_up(self) -> Vec<Said> {
        let usual = |name| Said::fixture(&wire::frontend_request(name), REQUEST_NEEDING_REPLY);
        match self {
            Self::Shared => vec![usual("SET_MEM_TABLE")],
            Self::Added => vec![usual("ADD_MEM_REG")],
            Self::Running => {
                let enable = usual("SET_VRING_ENABLE").carrying(&Bytes::new().u32(1).u32(1).done());
                let names = ["SET_MEM_TABLE", "SET_VRING_NUM", "SET_VRING_ADDR", "SET_VRING_CALL", "SET_VRING_KICK"];
                names.map(usual).into_iter().chain([enable]).collect()
            }
            // No acknowledgement but a reply.
            Self::Advised => vec![Said { flags: REQUEST, ..usual("POSTCOPY_ADVISE") }],
            Self::Listening => {
                vec![Said { flags: REQUEST, ..usual("POSTCOPY_ADVISE") }, usual("POSTCOPY_LISTEN")]
            }
            _ => Vec::new(),
        }
    }

    /// Protocol features without which there is no getting there.
    pub(crate) fn needs(self) -> u64 {
        match self {
            Self::Added => feature::CONFIGURE_MEM_SLOTS,
            Self::Advised | Self::Listening => feature::PAGEFAULT,
            _ => 0,
        }
    }
}

/// The name of one protocol feature.
fn name_of(bits: u64) -> String {
    let one = |(name, _): (&'static str, _)| name;
    let named = vhost_core::ProtocolFeatures::from_bits_retain(bits);
    named.iter_names().map(one).collect::<Vec<_>>().join(" and ")
}
