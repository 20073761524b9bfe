//! Kernel configuration fragments: who asks for which option, where, and why.
//!
//! ```text
//! # why: disks that carry container images
//! # needed-by: storage/blk, device
//! CONFIG_BLOCK=y
//! CONFIG_VIRTIO_BLK=y
//!
//! # why: …                       a blank line ends a group; its reasons hold for all of its options
//! ```
//!
//! Promises that every option has a reason and someone who needs it, and is asked for exactly once among all
//! fragments of a profile. Pure: text in, requests out. Must never guess what kconfig will make of them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// What an option is set to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Not set.
    No,
    /// Anything else as it stands in a `.config`: `y`, a number, a quoted string.
    Set(String),
}

impl Value {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let quoted = text.len() >= 2 && text.starts_with('"') && text.ends_with('"');
        let number = text.strip_prefix('-').unwrap_or(text);
        let decimal = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let hex = text.strip_prefix("0x").is_some_and(|digits| {
            !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        });
        match text {
            "n" => Ok(Self::No),
            "m" => Err("modules are off: say y or n"),
            "y" => Ok(Self::Set(text.to_string())),
            _ if quoted || decimal || hex => Ok(Self::Set(text.to_string())),
            _ => Err("the value is none of y, n, a number or a \"string\""),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("n"),
            Self::Set(text) => f.write_str(text),
        }
    }
}

/// Where in which file something stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileLine {
    /// The fragment.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
}

impl fmt::Display for FileLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// One option asked for by a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The option with its `CONFIG_` prefix.
    pub symbol: String,
    /// What it shall be.
    pub value: Value,
    /// Where it is asked for.
    pub place: FileLine,
    /// Why, for people.
    pub why: String,
    /// Which parts of the project, or who outside, cannot do without.
    pub needed_by: Vec<String>,
}

/// What is wrong with a fragment, or with two of them together.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// A line that is no option, no comment and not empty.
    #[error("{place}: {text:?} is not understood: {reason}")]
    Line {
        /// Where.
        place: FileLine,
        /// The line.
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An option whose group lacks a reason.
    #[error("{place}: {symbol} has no `# {missing}:` line above it in its group")]
    Unreasoned {
        /// Where.
        place: FileLine,
        /// The option.
        symbol: String,
        /// Which of the two lines is missing.
        missing: &'static str,
    },
    /// Two fragments, or two lines of one, ask for the same option.
    #[error(
        "{} is asked for twice: ={} at {} and ={} at {}; drop one",
        .first.symbol, .first.value, .first.place, .second.value, .second.place
    )]
    Twice {
        /// The first request.
        first: Box<Request>,
        /// The second request.
        second: Box<Request>,
    },
}

/// Reads one fragment. `file` is its name in messages.
///
/// # Errors
/// The first line that is not understood or not accounted for.
pub fn parse(file: &Path, text: &str) -> Result<Vec<Request>, FragmentError> {
    let requests = parse_own(file, text)?;
    for Request { symbol, place, why, needed_by, .. } in &requests {
        for (is_there, missing) in [(!why.is_empty(), "why"), (!needed_by.is_empty(), "needed-by")] {
            if !is_there {
                return Err(FragmentError::Unreasoned {
                    place: place.clone(),
                    symbol: symbol.clone(),
                    missing,
                });
            }
        }
    }
    Ok(requests)
}

/// As [`parse`], for a fragment outside the source tree: nobody else has to know its reasons.
///
/// # Errors
/// The first line that is not understood.
pub fn parse_own(file: &Path, text: &str) -> Result<Vec<Request>, FragmentError> {
    let mut requests = Vec::new();
    let (mut why, mut needed_by) = (Vec::new(), Vec::new());
    for (index, raw) in text.lines().enumerate() {
        let place = FileLine { file: file.to_path_buf(), line: index + 1 };
        let line = raw.trim();
        let unset = line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set"));
        let option = match (unset.filter(|symbol| is_symbol(symbol)), line) {
            (Some(symbol), _) => Some((symbol, "n")),
            (None, "") => {
                why.clear();
                needed_by.clear();
                None
            }
            (None, comment) if comment.starts_with('#') => {
                let comment = comment.trim_start_matches('#').trim_start();
                if let Some(reason) = comment.strip_prefix("why:") {
                    why.push(reason.trim());
                } else if let Some(names) = comment.strip_prefix("needed-by:") {
                    needed_by.extend(names.split(',').map(str::trim).filter(|name| !name.is_empty()));
                }
                None
            }
            (None, option) => {
                let error =
                    |reason| FragmentError::Line { place: place.clone(), text: raw.to_string(), reason };
                let (symbol, value) = option.split_once('=').ok_or_else(|| error("no `=` in it"))?;
                if !is_symbol(symbol) {
                    return Err(error("the name must be CONFIG_ and capitals, digits or _"));
                }
                Some((symbol, value))
            }
        };
        let Some((symbol, value)) = option else { continue };
        let value = Value::parse(value).map_err(|reason| FragmentError::Line {
            place: place.clone(),
            text: raw.to_string(),
            reason,
        })?;
        requests.push(Request {
            symbol: symbol.to_string(),
            value,
            place,
            why: why.join(" ").trim().to_string(),
            needed_by: needed_by.iter().map(|name| (*name).to_string()).collect(),
        });
    }
    Ok(requests)
}

/// Whether a text is an option's name with its `CONFIG_` prefix.
pub(super) fn is_symbol(text: &str) -> bool {
    text.strip_prefix("CONFIG_").is_some_and(|name| {
        // A few kernel options have lower-case letters (CONFIG_SERIO_I8042_x, CONFIG_MX3_IPU_...): allow them.
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    })
}

/// All requests of a profile by option.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requests(BTreeMap<String, Request>);

impl Requests {
    /// Puts the fragments of a profile together.
    ///
    /// # Errors
    /// The first option that is asked for twice, be it with the same value: one of the reasons would go stale.
    pub fn merge(all: impl IntoIterator<Item = Request>) -> Result<Self, FragmentError> {
        let mut merged = BTreeMap::<String, Request>::new();
        for request in all {
            if let Some(first) = merged.remove(&request.symbol) {
                return Err(FragmentError::Twice { first: first.into(), second: request.into() });
            }
            merged.insert(request.symbol.clone(), request);
        }
        Ok(Self(merged))
    }

    /// Puts requests of a user over these: they may ask for another value.
    ///
    /// # Errors
    /// The first option that the user asks for twice.
    pub fn overridden(mut self, own: Vec<Request>) -> Result<Self, FragmentError> {
        self.0.extend(Self::merge(own)?.0);
        Ok(self)
    }

    /// The request for an option.
    pub fn get(&self, symbol: &str) -> Option<&Request> {
        self.0.get(symbol)
    }

    /// All requests in order of option.
    pub fn iter(&self) -> impl Iterator<Item = &Request> {
        self.0.values()
    }

    /// How many options are asked for.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The requests as a `.config`, in order of option and without comments: the same text for the same requests,
    /// wherever they stand and however they are reasoned.
    pub fn to_config(&self) -> String {
        self.iter()
            .map(|Request { symbol, value, .. }| match value {
                Value::No => format!("# {symbol} is not set\n"),
                Value::Set(value) => format!("{symbol}={value}\n"),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Request>, FragmentError> {
        parse(Path::new("f.conf"), text)
    }

    fn message(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    const REASON: &str = "# why: it must\n# needed-by: test\n";

    #[test]
    fn a_group_shares_its_reasons_until_a_blank_line() {
        let requests = read(
            "# A heading.\n\n# why: first line\n# why: and second\n# needed-by: a, b/c\nCONFIG_A=y\n# CONFIG_B is not set\n\
             CONFIG_C=\"x y\"\n\n# why: other\n# needed-by: d\nCONFIG_D=0x1F\nCONFIG_E=-1\n",
        )
        .unwrap();
        let brief: Vec<_> = requests
            .iter()
            .map(|r| {
                (r.symbol.as_str(), r.value.to_string(), r.place.line, r.why.as_str(), r.needed_by.join("+"))
            })
            .collect();
        assert_eq!(
            brief,
            [
                ("CONFIG_A", "y".into(), 6, "first line and second", "a+b/c".into()),
                ("CONFIG_B", "n".into(), 7, "first line and second", "a+b/c".into()),
                ("CONFIG_C", "\"x y\"".into(), 8, "first line and second", "a+b/c".into()),
                ("CONFIG_D", "0x1F".into(), 12, "other", "d".into()),
                ("CONFIG_E", "-1".into(), 13, "other", "d".into()),
            ]
        );
    }

    #[test]
    fn reasons_are_obligatory_and_not_inherited() {
        assert_eq!(message("CONFIG_A=y"), "f.conf:1: CONFIG_A has no `# why:` line above it in its group");
        assert_eq!(
            message("# why: x\nCONFIG_A=y"),
            "f.conf:2: CONFIG_A has no `# needed-by:` line above it in its group"
        );
        assert!(
            message(&format!("{REASON}CONFIG_A=y\n\nCONFIG_B=y\n")).starts_with("f.conf:5: CONFIG_B has no")
        );
        assert!(message("# why:\n# needed-by: a\nCONFIG_A=y").contains("why"));
        assert!(message("# why: x\n# needed-by: ,\nCONFIG_A=y").contains("needed-by"));
    }

    #[test]
    fn a_fragment_of_a_user_needs_no_reasons_and_goes_over_others() {
        let own = parse_own(Path::new("my.conf"), "CONFIG_A=n\n# why: speed\nCONFIG_C=y\n").unwrap();
        assert_eq!((own[0].why.as_str(), own[1].why.as_str()), ("", "speed"));
        let shipped = read(&format!("{REASON}CONFIG_A=y\nCONFIG_B=y\n")).unwrap();
        let all = Requests::merge(shipped).unwrap().overridden(own.clone()).unwrap();
        assert_eq!(all.to_config(), "# CONFIG_A is not set\nCONFIG_B=y\nCONFIG_C=y\n");
        let error = all.overridden([own.clone(), own].concat()).unwrap_err().to_string();
        assert!(error.contains("asked for twice") && error.contains("my.conf:1"), "{error}");
        assert!(parse_own(Path::new("my.conf"), "CONFIG_A=m").is_err());
    }

    #[test]
    fn bad_lines_name_the_place_and_the_fault() {
        for (line, fault) in [
            ("CONFIG_A=m", "modules are off"),
            ("CONFIG_A=yes", "none of y, n, a number"),
            ("CONFIG_A=", "none of y, n, a number"),
            ("CONFIG_A=\"", "none of y, n, a number"),
            ("CONFIG_A=0x", "none of y, n, a number"),
            ("CONFIG_A=-", "none of y, n, a number"),
            ("CONFIG_A = y", "capitals"),
            ("A=y", "CONFIG_"),
            ("CONFIG_=y", "CONFIG_"),
            ("CONFIG_A", "no `=`"),
        ] {
            let text = message(&format!("{REASON}{line}"));
            assert!(text.starts_with("f.conf:3: ") && text.contains(fault), "{line}: {text}");
        }
    }

    #[test]
    fn asking_twice_names_both_places() {
        let one = parse(Path::new("one"), &format!("{REASON}CONFIG_A=y")).unwrap();
        let two = parse(Path::new("two"), &format!("{REASON}CONFIG_B=y\nCONFIG_A=n")).unwrap();
        let error = Requests::merge(one.into_iter().chain(two)).unwrap_err();
        assert_eq!(error.to_string(), "CONFIG_A is asked for twice: =y at one:3 and =n at two:4; drop one");
    }

    #[test]
    fn the_merged_text_depends_on_the_requests_alone() {
        let one = read(&format!("{REASON}CONFIG_B=n\nCONFIG_A=7\n")).unwrap();
        let two = read(
            "# why: else\n# needed-by: z\n\n# why: e\n# needed-by: z\nCONFIG_A=7\n# CONFIG_B is not set",
        )
        .unwrap();
        let text = Requests::merge(one).unwrap().to_config();
        assert_eq!(text, "CONFIG_A=7\n# CONFIG_B is not set\n");
        assert_eq!(Requests::merge(two).unwrap().to_config(), text);
    }
}
