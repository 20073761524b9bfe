//! The measurements of a run, and the table of them.

use std::fmt::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use machine::vm::BootTiming;

/// Figures of one run. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Timings {
    /// Bytes of the compressed kernel.
    pub vmlinuz_bytes: Option<u64>,
    /// Bytes of the initrd.
    pub initrd_bytes: Option<u64>,
    /// Bytes of the agent's binary.
    pub agent_bytes: Option<u64>,
    /// From starting QEMU to kernel entry.
    pub kernel_ms: Option<f64>,
    /// From starting QEMU to `/init`.
    pub init_ms: Option<f64>,
    /// From starting QEMU to the agent's ready line.
    pub ready_ms: Option<f64>,
    /// From starting QEMU to the answer to the first Check.
    pub check_ms: Option<f64>,
    /// CreateContainer, each call.
    pub create_ms: Vec<f64>,
    /// StartContainer, each call.
    pub start_ms: Vec<f64>,
    /// ExecProcess to the answer of WaitProcess, each command.
    pub exec_ms: Vec<f64>,
}

impl Timings {
    /// Takes over what a boot measured.
    pub fn take_boot(&mut self, boot: &BootTiming) {
        self.kernel_ms = Some(millis(boot.power_on_to_kernel()));
        self.init_ms = Some(millis(boot.power_on_to_init()));
        self.ready_ms = Some(millis(boot.power_on_to_ready));
    }

    /// The table for people: a name, a figure and a unit per line.
    pub fn table(&self) -> String {
        let mut rows: Vec<(String, String, &str)> = Vec::new();
        for (name, bytes) in
            [("vmlinuz", self.vmlinuz_bytes), ("initrd", self.initrd_bytes), ("agent", self.agent_bytes)]
        {
            if let Some(bytes) = bytes {
                rows.push((name.to_owned(), grouped(bytes), "bytes"));
            }
        }
        let since_power_on = [
            ("power-on to kernel entry", self.kernel_ms),
            ("power-on to /init", self.init_ms),
            ("power-on to agent ready", self.ready_ms),
            ("power-on to first Check", self.check_ms),
        ];
        for (name, value) in since_power_on {
            if let Some(value) = value {
                rows.push((name.to_owned(), format!("{value:.0}"), "ms"));
            }
        }
        for (name, values) in
            [("create", &self.create_ms), ("start", &self.start_ms), ("exec", &self.exec_ms)]
        {
            if let Some(middle) = p50(values) {
                rows.push((format!("{name} p50 of {}", values.len()), format!("{middle:.1}"), "ms"));
            }
        }
        let width = |column: fn(&(String, String, &str)) -> usize| rows.iter().map(column).max().unwrap_or(0);
        let (names, figures) = (width(|row| row.0.len()), width(|row| row.1.len()));
        let mut table = String::new();
        for (name, figure, unit) in &rows {
            // Writing to a String cannot fail.
            writeln!(table, "{name:names$}  {figure:>figures$} {unit}").ok();
        }
        table
    }
}

/// The middle value; of an even number, the lower one of the two.
pub fn p50(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

/// A duration in milliseconds.
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// `3621888` as `3,621,888`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle() {
        assert_eq!(p50(&[]), None);
        assert_eq!(p50(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(p50(&[4.0, 1.0, 2.0, 3.0]), Some(2.0));
    }

    #[test]
    fn the_table_is_aligned_and_has_no_empty_rows() {
        let timings = Timings {
            vmlinuz_bytes: Some(3_621_888),
            init_ms: Some(812.4),
            exec_ms: vec![2.0, 1.0, 9.0],
            ..Timings::default()
        };
        let expected = "vmlinuz            3,621,888 bytes\npower-on to /init        812 ms\nexec p50 of 3            2.0 ms\n";
        assert_eq!(timings.table(), expected);
    }
}
