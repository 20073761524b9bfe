//! Compression of an initrd, in the frames that the kernel's decompressors understand.
//!
//! Single-threaded and without time stamps or names, so that the same input gives the same bytes. Must never be used
//! with a format that the `kata` kernel profile cannot read (RD_ZSTD, RD_GZIP, RD_LZ4, RD_XZ).

use std::fmt;
use std::io::{self, Write};

use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
use liblzma::write::XzEncoder;

/// How an initrd is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Compression {
    /// Small, and quick to unpack. The default.
    #[default]
    Zstd,
    /// For kernels that support nothing else.
    Gzip,
    /// Fastest to unpack.
    Lz4,
    /// The smallest, and the slowest to unpack.
    Xz,
    /// No compression. Boots fastest if the VMM maps the file.
    None,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
            Self::Xz => "xz",
            Self::None => "none",
        })
    }
}

/// Changes whenever the same input would come out different.
pub const WRITER: &[u8] = b"zstd 19, gzip 9, lz4 legacy, xz 9 crc32, version 1";

/// zstd's highest level that needs no more than 8 MiB of window.
const ZSTD_LEVEL: i32 = 19;
/// xz's highest level.
const XZ_LEVEL: u32 = 9;
/// What the kernel allocates while it unpacks.
const XZ_DICTIONARY: u32 = 8 << 20;
/// What the archives of a release are packed with: half an hour more would save a few percent.
const ARCHIVE_LEVEL: u32 = 6;
/// Disks of one flavour have the same files, some 20 MB from each other.
const ARCHIVE_DICTIONARY: u32 = 64 << 20;
/// Magic number of LZ4's legacy frame, the only one the kernel reads.
const LZ4_MAGIC: u32 = 0x184c_2102;
/// Uncompressed bytes of a block of the legacy frame; the kernel's buffer is that large.
const LZ4_BLOCK: usize = 8 << 20;

/// Compresses `bytes`.
///
/// # Errors
/// When the compressor fails, which means that memory ran out.
pub fn compress(bytes: &[u8], compression: Compression) -> io::Result<Vec<u8>> {
    match compression {
        Compression::None => Ok(bytes.to_vec()),
        Compression::Zstd => zstd::bulk::compress(bytes, ZSTD_LEVEL),
        Compression::Gzip => {
            let mut encoder =
                flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::best());
            encoder.write_all(bytes)?;
            encoder.finish()
        }
        Compression::Xz => {
            let mut options = LzmaOptions::new_preset(XZ_LEVEL)?;
            options.dict_size(XZ_DICTIONARY);
            let mut filters = Filters::new();
            filters.lzma2(&options);
            // The kernel knows no other sum than this one.
            let stream = Stream::new_stream_encoder(&filters, Check::Crc32)?;
            let mut encoder = XzEncoder::new_stream(Vec::new(), stream);
            encoder.write_all(bytes)?;
            encoder.finish()
        }
        Compression::Lz4 => {
            let mut out = LZ4_MAGIC.to_le_bytes().to_vec();
            for block in bytes.chunks(LZ4_BLOCK) {
                let packed = lz4_flex::block::compress(block);
                let size = u32::try_from(packed.len()).map_err(io::Error::other)?;
                out.extend(size.to_le_bytes());
                out.extend(packed);
            }
            Ok(out)
        }
    }
}

/// Compresses an archive of a release into `out`, as xz and dpkg read it. [`XzEncoder::finish`] ends it.
///
/// # Errors
/// When memory runs out.
pub fn archive<W: Write>(out: W) -> io::Result<XzEncoder<W>> {
    let mut options = LzmaOptions::new_preset(ARCHIVE_LEVEL)?;
    options.dict_size(ARCHIVE_DICTIONARY);
    let mut filters = Filters::new();
    filters.lzma2(&options);
    Ok(XzEncoder::new_stream(out, Stream::new_stream_encoder(&filters, Check::Crc64)?))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::{Command, Stdio};

    use super::*;

    /// Compressible but not trivial bytes; for LZ4 more than one of its blocks.
    fn sample(format: Compression) -> Vec<u8> {
        let size = if format == Compression::Lz4 { LZ4_BLOCK + 70_000 } else { 300_000 };
        (0..size as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 28) as u8 ^ (n >> 12) as u8).collect()
    }

    /// Reads the legacy frame by its description.
    fn lz4_legacy(mut frame: &[u8]) -> Vec<u8> {
        assert_eq!(frame[..4], [0x02, 0x21, 0x4c, 0x18]);
        frame = &frame[4..];
        let mut out = Vec::new();
        while !frame.is_empty() {
            let size = u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize;
            out.extend(lz4_flex::block::decompress(&frame[4..4 + size], LZ4_BLOCK).unwrap());
            frame = &frame[4 + size..];
        }
        out
    }

    #[test]
    fn every_format_gives_the_input_back_and_the_same_bytes_twice() {
        for (format, unpack) in [
            (Compression::None, (|b: &[u8]| b.to_vec()) as fn(&[u8]) -> Vec<u8>),
            (Compression::Zstd, |b| zstd::stream::decode_all(b).unwrap()),
            (Compression::Gzip, |b| {
                let mut out = Vec::new();
                flate2::read::GzDecoder::new(b).read_to_end(&mut out).unwrap();
                out
            }),
            (Compression::Xz, |b| {
                let mut out = Vec::new();
                liblzma::read::XzDecoder::new(b).read_to_end(&mut out).unwrap();
                out
            }),
            (Compression::Lz4, lz4_legacy),
        ] {
            let bytes = sample(format);
            let packed = compress(&bytes, format).unwrap();
            assert!(unpack(&packed) == bytes, "{format} does not give the input back");
            assert!(compress(&bytes, format).unwrap() == packed, "{format} differs the second time");
            assert!(format == Compression::None || packed.len() < bytes.len(), "{format} does not compress");
        }
    }

    #[test]
    fn the_systems_tools_agree() {
        for (format, program) in [
            (Compression::Zstd, "zstd"),
            (Compression::Gzip, "gzip"),
            (Compression::Lz4, "lz4"),
            (Compression::Xz, "xz"),
        ] {
            let bytes = sample(format);
            let packed = compress(&bytes, format).unwrap();
            let child =
                Command::new(program).args(["-d", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
            let Ok(mut child) = child else {
                eprintln!("skipped: {program} is not installed");
                continue;
            };
            let mut stdin = child.stdin.take().unwrap();
            let writer = std::thread::spawn(move || stdin.write_all(&packed).unwrap());
            let output = child.wait_with_output().unwrap();
            writer.join().unwrap();
            assert!(
                output.status.success() && output.stdout == bytes,
                "{program} does not give the input back"
            );
        }
    }

    #[test]
    fn gzip_carries_neither_time_nor_name() {
        let packed = compress(b"x", Compression::Gzip).unwrap();
        assert_eq!(packed[3], 0, "no optional fields");
        assert_eq!(packed[4..8], [0; 4], "no time");
    }

    #[test]
    fn nothing_is_a_valid_frame() {
        assert_eq!(lz4_legacy(&compress(b"", Compression::Lz4).unwrap()), b"");
        assert_eq!(zstd::stream::decode_all(&compress(b"", Compression::Zstd).unwrap()[..]).unwrap(), b"");
    }
}
