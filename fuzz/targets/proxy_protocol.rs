#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| etna_fuzz::proxy::proxy_protocol::check(data));
