//! Sets of bits.

use vhost_core::{uapi, wire};

reach! { features;
    uapi::bits::BackendFeatures: empty, all, bits, from_bits, from_bits_truncate, from_bits_retain, from_name,
        is_empty, is_all, intersects, contains, insert, remove, toggle, set, intersection, union, difference,
        symmetric_difference, complement, iter, iter_names;
    uapi::bits::DeviceStatus: empty, all, bits, from_bits, from_bits_truncate, from_bits_retain, from_name, is_empty,
        is_all, intersects, contains, insert, remove, toggle, set, intersection, union, difference,
        symmetric_difference, complement, iter, iter_names;
    wire::feature::ProtocolFeatures: empty, all, bits, from_bits, from_bits_truncate, from_bits_retain, from_name,
        is_empty, is_all, intersects, contains, insert, remove, toggle, set, intersection, union, difference,
        symmetric_difference, complement, iter, iter_names, broken_dependency, without_broken;
    wire::feature::VirtioFeatures: empty, all, bits, from_bits, from_bits_truncate, from_bits_retain, from_name,
        is_empty, is_all, intersects, contains, insert, remove, toggle, set, intersection, union, difference,
        symmetric_difference, complement, iter, iter_names;
    wire::fs_cache::CacheAccess: empty, all, bits, from_bits, from_bits_truncate, from_bits_retain, from_name,
        is_empty, is_all, intersects, contains, insert, remove, toggle, set, intersection, union, difference,
        symmetric_difference, complement, iter, iter_names;
    wire::gpu::GpuFeatures: empty, all, bits, from_bits, from_bits_truncate, from_bits_retain, from_name, is_empty,
        is_all, intersects, contains, insert, remove, toggle, set, intersection, union, difference,
        symmetric_difference, complement, iter, iter_names;
}
