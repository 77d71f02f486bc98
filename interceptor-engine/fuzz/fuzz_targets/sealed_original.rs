#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| interceptor_engine::fuzzing::sealed_original(input));
