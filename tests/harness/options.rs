//! What all benchmarks take on their command lines, and the QEMU that some start by themselves.

use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

/// The options that all have.
#[derive(Debug)]
pub struct Options {
    /// How often each piece of work is done.
    pub rounds: usize,
    /// Whether the figures are printed as JSON.
    pub as_json: bool,
}

impl Options {
    /// Reads this program's command line. `own` is asked for every option that not all have, with what gives the option's value;
    /// it tells whether it knows the option. None when the usage was asked for, and printed.
    ///
    /// # Errors
    /// The usage, when an option is unknown or its value is missing or wrong.
    pub fn read(
        usage: &'static str,
        rounds: usize,
        own: impl FnMut(&str, &mut dyn FnMut() -> Result<String>) -> Result<bool>,
    ) -> Result<Option<Options>> {
        Self::of(std::env::args().skip(1), usage, rounds, own)
    }

    fn of(
        mut arguments: impl Iterator<Item = String>,
        usage: &'static str,
        rounds: usize,
        mut own: impl FnMut(&str, &mut dyn FnMut() -> Result<String>) -> Result<bool>,
    ) -> Result<Option<Options>> {
        let mut options = Options { rounds, as_json: false };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().context(usage);
            match argument.as_str() {
                "--rounds" => options.rounds = value()?.parse().ok().context(usage)?,
                "--json" => options.as_json = true,
                "--help" | "-h" => {
                    println!("{usage}");
                    return Ok(None);
                }
                other if own(other, &mut value)? => {}
                _ => bail!(usage),
            }
        }
        ensure!(options.rounds > 0, usage);
        Ok(Some(options))
    }
}

/// QEMU for guests of x86_64, without arguments: the one that `PITH_QEMU` names, else that of `PATH`.
pub fn qemu() -> Command {
    Command::new(std::env::var_os("PITH_QEMU").unwrap_or("qemu-system-x86_64".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<(Option<Options>, Option<String>)> {
        let mut against = None;
        let arguments = line.split_whitespace().map(str::to_owned);
        let options = Options::of(arguments, "usage", 7, |option, value| {
            let is_known = option == "--against";
            if is_known {
                against = Some(value()?);
            }
            Ok(is_known)
        })?;
        Ok((options, against))
    }

    #[test]
    fn options_of_all_and_of_one_are_read() {
        let (options, against) = read("--json --against out --rounds 3").unwrap();
        let options = options.unwrap();
        assert!(options.as_json && options.rounds == 3 && against.as_deref() == Some("out"));
        let options = read("").unwrap().0.unwrap();
        assert!(!options.as_json && options.rounds == 7);
        assert!(read("--help").unwrap().0.is_none());
        for wrong in ["--rounds", "--rounds x", "--rounds 0", "--against", "--other", "out"] {
            assert_eq!(read(wrong).unwrap_err().to_string(), "usage", "{wrong}");
        }
    }
}
