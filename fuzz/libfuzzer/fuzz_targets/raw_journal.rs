#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tegula_fuzz::raw_journal(data));
