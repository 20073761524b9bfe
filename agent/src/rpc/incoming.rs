//! Frames of ttrpc in a stream of bytes that comes in pieces.
//!
//! A frame is a header of ten bytes (length 4, stream id 4, type 1, flags 1; big-endian) and a payload of that length.
//! A payload that is too large is passed over, and its frame is told all the same: its sender gets an answer.

/// Type of a frame with a request.
pub(super) const REQUEST: u8 = 1;
/// Type of a frame with a response.
pub(super) const RESPONSE: u8 = 2;
/// Type of a frame with data of a stream, which no method of ours has.
pub(super) const DATA: u8 = 3;
/// Bytes of a header.
pub(super) const HEADER: usize = 10;
/// Bytes of a payload at most.
pub(super) const LARGEST: usize = 4 << 20;
/// Bytes that are read at once at least: more than most requests have.
const LEAST: usize = 2048;
/// Bytes that are read at once at most, where it is not known how many will come: a large request of a shim's.
const MOST: usize = 64 << 10;

/// A frame that is there as a whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) stream: u32,
    pub(super) kind: u8,
    /// The length that its header says.
    pub(super) length: usize,
    /// None where it is larger than [`LARGEST`].
    pub(super) payload: Option<&'a [u8]>,
}

/// What has been read and not been used yet.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    bytes: Vec<u8>,
    /// How many of them have been used.
    used: usize,
    /// Bytes of a payload that are passed over when they come.
    skip: usize,
    /// The header of the frame whose payload is passed over.
    skipped: Option<[u8; HEADER]>,
    /// Bytes of the last frame: the next one is likely to be as large.
    last: usize,
}

impl Incoming {
    /// Where to put what is read next; there is room for that.
    pub(super) fn space(&mut self) -> &mut Vec<u8> {
        self.bytes.drain(..self.used);
        self.used = 0;
        let want = match self.bytes.first_chunk().map(length) {
            Some(length) if length <= LARGEST => (HEADER + length).saturating_sub(self.bytes.len()),
            _ => self.last.clamp(LEAST, MOST),
        };
        self.bytes.reserve(want.max(LEAST));
        &mut self.bytes
    }

    /// Takes the next frame, if all of it is there.
    pub(super) fn next(&mut self) -> Option<Frame<'_>> {
        if self.skipped.is_none() {
            let header: [u8; HEADER] = *self.bytes[self.used..].first_chunk()?;
            let length = length(&header);
            if length <= LARGEST {
                let start = self.used + HEADER;
                let payload = start..start + length;
                self.bytes.get(payload.clone())?;
                self.used = payload.end;
                self.last = HEADER + length;
                return Some(frame(&header, Some(&self.bytes[payload])));
            }
            self.used += HEADER;
            (self.skip, self.skipped) = (length, Some(header));
        }
        let passed = self.skip.min(self.bytes.len() - self.used);
        self.used += passed;
        self.skip -= passed;
        if self.skip > 0 {
            return None;
        }
        self.skipped.take().map(|header| frame(&header, None))
    }

    /// Gives the buffer back where nothing is in it: a connection that is idle costs none.
    pub(super) fn rest(&mut self) {
        if self.used == self.bytes.len() {
            (self.bytes, self.used) = (Vec::new(), 0);
        }
    }
}

fn length(header: &[u8; HEADER]) -> usize {
    usize::try_from(word(header, 0)).unwrap_or(usize::MAX)
}

fn word(header: &[u8; HEADER], at: usize) -> u32 {
    u32::from_be_bytes(header[at..].first_chunk().copied().unwrap_or_default())
}

fn frame<'a>(header: &[u8; HEADER], payload: Option<&'a [u8]>) -> Frame<'a> {
    Frame { stream: word(header, 4), kind: header[8], length: length(header), payload }
}

/// The header of a response.
pub(super) fn response_header(stream: u32, length: usize) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    header[4..8].copy_from_slice(&stream.to_be_bytes());
    header[8] = RESPONSE;
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(stream: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = response_header(stream, payload.len()).to_vec();
        bytes[8] = kind;
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn frames_are_found_whatever_the_pieces() {
        let mut stream =
            [framed(1, REQUEST, b"abc"), framed(7, 3, b""), framed(u32::MAX, RESPONSE, &[9; 300])].concat();
        stream.extend(framed(5, REQUEST, &vec![1; LARGEST + 1]));
        stream.extend(framed(9, REQUEST, b"behind"));
        for size in [1, 2, 3, 7, 10, 11, 13, 300, 4096, stream.len()] {
            let (mut incoming, mut seen) = (Incoming::default(), Vec::new());
            for piece in stream.chunks(size) {
                let space = incoming.space();
                assert!(space.capacity() >= space.len() + LEAST && space.capacity() < 1 << 20);
                space.extend_from_slice(piece);
                while let Some(frame) = incoming.next() {
                    seen.push((frame.stream, frame.kind, frame.payload.map(<[u8]>::len)));
                }
                incoming.rest();
            }
            let wanted = [
                (1, REQUEST, Some(3)),
                (7, 3, Some(0)),
                (u32::MAX, RESPONSE, Some(300)),
                (5, REQUEST, None),
                (9, REQUEST, Some(6)),
            ];
            assert_eq!(seen, wanted, "pieces of {size}");
            assert_eq!(incoming.bytes.capacity(), 0);
        }
    }

    #[test]
    fn a_payload_is_read_at_once() {
        let mut incoming = Incoming::default();
        incoming.space().extend_from_slice(&framed(1, REQUEST, &vec![7; 200_000])[..HEADER]);
        assert!(incoming.next().is_none());
        let space = incoming.space();
        assert!(space.capacity() - space.len() >= 200_000);
        space.extend_from_slice(&vec![7; 200_000]);
        assert_eq!(incoming.next().unwrap().payload.unwrap().len(), 200_000);
        incoming.rest();
        assert!((MOST..MOST + LEAST).contains(&incoming.space().capacity()));
    }
}
