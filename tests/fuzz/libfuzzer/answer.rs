#![no_main]

#[expect(dead_code, reason = "each program drives one of them")]
#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::answer::check(data));
