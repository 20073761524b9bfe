//! The documents of an image: index, manifest, configuration, or what `docker save` writes. The first byte says in which form
//! they come: a layout (even), an archive of one, an archive of `docker save`.

#![no_main]

use fuzz::{Parts, prepare};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((form, text)) = bytes.split_first() else { return };
    let parts = Parts::split(text);
    prepare(|directory| match form % 4 {
        1 => parts.archive(directory, "index.json"),
        3 => parts.archive(directory, "manifest.json"),
        _ => parts.layout(directory),
    });
});
