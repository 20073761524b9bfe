//! A tar archive of a tree: whatever comes, it is read or refused, and what is read can be written and read again.

#![no_main]

use std::io::Read as _;

use sandbox_api::tar::{END, Entry, MOST_EXTENDED, Reader};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let sealed = fuzz::sealed(input);
    let mut reader = Reader::new(sealed.as_slice());
    while let Ok(Some(entry)) = reader.next() {
        assert!(entry.path.len() as u64 <= MOST_EXTENDED && entry.link.len() as u64 <= MOST_EXTENDED);
        let mut data = Vec::new();
        if reader.read_to_end(&mut data).is_err() {
            return;
        }
        assert_eq!(data.len() as u64, entry.size);
        again(&entry, &data);
    }
});

fn again(entry: &Entry, data: &[u8]) {
    // Names end at a NUL where they are short, and with one a directory's name is told from a file's.
    if entry.path.contains(&0)
        || entry.link.contains(&0)
        || entry.path.ends_with(b"/")
        || entry.path.is_empty()
    {
        return;
    }
    let mut archive = entry.encode();
    // Longer than what is read of one entry.
    if archive.len() as u64 > MOST_EXTENDED {
        return;
    }
    archive.extend(data);
    archive.extend(&END[..Entry::padding(entry.size)]);
    archive.extend(END);
    let mut reader = Reader::new(archive.as_slice());
    let read = reader.next().expect("what is written is read").expect("there is an entry");
    assert_eq!(&read, entry);
}
