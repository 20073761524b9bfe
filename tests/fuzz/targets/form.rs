//! A multipart form: whatever comes, and however it is cut, the same parts come out, or it is refused.

#![no_main]

use sandbox_api::multipart::{FormError, Parser, Part, Sink};
use sandbox_api::range::{Conditions, Selection};
use sandbox_api::time::Timestamp;

#[derive(Debug, Default, PartialEq)]
struct Told {
    parts: Vec<(Part, Vec<u8>)>,
    is_open: bool,
}

impl Sink for Told {
    type Error = FormError;

    fn begin(&mut self, part: Part) -> Result<(), FormError> {
        assert!(!self.is_open, "a part begins in another one");
        self.is_open = true;
        self.parts.push((part, Vec::new()));
        Ok(())
    }

    fn data(&mut self, data: &[u8]) -> Result<(), FormError> {
        assert!(self.is_open && !data.is_empty());
        self.parts.last_mut().expect("a part is open").1.extend(data);
        Ok(())
    }

    fn end(&mut self) -> Result<(), FormError> {
        assert!(self.is_open, "a part ends that is none");
        self.is_open = false;
        Ok(())
    }
}

fn parse(body: &[u8], size: usize) -> Result<Told, FormError> {
    let mut told = Told::default();
    let mut parser = Parser::new("multipart/form-data; boundary=XX")?;
    for piece in body.chunks(size) {
        parser.feed(piece, &mut told)?;
    }
    parser.finish()?;
    assert!(!told.is_open);
    Ok(told)
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((size, body)) = input.split_first() else { return };
    assert_eq!(parse(body, usize::from(*size).max(1)), parse(body, body.len().max(1)));
    let text = String::from_utf8_lossy(body);
    drop(Parser::new(&text));
    let size = u64::from(*size);
    let conditions =
        Conditions { range: Some(&text), if_modified_since: Some(&text), ..Conditions::default() };
    match conditions.select(size, 1) {
        Selection::Part(range) => assert!(range.start <= range.end && range.end <= size),
        Selection::Parts(ranges) => assert!(ranges.iter().all(|range| range.end <= size)),
        _ => {}
    }
    if let Some(time) = Timestamp::from_rfc3339(&text) {
        // Years that the format has are read as they are written.
        let again = Timestamp::from_rfc3339(&time.to_rfc3339()).expect("what is written is read");
        assert!(again == time || !(-62_135_596_800..=253_402_300_799).contains(&time.seconds));
    }
});
