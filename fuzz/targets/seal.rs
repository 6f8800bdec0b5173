#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| etna_fuzz::store::seal::check(data));
