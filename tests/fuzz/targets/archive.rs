//! An image archive, a tar archive as a whole.

#![no_main]

use fuzz::{prepare, sealed};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    prepare(|directory| {
        let path = directory.join("image.tar");
        std::fs::write(&path, sealed(bytes)).map(|()| path)
    });
});
