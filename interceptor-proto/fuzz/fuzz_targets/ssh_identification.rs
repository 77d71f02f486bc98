#![no_main]
libfuzzer_sys::fuzz_target!(|input: &[u8]| interceptor_proto::fuzzing::ssh_identification(input));
