//! A finished `.config`, and what became in it of what was asked for.
//!
//! kconfig drops an option whose dependencies are not met without a word, and turns on what others select. So the
//! result is read again and compared, in both directions. Pure. Must never change a configuration.

use std::collections::{BTreeMap, BTreeSet};

use super::forbid::Forbidden;
use super::fragment::{Request, Requests, Value};

/// A `.config` as kconfig wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    set: BTreeMap<String, String>,
    visible: BTreeSet<String>,
}

impl Config {
    /// Reads a `.config`. Lines that are neither `CONFIG_X=…` nor `# CONFIG_X is not set` are comments.
    pub fn parse(text: &str) -> Self {
        let mut config = Self::default();
        for line in text.lines() {
            if let Some(symbol) = line.strip_prefix("# ").and_then(|rest| rest.strip_suffix(" is not set")) {
                config.visible.insert(symbol.to_string());
            } else if let Some((symbol, value)) = line.split_once('=').filter(|_| line.starts_with("CONFIG_"))
            {
                config.set.insert(symbol.to_string(), value.to_string());
            }
        }
        config
    }

    /// The value of an option; [`Value::No`] for one that is not set or not known.
    pub fn value(&self, symbol: &str) -> Value {
        self.set
            .get(symbol)
            .map_or(Value::No, |text| if text == "n" { Value::No } else { Value::Set(text.clone()) })
    }

    /// How many options are `y`.
    pub fn enabled(&self) -> usize {
        self.set.values().filter(|value| *value == "y").count()
    }

    /// Compares with what was asked for and what is forbidden.
    pub fn verify(&self, requests: &Requests, forbidden: &Forbidden) -> Vec<Fault> {
        let lost = requests.iter().filter_map(|request| {
            let found = self.value(&request.symbol);
            let hidden = found == Value::No && !self.visible.contains(&request.symbol);
            (found != request.value).then(|| Fault::Lost { request: request.clone(), found, hidden })
        });
        let banned =
            forbidden.iter().filter(|(symbol, _)| self.value(symbol) != Value::No).map(|(symbol, why)| {
                let asked = requests.get(symbol).map(|request| request.place.to_string());
                Fault::Forbidden { symbol: symbol.to_string(), why: why.to_string(), asked }
            });
        lost.chain(banned).collect()
    }
}

/// Something in a configuration that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// An option is not what a fragment asked for.
    Lost {
        /// The request.
        request: Request,
        /// What came out instead.
        found: Value,
        /// Whether the option does not show up at all: unknown to this kernel, or its dependencies are not met.
        hidden: bool,
    },
    /// A forbidden option is set.
    Forbidden {
        /// The option.
        symbol: String,
        /// Why it is forbidden.
        why: String,
        /// Where it was asked for; else something selects it.
        asked: Option<String>,
    },
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lost { request: Request { symbol, value, place, needed_by, .. }, found, hidden } => {
                write!(f, "{place}: {symbol}={value} did not survive: ")?;
                match hidden {
                    true => f.write_str("this kernel does not know it, or what it depends on is off")?,
                    false => write!(f, "it is {found}, since something else decides it")?,
                }
                write!(f, " (needed by {})", needed_by.join(", "))
            }
            Self::Forbidden { symbol, why, asked } => {
                let culprit = asked
                    .as_ref()
                    .map_or("something selects it".to_string(), |at| format!("asked for at {at}"));
                write!(f, "{symbol} is set but forbidden ({why}); {culprit}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::fragment;
    use super::*;

    const CONFIG: &str =
        "#\n# Linux\n#\nCONFIG_A=y\nCONFIG_N=64\nCONFIG_S=\"a=b\"\n# CONFIG_OFF is not set\nCONFIG_BAD=y\n";

    fn requests(lines: &str) -> Requests {
        let text = format!("# why: w\n# needed-by: x, y\n{lines}");
        Requests::merge(fragment::parse(Path::new("f"), &text).unwrap()).unwrap()
    }

    fn faults(lines: &str, forbidden: &str) -> Vec<String> {
        let forbidden = Forbidden::parse(Path::new("forbid.toml"), forbidden).unwrap();
        Config::parse(CONFIG).verify(&requests(lines), &forbidden).iter().map(Fault::to_string).collect()
    }

    #[test]
    fn what_survived_is_no_fault() {
        let lines = "CONFIG_A=y\nCONFIG_N=64\nCONFIG_S=\"a=b\"\nCONFIG_OFF=n\nCONFIG_UNKNOWN=n";
        assert_eq!(
            faults(lines, "[[forbid]]\noptions = [\"CONFIG_OFF\", \"CONFIG_GONE\"]\nwhy = \"w\"\n"),
            [""; 0]
        );
        assert_eq!(Config::parse(CONFIG).enabled(), 2);
    }

    #[test]
    fn every_lost_option_is_named_with_its_place() {
        assert_eq!(
            faults("CONFIG_OFF=y\nCONFIG_N=8\nCONFIG_UNKNOWN=y\nCONFIG_A=n", ""),
            [
                "f:6: CONFIG_A=n did not survive: it is y, since something else decides it (needed by x, y)",
                "f:4: CONFIG_N=8 did not survive: it is 64, since something else decides it (needed by x, y)",
                "f:3: CONFIG_OFF=y did not survive: it is n, since something else decides it (needed by x, y)",
                "f:5: CONFIG_UNKNOWN=y did not survive: this kernel does not know it, or what it depends on is off \
                 (needed by x, y)",
            ]
        );
    }

    #[test]
    fn forbidden_options_are_named_with_the_culprit() {
        let forbid = "[[forbid]]\noptions = [\"CONFIG_BAD\", \"CONFIG_A\"]\nwhy = \"bad\"\n";
        assert_eq!(
            faults("CONFIG_A=y", forbid),
            [
                "CONFIG_A is set but forbidden (bad); asked for at f:3",
                "CONFIG_BAD is set but forbidden (bad); something selects it",
            ]
        );
    }
}
