//! Bytes: the table of back-end requests and of their replies.
//!
//! This is the only list of them. Source: vhost-user, section "Back-end message types".

use core::num::NonZeroU64;

use crate::{
    assembler::{Frame, Handles, Transmit},
    channel::{content_message, with_handles, write_number, write_reply},
    error::{ApiMisuse, DecodeError},
};

use super::{
    feature::ProtocolFeatures,
    fs_cache::CacheEntries,
    header::Header,
    iotlb::Iotlb,
    misfit::Found,
    payload::{Body, Form, PayloadKind},
    row::{Channel, Gate, HandleRule, MessageName, Refusal, ReplyRule, Row, Table},
    shared::{SharedMemoryMap, Uuid},
    table::{content, handle, handle_rule, payload_kind, replies, requests, take},
    vring::{VringArea, VringState},
    writer::Content,
};

/// The channel itself.
const CHANNEL: ProtocolFeatures = ProtocolFeatures::BACKEND_REQ;
/// The channel with descriptors.
const WITH_DESCRIPTORS: ProtocolFeatures = CHANNEL.union(ProtocolFeatures::BACKEND_SEND_FD);

requests! {
    channel Backend;
    /// The id of a back-end request; open, so that unknown ids survive.
    code BackendCode;
    /// A request of the back-end, with what it carries. `H` is a descriptor, or whatever stands
    /// for one.
    request BackendRequest<'b, H>;
    /// What answers a back-end request.
    reply BackendReply<H>;

    /// Reports an IOTLB miss or a refused access.
    1 IOTLB_MSG (Gate::needs(CHANNEL).and(Gate::ACCESS_PLATFORM)) None
        IotlbMsg[payload: Iotlb] => Acknowledged;
    /// The configuration space changed.
    2 CONFIG_CHANGE_MSG (Gate::needs(CHANNEL.union(ProtocolFeatures::CONFIG))) None ConfigChangeMsg
        => Acknowledged;
    /// Offers a ring's doorbell, or takes it away.
    3 VRING_HOST_NOTIFIER_MSG (Gate::needs(WITH_DESCRIPTORS.union(ProtocolFeatures::HOST_NOTIFIER))) UnlessBit8
        VringHostNotifierMsg[payload: VringArea, optional: Option<H>] => Acknowledged;
    /// Interrupts in band: buffers of a ring were used.
    4 VRING_CALL (Gate::needs(CHANNEL.union(ProtocolFeatures::INBAND_NOTIFICATIONS))) None
        VringCall[payload: VringState] => Acknowledged;
    /// Reports a ring's error in band.
    5 VRING_ERR (Gate::needs(CHANNEL.union(ProtocolFeatures::INBAND_NOTIFICATIONS))) None
        VringErr[payload: VringState] => Acknowledged;
    /// Offers an object to other devices.
    6 SHARED_OBJECT_ADD (Gate::needs(CHANNEL.union(ProtocolFeatures::SHARED_OBJECT))) None
        SharedObjectAdd[payload: Uuid] => Acknowledged;
    /// Takes an object back.
    7 SHARED_OBJECT_REMOVE (Gate::needs(CHANNEL.union(ProtocolFeatures::SHARED_OBJECT))) None
        SharedObjectRemove[payload: Uuid] => Acknowledged;
    /// Asks for an object of another device.
    8 SHARED_OBJECT_LOOKUP (Gate::needs(WITH_DESCRIPTORS.union(ProtocolFeatures::SHARED_OBJECT))) None
        SharedObjectLookup[payload: Uuid] => Own(ErrorNumber): Optional [payload: u64, optional: Option<H>];
    /// Maps a part of a file into a shared memory region.
    9 SHMEM_MAP (Gate::needs(WITH_DESCRIPTORS.union(ProtocolFeatures::SHMEM))) One
        ShmemMap[payload: SharedMemoryMap, handle: H] => Acknowledged;
    /// Unmaps a part of a shared memory region.
    10 SHMEM_UNMAP (Gate::needs(WITH_DESCRIPTORS.union(ProtocolFeatures::SHMEM))) None
        ShmemUnmap[payload: SharedMemoryMap] => Acknowledged;
    /// Maps parts of a file into the virtio-fs cache window, in the older dialects. These four are
    /// named after the ids of [`Dialect::Private1000`](crate::Dialect::Private1000); see there
    /// which dialect calls them what.
    1000 FS_MAP (Gate::needs(WITH_DESCRIPTORS)) One
        CacheMap[payload: CacheEntries<'b>, handle: H] => AcknowledgedWhenFlagged;
    /// Unmaps parts of the cache window, or all of it.
    1001 FS_UNMAP (Gate::needs(WITH_DESCRIPTORS)) None
        CacheUnmap[payload: CacheEntries<'b>] => AcknowledgedWhenFlagged;
    /// Writes mapped parts of the cache window back to their files.
    1002 FS_SYNC (Gate::needs(WITH_DESCRIPTORS)) None
        CacheSync[payload: CacheEntries<'b>] => AcknowledgedWhenFlagged;
    /// Reads or writes a file for the back-end, which cannot reach the memory. The answer counts
    /// bytes; below zero it is an error.
    1003 FS_IO (Gate::needs(WITH_DESCRIPTORS)) Optional
        CacheIo[payload: CacheEntries<'b>, optional: Option<H>]
        => OwnWhenFlagged(NegativeNumber): None [payload: i64];
}
