//! ACPI tables of a test's own making, for a q35.
//!
//! QEMU's own tables are read out of a guest, changed, and handed to the firmware of a machine that is told to have none
//! (`acpi=off`), in the way in which QEMU hands over its own: two files, and a script that says how to link them (QEMU,
//! `hw/acpi/bios-linker-loader.c`).

use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::Guest;

/// In this order: the ones that others point to come first.
const NAMES: [&str; 6] = ["DSDT", "FACS", "FACP", "APIC", "HPET", "MCFG"];
/// Files as the firmware knows them.
const TABLES: &str = "etc/acpi/tables";
const RSDP: &str = "etc/acpi/rsdp";
const SCRIPT: &str = "etc/table-loader";
/// Offsets in the FADT (ACPI Specification 6.5, section 5.2.9).
const FADT_FACS: usize = 36;
const FADT_DSDT: usize = 40;
const FADT_FLAGS: usize = 112;
const FADT_X_FACS: usize = 132;
const FADT_X_DSDT: usize = 140;
/// FADT flag: no fixed registers.
const HW_REDUCED: u32 = 1 << 20;

/// The tables of a machine.
#[derive(Clone)]
pub struct Tables(Vec<(&'static str, Vec<u8>)>);

impl Tables {
    /// What a running guest was given; it must be a q35, and have its sandbox.
    ///
    /// # Errors
    /// When the guest cannot be looked into.
    pub async fn of(guest: &Guest) -> Result<Tables> {
        let script = format!(
            "cd /tables; for name in {}; do echo $name $(od -An -v -tx1 $name | tr -d '\\n'); done",
            NAMES.join(" ")
        );
        let container = guest
            .container("tables")
            .privileged()
            .mount("/tables", "bind", "/sys/firmware/acpi/tables", &["rbind"])
            .run()
            .await?;
        let output = container.sh(&script).await?;
        let mut tables = Vec::new();
        for name in NAMES {
            let line = output.lines().find_map(|line| line.strip_prefix(name)).context(name)?;
            let bytes: Result<Vec<u8>, _> =
                line.split_whitespace().map(|byte| u8::from_str_radix(byte, 16)).collect();
            tables.push((name, bytes?));
        }
        Ok(Tables(tables))
    }

    fn table(&mut self, name: &str) -> &mut Vec<u8> {
        let found = self.0.iter_mut().find(|(known, _)| *known == name);
        &mut found.expect("all of them were read").1
    }

    /// Without the values that switch the machine off: the kernel halts then.
    ///
    /// # Errors
    /// When there are none.
    pub fn without_s5(mut self) -> Result<Tables> {
        let dsdt = self.table("DSDT");
        let at = dsdt.windows(4).position(|name| name == b"_S5_").context("these tables have no _S5_")?;
        dsdt[at..at + 4].copy_from_slice(b"XS5_");
        Ok(self)
    }

    /// As a machine without fixed registers, and without the ones that take their place: Firecracker's shape.
    #[must_use]
    pub fn reduced(mut self) -> Tables {
        let fadt = self.table("FACP");
        let flags = word(fadt, FADT_FLAGS) | HW_REDUCED;
        fadt[FADT_FLAGS..FADT_FLAGS + 4].copy_from_slice(&flags.to_le_bytes());
        self
    }

    /// Arguments that give a q35 these tables in the place of QEMU's; the files are put into `directory`.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn arguments(mut self, directory: &Path) -> Result<Vec<String>> {
        let mut blob = Blob::default();
        blob.script.allocate(RSDP, 16, 2);
        blob.script.allocate(TABLES, 64, 1);
        let mut offsets = Vec::new();
        for name in NAMES {
            if name == "FACP" {
                let place = |name: &str| offsets.iter().find(|(known, _)| *known == name).map(|(_, at)| *at);
                let (facs, dsdt) = (place("FACS").context("FACS")?, place("DSDT").context("DSDT")?);
                let fadt = self.table("FACP");
                for (at, size, target) in
                    [(FADT_FACS, 4, facs), (FADT_DSDT, 4, dsdt), (FADT_X_FACS, 8, 0), (FADT_X_DSDT, 8, dsdt)]
                {
                    ensure!(fadt.len() >= at + size, "an old FADT of {} bytes", fadt.len());
                    fadt[at..at + size].copy_from_slice(&u64::from(target).to_le_bytes()[..size]);
                }
            }
            let at = blob.append(self.table(name));
            offsets.push((name, at));
            if name == "FACP" {
                for (field, size) in [(FADT_FACS, 4), (FADT_DSDT, 4), (FADT_X_DSDT, 8)] {
                    blob.script.point(TABLES, at + field as u32, size);
                }
            }
            if name != "FACS" {
                blob.sum(at);
            }
        }
        let listed: Vec<u32> =
            offsets.iter().filter(|(name, _)| !matches!(*name, "DSDT" | "FACS")).map(|(_, at)| *at).collect();
        let rsdt = blob.append(&root_table(&listed));
        for index in 0..listed.len() {
            blob.script.point(TABLES, rsdt + 36 + 4 * index as u32, 4);
        }
        blob.sum(rsdt);
        let mut rsdp = b"RSD PTR \0PITH  \0".to_vec();
        rsdp.extend(rsdt.to_le_bytes());
        blob.script.point(RSDP, 16, 4);
        blob.script.sum(RSDP, 8, 0, 20);
        let mut arguments = vec!["-machine".to_owned(), "acpi=off".to_owned()];
        for (name, bytes) in [(TABLES, &blob.bytes), (RSDP, &rsdp), (SCRIPT, &blob.script.0)] {
            let file = directory.join(name.replace('/', "-"));
            std::fs::write(&file, bytes).with_context(|| format!("write {}", file.display()))?;
            arguments.extend(["-fw_cfg".to_owned(), format!("name={name},file={}", file.display())]);
        }
        Ok(arguments)
    }
}

fn word(table: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([table[at], table[at + 1], table[at + 2], table[at + 3]])
}

/// The table that names the others, by their places.
fn root_table(offsets: &[u32]) -> Vec<u8> {
    let length = 36 + 4 * offsets.len() as u32;
    let mut table = b"RSDT".to_vec();
    table.extend(length.to_le_bytes());
    table.extend(b"\x01\0PITH  PITHTEST\x01\0\0\0TEST\x01\0\0\0");
    table.extend(offsets.iter().flat_map(|at| at.to_le_bytes()));
    table
}

/// The tables as they lie in memory, and how they are linked.
#[derive(Default)]
struct Blob {
    bytes: Vec<u8>,
    script: Script,
}

impl Blob {
    /// Appends a table, aligned as a FACS wants it; gives its place.
    fn append(&mut self, table: &[u8]) -> u32 {
        self.bytes.resize(self.bytes.len().next_multiple_of(64), 0);
        let at = self.bytes.len() as u32;
        self.bytes.extend(table);
        at
    }

    /// Lets the firmware sum up the table at a place.
    fn sum(&mut self, at: u32) {
        self.bytes[at as usize + 9] = 0;
        self.script.sum(TABLES, at + 9, at, word(&self.bytes, at as usize + 4));
    }
}

/// Entries of 128 bytes.
#[derive(Default)]
struct Script(Vec<u8>);

impl Script {
    fn entry(&mut self, command: u32, parts: &[&[u8]]) {
        let end = self.0.len() + 128;
        self.0.extend(command.to_le_bytes());
        parts.iter().for_each(|part| self.0.extend(*part));
        self.0.resize(end, 0);
    }

    fn allocate(&mut self, file: &str, align: u32, zone: u8) {
        self.entry(1, &[&name(file), &align.to_le_bytes(), &[zone]]);
    }

    /// What stands at `at` is an offset into the tables, and becomes an address.
    fn point(&mut self, file: &str, at: u32, size: u8) {
        self.entry(2, &[&name(file), &name(TABLES), &at.to_le_bytes(), &[size]]);
    }

    fn sum(&mut self, file: &str, at: u32, start: u32, length: u32) {
        self.entry(3, &[&name(file), &at.to_le_bytes(), &start.to_le_bytes(), &length.to_le_bytes()]);
    }
}

fn name(file: &str) -> [u8; 56] {
    let mut field = [0; 56];
    field[..file.len()].copy_from_slice(file.as_bytes());
    field
}
