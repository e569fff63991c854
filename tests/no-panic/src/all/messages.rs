//! The messages of both directions.

use vhost_core::*;

use crate::Handle;

reach! { messages;
    wire::backend_request::BackendCode: row, name, message;
    wire::backend_request::BackendReply<Handle>: code, decode, encode;
    wire::backend_request::BackendRequest<Handle>: maps = maps, into_handle, code, decode, encode;
    wire::config::ConfigHeader: new, offset, size, flags;
    wire::crypto::AsymmetricLayout: new, algorithm, kind, key_length, padding, hash;
    wire::crypto::CryptoSession: new, with_symmetric, with_asymmetric, op_code, parameters, session_id, symmetric,
        asymmetric;
    wire::crypto::SymmetricLayout: new, cipher, cipher_key_length, hash, digest_length, authentication_key_length,
        associated_length, operation, direction, hash_mode, chaining;
    wire::frontend_request::FrontendCode: row, name, message;
    wire::frontend_request::FrontendReply<Handle>: code, decode, encode;
    wire::frontend_request::FrontendRequest<Handle>: code, decode, encode;
    wire::fs_cache::CacheEntries: new, with_flags, flags, iter = entries, len, is_empty;
    wire::fs_cache::EntryLayout: new, file_offset, cache_offset, length, access;
    wire::fs_cache::ListHeader: new, flags, count;
    wire::header::Header: new, request, flags, size, request_of, reply_to, version, is_reply, needs_reply, split_from,
        to_bytes;
    wire::inflight::Inflight: new, mmap_size, mmap_offset, num_queues, queue_size;
    wire::iotlb::Iotlb: new, iova, size, user_address, permission, message_type;
    wire::log::Log: new, size, offset;
    wire::memory::MemoryRegion: new;
    wire::memory::MemoryTable: new, len, is_empty, iter = regions;
    wire::memory::RegionLayout: new, guest_address, size, user_address, mmap_offset;
    wire::memory::SinglePadding: new;
    wire::memory::TableHeader: new, count;
    wire::memory::XenRegionLayout: new, guest_address, size, user_address, mmap_offset, xen_flags, domain_id;
    wire::migration::Transfer: new, direction, phase;
    wire::payload::Form: with_dialect, request, reply, with_trailing_bytes;
    wire::payload::PayloadKind: size, before_image;
    wire::payload::SizeRule: allows;
    wire::row::Gate: protocol, virtio, gpu, negotiation, enforcement;
    wire::row::MessageName: row, name;
    wire::row::Row: id;
    wire::shared::SharedMemoryConfig: new, size, sizes = sizes;
    wire::shared::SharedMemoryHeader: new, regions;
    wire::shared::SharedMemoryMap: new, region, file_offset, region_offset, length, flags;
    wire::shared::Uuid: new, bytes;
    wire::vring::VringAddr: new, index, flags, descriptor, used, available, log, logs_used;
    wire::vring::VringArea: new, bits, size, offset, target;
    wire::vring::VringBase: split, packed, to_num;
    wire::vring::VringDescriptor: new, bits, with_descriptor, without_descriptor, index, has_descriptor;
    wire::vring::VringState: new, index, num;
}

fn maps(request: &BackendRequest<'_, Handle>, each: fn(MapChange)) {
    request.maps().for_each(each);
}

fn entries(list: &CacheEntries<'_>, each: fn(CacheEntry)) {
    list.iter().for_each(each);
}

fn regions(table: &MemoryTable<'_>, each: fn(MemoryRegion)) {
    table.iter().for_each(each);
}

fn sizes(config: &wire::shared::SharedMemoryConfig<'_>, each: fn(u64)) {
    config.sizes().for_each(each);
}
