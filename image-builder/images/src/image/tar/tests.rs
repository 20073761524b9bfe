//! Archives made by hand, byte for byte, against the rules of Go's package.

use std::io::Cursor;

use super::*;

/// A header of a file, before its checksum.
fn header(flag: u8, name: &str, size: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[..name.len()].copy_from_slice(name.as_bytes());
    block[100..107].copy_from_slice(b"0000644");
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"00000000017");
    block[156] = flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block
}

fn summed(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

fn padded(content: &[u8]) -> Vec<u8> {
    let mut bytes = content.to_vec();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let length = (rest.len()..).find(|length| format!("{length}{rest}").len() == *length).unwrap();
    format!("{length}{rest}")
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let body: String = records.iter().map(|(key, value)| record(key, value)).collect();
    [&summed(header(b'x', "pax", body.len() as u64))[..], &padded(body.as_bytes())].concat()
}

fn member(flag: u8, name: &str, content: &[u8]) -> Vec<u8> {
    [&summed(header(flag, name, content.len() as u64))[..], &padded(content)].concat()
}

const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Every member with its content, expanded.
fn read(archive: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, TarError> {
    let mut reader = Reader::new(Stream(archive));
    let mut found = Vec::new();
    while let Some(member) = reader.next()? {
        let mut content = vec![0; member.size as usize];
        let whole = [Fragment { offset: 0, len: member.size }];
        for fragment in member.fragments.as_deref().unwrap_or(&whole) {
            let end = fragment.end() as usize;
            reader.read_exact(&mut content[fragment.offset as usize..end]).map_err(cut)?;
        }
        assert_eq!(reader.left(), 0);
        found.push((member, content));
    }
    Ok(found)
}

fn one(archive: &[&[u8]]) -> (Member, Vec<u8>) {
    let mut found = read(&[&archive.concat()[..], &END].concat()).unwrap();
    assert_eq!(found.len(), 1);
    found.remove(0)
}

fn refusal(archive: &[&[u8]]) -> String {
    read(&archive.concat()).unwrap_err().to_string()
}

/// Changes a field of a header before its sum is made.
fn with(mut block: [u8; BLOCK], at: usize, bytes: &[u8]) -> [u8; BLOCK] {
    block[at..at + bytes.len()].copy_from_slice(bytes);
    summed(block)
}

#[test]
fn numbers_are_octal_blank_or_of_base_256() {
    for (field, value) in [
        (&b"0000644\0"[..], Some(0o644)),
        (b"   644 \0", Some(0o644)),
        (b"        ", Some(0)),
        (b"\0\0\0\0\0\0\0\0", Some(0)),
        (b"12\x00junk!", Some(0o12)),
        (b"\x80\0\0\0\0\0\x01\x02", Some(0x102)),
        (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
        (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
        (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
        (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
        (b"0000689\0", None),
        (b"12 34\0\0\0", None),
        (b"+0000644", None),
        (b"-0000644", None),
    ] {
        assert_eq!(header::number(field), value, "{field:?}");
    }
}

#[test]
fn blank_fields_and_owners_below_zero_are_read() {
    let (found, _) = one(&[&with(header(b'0', "f", 0), 100, &[b' '; 8])]);
    assert_eq!((found.mode, found.mtime), (0, (15, 0)));
    let minus_two = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe];
    let (found, _) = one(&[&with(header(b'0', "f", 0), 108, &minus_two)]);
    assert_eq!(found.uid, -2);
    assert!(refusal(&[&with(header(b'0', "f", 0), 108, b"12x4567\0")]).contains("number"));
    assert!(refusal(&[&with(header(b'0', "f", 0), 124, &[0xff; 12])]).contains("negative size"));
}

#[test]
fn types_without_content_have_none_whatever_the_header_says() {
    for flag in b'1'..=b'6' {
        let archive = [&summed(header(flag, "a", 700))[..], &member(b'0', "b", b"data"), &END].concat();
        let found = read(&archive).unwrap();
        assert_eq!((found[0].0.size, found[0].0.flag, found.len()), (0, flag, 2));
        assert_eq!(found[1].1, b"data");
    }
    // Only the old mark of a file makes a directory of a slash.
    assert_eq!(one(&[&summed(header(0, "d/", 9))]).0.flag, flag::DIRECTORY);
    assert_eq!(one(&[&member(0, "f", b"x")]).0.flag, flag::REGULAR);
    assert_eq!(one(&[&member(b'0', "d/", b"x")]).0.flag, flag::REGULAR);
}

#[test]
fn records_stand_in_for_fields_unless_they_are_empty() {
    let records = [
        ("path", "long"),
        ("uid", "-2"),
        ("gid", "5000000000"),
        ("mtime", "-1.5"),
        ("size", "4"),
        ("SCHILY.xattr.user.a", ""),
        ("comment", "any"),
    ];
    let (found, content) = one(&[&pax(&records), &summed(header(b'0', "short", 0)), &padded(b"data")]);
    assert_eq!((&found.path[..], &content[..]), (&b"long"[..], &b"data"[..]));
    assert_eq!((found.uid, found.gid, found.mtime), (-2, 5_000_000_000, (-1, -500_000_000)));
    assert_eq!(found.xattrs.into_iter().collect::<Vec<_>>(), [(b"user.a".to_vec(), Vec::new())]);
    let empty = [("path", ""), ("size", ""), ("mtime", ""), ("uid", "")];
    let (found, content) = one(&[&pax(&empty), &member(b'0', "short", b"data")]);
    assert_eq!((&found.path[..], &content[..], found.mtime), (&b"short"[..], &b"data"[..], (15, 0)));
    for (key, value) in [("uid", "x"), ("size", "-1"), ("mtime", "1.x"), ("atime", ""), ("ctime", "now")] {
        let archive = [&pax(&[(key, value)])[..], &member(b'0', "f", b""), &END].concat();
        assert_eq!(read(&archive).is_err(), !value.is_empty(), "{key}={value}");
    }
}

#[test]
fn members_of_more_than_8_gib_are_read() {
    /// Zeros, which nobody has to store.
    struct Zeros(u64);
    impl Read for Zeros {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = (buffer.len() as u64).min(self.0) as usize;
            buffer[..count].fill(0);
            self.0 -= count as u64;
            Ok(count)
        }
    }
    impl Source for io::Chain<io::Chain<Cursor<Vec<u8>>, Zeros>, Cursor<Vec<u8>>> {
        fn skip(&mut self, len: u64) -> io::Result<u64> {
            let (front, zeros) = self.get_mut().0.get_mut();
            let first = len.min(front.get_ref().len() as u64 - front.position());
            front.set_position(front.position() + first);
            let second = (len - first).min(zeros.0);
            zeros.0 -= second;
            let rest = io::copy(&mut self.by_ref().take(len - first - second), &mut io::sink())?;
            Ok(first + second + rest)
        }
    }
    let size = 9u64 << 30;
    let front = [&pax(&[("size", &size.to_string())])[..], &summed(header(b'0', "big", 0))].concat();
    let behind = [&member(b'0', "next", b"data")[..], &END].concat();
    let archive = Cursor::new(front).chain(Zeros(size)).chain(Cursor::new(behind));
    let mut reader = Reader::new(archive);
    assert_eq!(reader.next().unwrap().map(|member| member.size), Some(size));
    let mut some = [1; 9];
    reader.read_exact(&mut some).unwrap();
    assert_eq!(some, [0; 9]);
    assert_eq!(reader.next().unwrap().map(|member| member.path), Some(b"next".to_vec()));
    assert!(reader.next().unwrap().is_none());
    // The same in base 256.
    let mut base256 = [0; 12];
    base256[0] = 0x80;
    base256[4..].copy_from_slice(&size.to_be_bytes());
    let block = with(header(b'0', "big", 0), 124, &base256);
    let mut reader = Reader::new(Stream(&block[..]));
    assert_eq!(reader.next().unwrap().map(|member| member.size), Some(size));
    assert!(matches!(reader.next(), Err(TarError::Truncated)));
}

#[test]
fn a_sparse_file_is_the_same_in_every_format() {
    let expected = b"\0\0abc\0\0\0d\0";
    let check = |archive: &[&[u8]]| {
        let (found, content) = one(archive);
        assert_eq!((&found.path[..], &content[..]), (&b"name"[..], &expected[..]), "{found:?}");
    };
    let data = member(b'0', "GNUSparseFile.1/name", b"abcd");
    let map = "2\n2\n3\n8\n1\n".to_owned();
    let version1 = [&padded(map.as_bytes())[..], b"abcd"].concat();
    let named = [("GNU.sparse.name", "name"), ("GNU.sparse.numblocks", "2")];
    let with = |more: &[(&str, &str)]| pax(&[&named[..], more].concat());
    check(&[
        &with(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "10")]),
        &member(b'0', "GNUSparseFile.1/name", &version1),
    ]);
    check(&[&with(&[("GNU.sparse.size", "10"), ("GNU.sparse.map", "2,3,8,1")]), &data]);
    let pieces = [("offset", "2"), ("numbytes", "3"), ("offset", "8"), ("numbytes", "1")];
    let pieces = pieces.map(|(key, value)| (format!("GNU.sparse.{key}"), value));
    let pieces: Vec<(&str, &str)> = pieces.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    check(&[&with(&[&[("GNU.sparse.size", "10")][..], &pieces].concat()), &data]);
    let mut old = header(b'S', "name", 4);
    old[257..265].copy_from_slice(b"ustar  \0");
    for (at, value) in [(386, 2), (398, 3), (483, 10)] {
        old[at..at + 11].copy_from_slice(format!("{value:011o}").as_bytes());
    }
    old[482] = 1;
    let mut more = [0; BLOCK];
    for (at, value) in [(0, 8), (12, 1)] {
        more[at..at + 11].copy_from_slice(format!("{value:011o}").as_bytes());
    }
    check(&[&summed(old), &more, &padded(b"abcd")]);
}

#[test]
fn impossible_sparse_maps_are_refused() {
    let version0 = |map: &str, blocks: &str, size: &str| {
        pax(&[("GNU.sparse.map", map), ("GNU.sparse.numblocks", blocks), ("GNU.sparse.size", size)])
    };
    let file = member(b'0', "f", b"abcd");
    for (map, blocks, size) in [
        ("2,3", "1", "4"),
        ("5,1,2,3", "2", "10"),
        ("2,3,4,1", "2", "10"),
        ("-2,3", "1", "10"),
        ("9223372036854775807,1", "1", "9223372036854775807"),
        ("2,3", "2", "10"),
        ("2,3", "x", "10"),
        ("2", "1", "10"),
        ("2,3", "1", "-10"),
    ] {
        assert!(refusal(&[&version0(map, blocks, size), &file]).contains("sparse"), "{map}");
    }
    let link = summed(header(b'1', "f", 0));
    assert!(refusal(&[&version0("0,1", "1", "4"), &link]).contains("sparse"));
    assert!(refusal(&[&pax(&[("GNU.sparse.numbytes", "1")]), &file]).contains("out of order"));
    assert!(refusal(&[&summed(header(b'S', "f", 0))]).contains("a format that has none"));
    let version1 = pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "9")]);
    for map in ["x\n", "-1\n", "1\n0\nx\n", "99999999999999999999\n"] {
        let file = member(b'0', "f", &padded(map.as_bytes()));
        assert!(refusal(&[&version1, &file]).contains("sparse map"), "{map:?}");
    }
    // A map without an end.
    let file = member(b'0', "f", &padded(b"1\n0\n"));
    assert!(matches!(read(&[&version1[..], &file].concat()), Err(TarError::Truncated)));
    let file = member(b'0', "f", &[b'1'; 2 << 20]);
    assert!(refusal(&[&version1, &file]).contains("more than 1 MiB"));
}

#[test]
fn names_come_from_where_the_format_has_them() {
    let long = [&member(b'L', "././@LongLink", b"long\0junk")[..], &member(b'K', "l", b"target\0")].concat();
    let (found, _) = one(&[&long, &pax(&[("path", "pax")]), &summed(header(b'2', "short", 0))]);
    assert_eq!((&found.path[..], &found.link[..]), (&b"long"[..], &b"target"[..]));
    let (found, _) = one(&[&with(header(b'0', "name", 0), 345, b"dir")]);
    assert_eq!(found.path, b"dir/name");
    let mut gnu = header(b'0', "name", 0);
    gnu[257..265].copy_from_slice(b"ustar  \0");
    gnu[345..356].copy_from_slice(b"00000000017");
    assert_eq!(one(&[&summed(gnu)]).0.path, b"name");
    // What Go's writer made of it before version 1.8.
    assert_eq!(one(&[&with(gnu, 345, b"prefix/deep\0")]).0.path, b"prefix/deep/name");
    // A second header replaces the first one, and a global one ends what was said before.
    let twice = [pax(&[("path", "a"), ("uid", "7")]), pax(&[("path", "b")])].concat();
    let (found, _) = one(&[&twice, &member(b'0', "f", b"")]);
    assert_eq!((&found.path[..], found.uid), (&b"b"[..], 0));
    let body = record("path", "global");
    let (found, _) =
        one(&[&pax(&[("path", "a")]), &member(b'g', "g", body.as_bytes()), &member(b'0', "f", b"")]);
    assert_eq!(found.path, b"f");
}

#[test]
fn malformed_records_are_refused() {
    for body in ["9 a=b\n", "2", "1 a=b\n", "6 a=b\n9", "6 =bc\n", "6 abc\n", "x a=b\n", "6 a=b ", "4 =\n"] {
        assert!(pax::records(body.as_bytes()).is_err(), "{body:?}");
    }
    assert!(pax::records(b"+6 a=b\n").is_err(), "the sign counts");
    assert!(pax::records(b"6 a=b\n").is_ok() && pax::records(b"").is_ok());
    // A NUL in a name is where some would cut it.
    for key in ["path", "linkpath", "uname", "gname", "a\0b"] {
        assert!(pax::records(record(key, "a\0b").as_bytes()).is_err(), "{key}");
    }
    assert!(pax::records(record("SCHILY.xattr.user.a", "a\0b\n=").as_bytes()).is_ok());
    let large = header(b'x', "pax", MAX_SPECIAL + 1);
    assert!(refusal(&[&summed(large)]).contains("more than 1 MiB"));
}

#[test]
fn only_two_blocks_of_zeros_or_the_end_of_the_file_end_an_archive() {
    let file = member(b'0', "f", b"data");
    let zeros = [0; BLOCK];
    for end in [&END[..], &zeros, b"", &[&END[..], b"anything"].concat()] {
        assert_eq!(read(&[&file[..], end].concat()).unwrap().len(), 1);
    }
    // The padding may be missing.
    assert_eq!(read(&file[..BLOCK + 4]).unwrap().len(), 1);
    assert!(refusal(&[&file, &zeros, &file]).contains("one block of zeros"));
    assert!(matches!(read(&[&file[..], &zeros[..9]].concat()), Err(TarError::Truncated)));
    assert!(matches!(read(&[&file[..], &zeros, &zeros[..9]].concat()), Err(TarError::Truncated)));
    assert!(matches!(read(&file[..BLOCK + 3]), Err(TarError::Truncated)));
    assert!(matches!(read(&pax(&[("path", "a")])[..BLOCK + 3]), Err(TarError::Truncated)));
    assert!(refusal(&[&[b'x'; BLOCK]]).contains("checksum"));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..4096)) {
        drop(read(&bytes));
    }

    #[test]
    fn any_record_is_read_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
        drop(pax::records(&bytes));
    }

    /// Fields of any content in a header whose checksum is right, and what follows of any content.
    #[test]
    fn any_header_is_read_or_refused(
        flag in proptest::sample::select(&b"\x000123456789xgLKS"[..]),
        field in proptest::collection::vec(proptest::prelude::any::<u8>(), 1..40),
        at in 0usize..470,
        rest in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2048),
    ) {
        let archive = [&with(header(flag, "name", 4), at, &field)[..], &rest].concat();
        let mut reader = Reader::new(Stream(&archive[..]));
        while let Ok(Some(_)) = reader.next() {}
    }
}
