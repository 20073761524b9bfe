//! Which part of a file a request asks for, decided as Go's `http.ServeContent` decides it.
//!
//! Conditions come first (RFC 9110, section 13.2.2), then `If-Range`, then `Range`. A file has a time of modification and no
//! entity tag, so no tag that a client names is the file's.

use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Most ranges of one request that are looked at. A request for more gets the whole file, which RFC 9110 allows.
pub const MOST_RANGES: usize = 128;

/// Headers of a request that decide. None is a header that the request does not have.
#[derive(Debug, Clone, Copy, Default)]
pub struct Conditions<'a> {
    /// `If-Match`.
    pub if_match: Option<&'a str>,
    /// `If-Unmodified-Since`.
    pub if_unmodified_since: Option<&'a str>,
    /// `If-None-Match`.
    pub if_none_match: Option<&'a str>,
    /// `If-Modified-Since`.
    pub if_modified_since: Option<&'a str>,
    /// `If-Range`.
    pub if_range: Option<&'a str>,
    /// `Range`.
    pub range: Option<&'a str>,
}

/// What the answer is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// 200 with all of it.
    Whole,
    /// 206 with these bytes.
    Part(Range<u64>),
    /// 206 with several pieces, as `multipart/byteranges`.
    Parts(Vec<Range<u64>>),
    /// 304 without content.
    NotModified,
    /// 412 without content.
    Failed,
    /// 416; the text says why. `overlaps_nothing` wants `Content-Range: bytes */SIZE`.
    Unsatisfiable {
        /// The answer's content.
        text: &'static str,
        /// Whether the ranges are well formed and all begin behind the end.
        overlaps_nothing: bool,
    },
}

impl Conditions<'_> {
    /// Decides for a file of `size` bytes that was modified at Unix second `modified`. A time before 1970, and its
    /// beginning, count as unknown.
    pub fn select(&self, size: u64, modified: i64) -> Selection {
        let modified = Some(modified).filter(|seconds| *seconds > 0);
        let is_later_than = |text: &str| Some(modified? > seconds(text)?);
        let is_failed = match self.if_match {
            // Any tag but the wildcard is another one.
            Some(tags) => !has_wildcard(tags),
            None => self.if_unmodified_since.and_then(is_later_than) == Some(true),
        };
        if is_failed {
            return Selection::Failed;
        }
        let is_known = match self.if_none_match {
            Some(tags) => has_wildcard(tags),
            None => self.if_modified_since.and_then(is_later_than) == Some(false),
        };
        if is_known {
            return Selection::NotModified;
        }
        match self.range {
            Some(range) if self.if_range.is_none_or(|date| is_same(date, modified)) => parts(range, size),
            _ => Selection::Whole,
        }
    }
}

fn has_wildcard(tags: &str) -> bool {
    tags.split(',').any(|tag| tag.trim() == "*")
}

/// Whether `If-Range` names the very second; a tag never does.
fn is_same(date: &str, modified: Option<i64>) -> bool {
    modified.is_some() && seconds(date) == modified
}

fn parts(text: &str, size: u64) -> Selection {
    if text.is_empty() {
        return Selection::Whole;
    }
    let invalid = Selection::Unsatisfiable { text: "invalid range", overlaps_nothing: false };
    let Some(list) = text.strip_prefix("bytes=") else { return invalid };
    let (mut ranges, mut beyond) = (Vec::new(), false);
    for item in list.split(',').map(|item| item.trim_matches([' ', '\t'])).filter(|item| !item.is_empty()) {
        match range(item, size) {
            Err(Malformed) => return invalid,
            Ok(None) => beyond = true,
            Ok(Some(range)) => ranges.push(range),
        }
        if ranges.len() > MOST_RANGES {
            return Selection::Whole;
        }
    }
    if ranges.is_empty() && beyond {
        // Some clients ask for a range of everything, also of what is empty.
        return if size == 0 {
            Selection::Whole
        } else {
            Selection::Unsatisfiable { text: "invalid range: failed to overlap", overlaps_nothing: true }
        };
    }
    // More than all of it is an attack or a mistake.
    let total = ranges.iter().fold(0u64, |total, range| total.saturating_add(range.end - range.start));
    match ranges.len() {
        _ if total > size => Selection::Whole,
        0 => Selection::Whole,
        1 => Selection::Part(ranges.remove(0)),
        _ => Selection::Parts(ranges),
    }
}

struct Malformed;

/// One `FIRST-LAST`, `FIRST-` or `-LENGTH`; none if it begins behind the end.
fn range(item: &str, size: u64) -> Result<Option<Range<u64>>, Malformed> {
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // As Go, which has 63 bits.
        let number = text.parse::<u64>().ok().filter(|number| i64::try_from(*number).is_ok());
        number.filter(|_| is_number).ok_or(Malformed)
    };
    let (first, last) = item.split_once('-').ok_or(Malformed)?;
    let (first, last) = (first.trim(), last.trim());
    if first.is_empty() {
        let length = number(last)?.min(size);
        return Ok(Some(size - length..size));
    }
    let first = number(first)?;
    if first >= size {
        return Ok(None);
    }
    if last.is_empty() {
        return Ok(Some(first..size));
    }
    let last = number(last)?;
    if first > last {
        return Err(Malformed);
    }
    Ok(Some(first..last.min(size - 1) + 1))
}

/// The text of an HTTP date; none for times before 1970, for its beginning, and for those that the format has no year for.
pub fn http_date(seconds: i64) -> Option<String> {
    const BEFORE_YEAR_10000: u64 = 253_402_300_800;
    let seconds = u64::try_from(seconds).ok().filter(|seconds| (1..BEFORE_YEAR_10000).contains(seconds))?;
    Some(httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds)))
}

/// The Unix second of an HTTP date, in any of the three forms that HTTP has.
fn seconds(text: &str) -> Option<i64> {
    let time: SystemTime = httpdate::parse_http_date(text).ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MODIFIED: i64 = 1_000_000_000;
    const DATE: &str = "Sun, 09 Sep 2001 01:46:40 GMT";
    const BEFORE: &str = "Sun, 09 Sep 2001 01:46:39 GMT";
    const AFTER: &str = "Sun, 09 Sep 2001 01:46:41 GMT";

    fn ranges(range: &str, size: u64) -> Selection {
        Conditions { range: Some(range), ..Conditions::default() }.select(size, MODIFIED)
    }

    #[test]
    fn ranges_are_as_in_go() {
        use Selection::{Part, Parts, Whole};
        let malformed = Selection::Unsatisfiable { text: "invalid range", overlaps_nothing: false };
        for (text, selection) in [
            ("", Whole),
            ("bytes=0-4", Part(0..5)),
            ("bytes=2-", Part(2..10)),
            ("bytes=-3", Part(7..10)),
            ("bytes=-300", Part(0..10)),
            ("bytes=5-1000", Part(5..10)),
            ("bytes=0-9", Part(0..10)),
            ("bytes= 1 - 2 ", Part(1..3)),
            ("bytes=0-0,-1", Parts(vec![0..1, 9..10])),
            ("bytes=0-0,20-30", Part(0..1)),
            ("bytes=0-7,0-7", Whole),
            ("bytes=", Whole),
            ("bytes=,", Whole),
        ] {
            assert_eq!(ranges(text, 10), selection, "{text}");
        }
        for text in
            ["0-4", "bytes=a-b", "bytes=4-2", "bytes=1", "bytes=--1", "bytes=+1-2", "bytes=-", "items=0-1"]
        {
            assert_eq!(ranges(text, 10), malformed, "{text}");
        }
        let Selection::Unsatisfiable { overlaps_nothing: true, .. } = ranges("bytes=10-", 10) else {
            panic!("a range behind the end is something else")
        };
        assert_eq!(ranges("bytes=0-4", 0), Whole);
        assert_eq!(ranges("bytes=-5", 0), Part(0..0));
    }

    #[test]
    fn a_request_for_very_many_ranges_gets_the_whole() {
        let text = |count: usize| {
            let items: Vec<String> = (0..count).map(|at| format!("{at}-{at}")).collect();
            format!("bytes={}", items.join(","))
        };
        assert!(
            matches!(ranges(&text(MOST_RANGES), 10_000), Selection::Parts(parts) if parts.len() == MOST_RANGES)
        );
        assert_eq!(ranges(&text(MOST_RANGES + 1), 10_000), Selection::Whole);
    }

    #[test]
    fn conditions_come_first() {
        let select = |conditions: Conditions<'_>| {
            Conditions { range: Some("bytes=0-0"), ..conditions }.select(10, MODIFIED)
        };
        let none = Conditions::default();
        let part = Selection::Part(0..1);
        for (conditions, selection) in [
            (Conditions { if_modified_since: Some(DATE), ..none }, Selection::NotModified),
            (Conditions { if_modified_since: Some(AFTER), ..none }, Selection::NotModified),
            (Conditions { if_modified_since: Some(BEFORE), ..none }, part.clone()),
            (Conditions { if_modified_since: Some("yesterday"), ..none }, part.clone()),
            (Conditions { if_unmodified_since: Some(BEFORE), ..none }, Selection::Failed),
            (Conditions { if_unmodified_since: Some(DATE), ..none }, part.clone()),
            (Conditions { if_match: Some("\"tag\""), ..none }, Selection::Failed),
            (Conditions { if_match: Some("*"), if_unmodified_since: Some(BEFORE), ..none }, part.clone()),
            (Conditions { if_none_match: Some("*"), ..none }, Selection::NotModified),
            (
                Conditions { if_none_match: Some("\"t\""), if_modified_since: Some(DATE), ..none },
                part.clone(),
            ),
            (Conditions { if_range: Some(DATE), ..none }, part),
            (Conditions { if_range: Some(AFTER), ..none }, Selection::Whole),
            (Conditions { if_range: Some("\"tag\""), ..none }, Selection::Whole),
        ] {
            assert_eq!(select(conditions), selection, "{conditions:?}");
        }
        let unknown = Conditions {
            if_modified_since: Some(DATE),
            if_range: Some(DATE),
            range: Some("bytes=0-0"),
            ..none
        };
        assert_eq!(unknown.select(10, 0), Selection::Whole);
    }

    #[test]
    fn dates_are_http_dates() {
        assert_eq!(http_date(MODIFIED).as_deref(), Some(DATE));
        assert_eq!(seconds(DATE), Some(MODIFIED));
        assert_eq!(seconds("Sunday, 09-Sep-01 01:46:40 GMT"), Some(MODIFIED));
        for unknown in [0, -1, i64::MIN, i64::MAX] {
            assert_eq!(http_date(unknown), None);
        }
    }

    proptest! {
        #[test]
        fn every_selection_lies_within_the_file(text in "bytes=[-0-9, ]{0,30}", size in 0u64..40) {
            match ranges(&text, size) {
                Selection::Part(range) => prop_assert!(range.start <= range.end && range.end <= size),
                Selection::Parts(ranges) => {
                    prop_assert!(ranges.len() > 1);
                    prop_assert!(ranges.iter().all(|range| range.start <= range.end && range.end <= size));
                    prop_assert!(ranges.iter().map(|range| range.end - range.start).sum::<u64>() <= size);
                }
                _ => {}
            }
        }
    }
}
