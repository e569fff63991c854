//! Bytes: the table of front-end requests and of their replies.
//!
//! This is the only list of them. Source: vhost-user, section "Front-end message types".

use core::num::NonZeroU64;

use crate::{
    assembler::{Frame, Handles, Transmit},
    channel::{content_message, with_handles, write_number, write_reply},
    error::{ApiMisuse, DecodeError},
};

use super::{
    config::Config,
    crypto::CryptoSession,
    feature::{ProtocolFeatures, VirtioFeatures},
    header::Header,
    inflight::Inflight,
    iotlb::Iotlb,
    log::LogBase,
    memory::{MemoryRegion, MemoryTable},
    migration::Transfer,
    misfit::Found,
    payload::{Body, Form, PayloadKind},
    row::{Channel, Gate, HandleRule, MessageName, Refusal, ReplyRule, Row, Table},
    shared::{SharedMemoryConfig, Uuid},
    table::{content, handle, handle_rule, payload_kind, replies, requests, take},
    vring::{VringAddr, VringDescriptor, VringState},
    writer::Content,
};

requests! {
    channel Frontend;
    /// The id of a front-end request; open, so that unknown ids survive.
    code FrontendCode;
    /// A request of the front-end, with what it carries. `H` is a descriptor, or whatever stands
    /// for one.
    request FrontendRequest<'b, H>;
    /// What answers a front-end request.
    reply FrontendReply<'b, H>;

    /// Asks for the device's virtio features.
    1 GET_FEATURES (Gate::ALWAYS) None GetFeatures => Own(Close): None [payload: VirtioFeatures];
    /// Acknowledges virtio features.
    2 SET_FEATURES (Gate::ALWAYS) None SetFeatures[payload: VirtioFeatures] => Acknowledged;
    /// Claims the device.
    3 SET_OWNER (Gate::ALWAYS) None SetOwner => Acknowledged;
    /// Deprecated: disables all rings.
    4 RESET_OWNER (Gate::ALWAYS) None ResetOwner => Acknowledged;
    /// Replaces the guest's memory; one descriptor a region.
    5 SET_MEM_TABLE (Gate::ALWAYS) PerRegion SetMemTable[payload: MemoryTable<'b>, handles: Handles<H>]
        => Postcopy: None [payload: MemoryTable<'b>];
    /// Sets the dirty log.
    6 SET_LOG_BASE (Gate::ALWAYS) WithLogFile SetLogBase[payload: LogBase, optional: Option<H>]
        => LogFile: None [payload: LogBase];
    /// Sets the eventfd that tells of log writes.
    7 SET_LOG_FD (Gate::ALWAYS) One SetLogFd[handle: H] => Acknowledged;
    /// Sets a ring's size.
    8 SET_VRING_NUM (Gate::ALWAYS) None SetVringNum[payload: VringState] => Acknowledged;
    /// Sets a ring's addresses.
    9 SET_VRING_ADDR (Gate::ALWAYS) None SetVringAddr[payload: VringAddr] => Acknowledged;
    /// Sets where the back-end goes on in a ring, see [`VringBase`](super::vring::VringBase).
    10 SET_VRING_BASE (Gate::ALWAYS) None SetVringBase[payload: VringState] => Acknowledged;
    /// Stops a ring and asks where the back-end stood; the number in the request means nothing.
    11 GET_VRING_BASE (Gate::ALWAYS) None GetVringBase[payload: VringState]
        => Own(Close): None [payload: VringState];
    /// Starts a ring and sets its kick descriptor.
    12 SET_VRING_KICK (Gate::ALWAYS) UnlessBit8 SetVringKick[payload: VringDescriptor, optional: Option<H>]
        => Acknowledged;
    /// Sets a ring's call descriptor.
    13 SET_VRING_CALL (Gate::ALWAYS) UnlessBit8 SetVringCall[payload: VringDescriptor, optional: Option<H>]
        => Acknowledged;
    /// Sets a ring's error descriptor.
    14 SET_VRING_ERR (Gate::ALWAYS) UnlessBit8 SetVringErr[payload: VringDescriptor, optional: Option<H>]
        => Acknowledged;
    /// Asks for the back-end's protocol features.
    15 GET_PROTOCOL_FEATURES (Gate::OFFERED) None GetProtocolFeatures
        => Own(Close): None [payload: ProtocolFeatures];
    /// Acknowledges protocol features.
    16 SET_PROTOCOL_FEATURES (Gate::OFFERED) None SetProtocolFeatures[payload: ProtocolFeatures] => Acknowledged;
    /// Asks how many queues the back-end can serve.
    17 GET_QUEUE_NUM (Gate::needs(ProtocolFeatures::MQ).frontend_only()) None GetQueueNum
        => Own(Close): None [payload: u64];
    /// Enables (1) or disables (0) a ring.
    18 SET_VRING_ENABLE (Gate::OPENED) None SetVringEnable[payload: VringState] => Acknowledged;
    /// Asks the back-end to announce this MAC address (the first six bytes) after migration.
    19 SEND_RARP (Gate::needs(ProtocolFeatures::RARP)) None SendRarp[payload: u64] => Acknowledged;
    /// Sets the network device's MTU in bytes.
    20 NET_SET_MTU (Gate::needs(ProtocolFeatures::MTU)) None NetSetMtu[payload: u64] => Acknowledged;
    /// Opens the channel for requests of the back-end.
    21 SET_BACKEND_REQ_FD (Gate::needs(ProtocolFeatures::BACKEND_REQ)) One SetBackendReqFd[handle: H]
        => Acknowledged;
    /// Updates or invalidates the IOTLB.
    22 IOTLB_MSG (Gate::ACCESS_PLATFORM) None IotlbMsg[payload: Iotlb] => Status;
    /// Sets a legacy ring's byte order: 0 little, 1 big.
    23 SET_VRING_ENDIAN (Gate::needs(ProtocolFeatures::CROSS_ENDIAN)) None SetVringEndian[payload: VringState]
        => Acknowledged;
    /// Reads from the configuration space.
    24 GET_CONFIG (Gate::needs(ProtocolFeatures::CONFIG)) None GetConfig[payload: Config<'b>]
        => Own(Empty): None [payload: Config<'b>];
    /// Writes to the configuration space.
    25 SET_CONFIG (Gate::needs(ProtocolFeatures::CONFIG)) None SetConfig[payload: Config<'b>] => Acknowledged;
    /// Creates a crypto session.
    26 CREATE_CRYPTO_SESSION (Gate::needs(ProtocolFeatures::CRYPTO_SESSION)) None
        CreateCryptoSession[payload: &'b CryptoSession]
        => Own(NoSession): None [payload: &'b CryptoSession];
    /// Closes the crypto session of this id.
    27 CLOSE_CRYPTO_SESSION (Gate::needs(ProtocolFeatures::CRYPTO_SESSION)) None CloseCryptoSession[payload: u64]
        => Acknowledged;
    /// Announces postcopy migration and asks for a userfault descriptor.
    28 POSTCOPY_ADVISE (Gate::needs(ProtocolFeatures::PAGEFAULT)) None PostcopyAdvise
        => Own(Empty): Optional [optional: Option<H>];
    /// From here on memory is registered with userfaultfd.
    29 POSTCOPY_LISTEN (Gate::needs(ProtocolFeatures::PAGEFAULT)) None PostcopyListen
        => AcknowledgedWhenFlagged;
    /// Postcopy migration is over.
    30 POSTCOPY_END (Gate::needs(ProtocolFeatures::PAGEFAULT)) None PostcopyEnd => Status;
    /// Asks the back-end to make an inflight record.
    31 GET_INFLIGHT_FD (Gate::needs(ProtocolFeatures::INFLIGHT_SHMFD)) None GetInflightFd[payload: Inflight]
        => Own(Zeros): Optional [payload: Inflight, optional: Option<H>];
    /// Gives the back-end an inflight record.
    32 SET_INFLIGHT_FD (Gate::needs(ProtocolFeatures::INFLIGHT_SHMFD)) One
        SetInflightFd[payload: Inflight, handle: H] => Acknowledged;
    /// Gives the back-end the socket of the vhost-user-gpu protocol.
    33 GPU_SET_SOCKET (Gate::ALWAYS) One GpuSetSocket[handle: H] => Acknowledged;
    /// Resets the device, but not the connection.
    34 RESET_DEVICE (Gate::needs(ProtocolFeatures::RESET_DEVICE)) None ResetDevice => Acknowledged;
    /// Kicks a ring in band.
    35 VRING_KICK (Gate::needs(ProtocolFeatures::INBAND_NOTIFICATIONS)) None VringKick[payload: VringState]
        => Acknowledged;
    /// Asks how many memory regions the back-end can hold.
    36 GET_MAX_MEM_SLOTS (Gate::needs(ProtocolFeatures::CONFIGURE_MEM_SLOTS)) None GetMaxMemSlots
        => Own(Close): None [payload: u64];
    /// Adds a memory region.
    37 ADD_MEM_REG (Gate::needs(ProtocolFeatures::CONFIGURE_MEM_SLOTS)) One
        AddMemReg[payload: MemoryRegion, handle: H] => Postcopy: None [payload: MemoryRegion];
    /// Removes a memory region; a descriptor may come and is closed unused.
    38 REM_MEM_REG (Gate::needs(ProtocolFeatures::CONFIGURE_MEM_SLOTS)) Tolerated RemMemReg[payload: MemoryRegion]
        => Acknowledged;
    /// Sets the device status.
    39 SET_STATUS (Gate::needs(ProtocolFeatures::STATUS)) None SetStatus[payload: u64] => Acknowledged;
    /// Asks for the device status.
    40 GET_STATUS (Gate::needs(ProtocolFeatures::STATUS)) None GetStatus => Own(Close): None [payload: u64];
    /// Asks for a shared object; QEMU forgets to name it.
    41 GET_SHARED_OBJECT (Gate::needs(ProtocolFeatures::SHARED_OBJECT)) None
        GetSharedObject[payload: Option<Uuid>] => Own(Empty): Optional [optional: Option<H>];
    /// Starts the transfer of the device's internal state through a descriptor.
    42 SET_DEVICE_STATE_FD (Gate::needs(ProtocolFeatures::DEVICE_STATE)) One
        SetDeviceStateFd[payload: Transfer, handle: H]
        => Own(ErrorWithoutDescriptor): UnlessBit8OrError [payload: u64, optional: Option<H>];
    /// Asks whether the transfer went well.
    43 CHECK_DEVICE_STATE (Gate::needs(ProtocolFeatures::DEVICE_STATE)) None CheckDeviceState => Status;
    /// Asks for the sizes of the device's shared memory regions.
    44 GET_SHMEM_CONFIG (Gate::needs(ProtocolFeatures::SHMEM)) None GetShmemConfig
        => Own(Close): None [payload: SharedMemoryConfig<'b>];
}
