#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vhost_fuzz::check(vhost_fuzz::inflight::run, data));
