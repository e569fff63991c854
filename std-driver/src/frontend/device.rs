//! Requests that only some devices have: configuration space, IOMMU, network, crypto, shared objects and memory.

use std::os::fd::OwnedFd;

use vhost_core::wire::{
    config::{Config, MAX_CONFIG_SIZE},
    crypto::CryptoSession,
    iotlb::Iotlb,
    shared::{MAX_SHARED_REGIONS, Uuid},
};

use super::{
    Frontend, FrontendError,
    call::{Reply, Request},
};

impl Frontend {
    /// `GET_CONFIG`: reads the configuration space from `offset` on into `buffer`, at most 256 bytes.
    ///
    /// `flags` is [`Config::WRITABLE`] or [`Config::MIGRATION`]. Gives back how many bytes came; a back-end may have
    /// fewer, and then the rest of the buffer is as it was.
    ///
    /// # Errors
    /// See [`FrontendError`]; [`Misuse`](FrontendError::Misuse) also for a longer buffer. Needs the protocol feature
    /// `CONFIG`.
    #[doc(alias = "GET_CONFIG")]
    pub fn get_config(&mut self, offset: u32, buffer: &mut [u8], flags: u32) -> Result<usize, FrontendError> {
        // What stands in the buffer is none of the back-end's business. One byte too many is refused by the core.
        const BLANK: [u8; MAX_CONFIG_SIZE + 1] = [0; MAX_CONFIG_SIZE + 1];
        let data = BLANK.get(..buffer.len()).unwrap_or(&BLANK);
        self.ask(Request::GetConfig(Config { offset, flags, data }), |reply| match reply {
            Reply::GetConfig(config) => Some(buffer.iter_mut().zip(config.data).map(|(to, from)| *to = *from).count()),
            _ => None,
        })
    }

    /// `SET_CONFIG`: writes `data`, at most 256 bytes, to the configuration space from `offset` on.
    ///
    /// # Errors
    /// As [`get_config`](Self::get_config).
    #[doc(alias = "SET_CONFIG")]
    pub fn set_config(&mut self, offset: u32, data: &[u8], flags: u32) -> Result<(), FrontendError> {
        self.order(Request::SetConfig(Config { offset, flags, data }))
    }

    /// `IOTLB_MSG`: updates or invalidates a translation of the back-end.
    ///
    /// # Errors
    /// See [`FrontendError`]. Needs the virtio feature `ACCESS_PLATFORM`.
    #[doc(alias = "IOTLB_MSG")]
    pub fn iotlb_msg(&mut self, message: &Iotlb) -> Result<(), FrontendError> {
        self.order(Request::IotlbMsg(*message))
    }

    /// `SEND_RARP`: has the back-end announce this MAC address in its network, after migration.
    ///
    /// # Errors
    /// See [`FrontendError`]. Needs the protocol feature `RARP`.
    #[doc(alias = "SEND_RARP")]
    pub fn send_rarp(&mut self, mac: [u8; 6]) -> Result<(), FrontendError> {
        let [a, b, c, d, e, f] = mac;
        self.order(Request::SendRarp(u64::from_ne_bytes([a, b, c, d, e, f, 0, 0])))
    }

    /// `NET_SET_MTU`: sets the network device's MTU in bytes.
    ///
    /// # Errors
    /// See [`FrontendError`]. Needs the protocol feature `MTU`.
    #[doc(alias = "NET_SET_MTU")]
    pub fn net_set_mtu(&mut self, mtu: u16) -> Result<(), FrontendError> {
        self.order(Request::NetSetMtu(mtu.into()))
    }

    /// `CREATE_CRYPTO_SESSION`: creates a crypto session; its id.
    ///
    /// # Errors
    /// See [`FrontendError`]. Needs the protocol feature `CRYPTO_SESSION`.
    #[doc(alias = "CREATE_CRYPTO_SESSION")]
    pub fn create_crypto_session(&mut self, session: &CryptoSession) -> Result<u64, FrontendError> {
        self.ask(Request::CreateCryptoSession(session), |reply| match reply {
            Reply::CreateCryptoSession(session) => Some(session.session_id()),
            _ => None,
        })
    }

    /// `CLOSE_CRYPTO_SESSION`: closes the crypto session of this id.
    ///
    /// # Errors
    /// See [`FrontendError`]. Needs the protocol feature `CRYPTO_SESSION`.
    #[doc(alias = "CLOSE_CRYPTO_SESSION")]
    pub fn close_crypto_session(&mut self, session_id: u64) -> Result<(), FrontendError> {
        self.order(Request::CloseCryptoSession(session_id))
    }

    /// `GET_SHARED_OBJECT`: an object that the device shares with others.
    ///
    /// # Errors
    /// See [`FrontendError`]; [`Refused`](FrontendError::Refused) also if there is no such object. Needs the protocol
    /// feature `SHARED_OBJECT`.
    #[doc(alias = "GET_SHARED_OBJECT")]
    pub fn get_shared_object(&mut self, object: Uuid) -> Result<OwnedFd, FrontendError> {
        self.ask(Request::GetSharedObject(Some(object)), |reply| match reply {
            Reply::GetSharedObject(descriptor) => descriptor,
            _ => None,
        })
    }

    /// `GET_SHMEM_CONFIG`: the sizes of the device's shared memory regions in bytes, by their ids; zero for none.
    ///
    /// # Errors
    /// See [`FrontendError`]. Needs the protocol feature `SHMEM`.
    #[doc(alias = "GET_SHMEM_CONFIG")]
    pub fn get_shmem_config(&mut self) -> Result<[u64; MAX_SHARED_REGIONS], FrontendError> {
        self.ask(Request::GetShmemConfig, |reply| match reply {
            Reply::GetShmemConfig(config) => {
                let mut sizes = [0; MAX_SHARED_REGIONS];
                sizes.iter_mut().zip(config.sizes()).for_each(|(to, from)| *to = from);
                Some(sizes)
            }
            _ => None,
        })
    }
}
