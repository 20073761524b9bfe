//! What the machine's ACPI tables say about switching it off. Pure.
//!
//! Follows what the kernel does with the same tables (Linux 6.12, `drivers/acpi/sleep.c`, `acpi_sleep_state_supported`, and
//! `drivers/firmware/efi/reboot.c`), since a power-off for which the kernel has no way becomes a halt: the processors
//! stop and the VMM runs on. Offsets are those of the ACPI Specification 6.5, section 5.2.9 (FADT).

/// Where the flags of the FADT are.
const FLAGS: usize = 112;
/// Flag: the machine has none of the fixed registers of old.
const HW_REDUCED: u32 = 1 << 20;
/// PM1a control block, 32-bit address.
const PM1A_CONTROL: usize = 64;
/// The same as a generic address; the kernel prefers this one.
const X_PM1A_CONTROL: usize = 172;
/// Sleep control register, a generic address.
const SLEEP_CONTROL: usize = 244;
/// Sleep status register, a generic address.
const SLEEP_STATUS: usize = 256;
/// Where a generic address (12 bytes) has its 64-bit address.
const ADDRESS: usize = 4;
/// Flags of Arm's boot, two bytes.
const ARM_BOOT_FLAGS: usize = 129;
/// Flag: the machine has PSCI, of version 0.2 at least.
const PSCI_COMPLIANT: u8 = 1;
/// Where every table has its own length.
const LENGTH: usize = 4;

/// A table of the guest's, as far as it is sound: never more than it says itself, and never more than was read.
#[derive(Debug, Clone, Copy)]
struct Table<'a>(&'a [u8]);

impl<'a> Table<'a> {
    fn new(bytes: &'a [u8]) -> Table<'a> {
        let whole = Table(bytes);
        let length = usize::try_from(whole.word(LENGTH)).unwrap_or(usize::MAX);
        Table(&bytes[..length.min(bytes.len())])
    }

    /// A little-endian word; 0 behind the table's end, as the kernel takes fields that an old table does not have.
    fn word(self, at: usize) -> u32 {
        let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    fn has_generic_address(self, at: usize) -> bool {
        self.word(at + ADDRESS) != 0 || self.word(at + ADDRESS + 4) != 0
    }
}

/// Whether the kernel can power this machine off: by the registers of the FADT (`None` where the kernel has no ACPI) with
/// the values of `_S5_`, which stands in one of the definition blocks (DSDT and SSDTs), or by the firmware's own services.
pub(crate) fn can_power_off<'a>(
    fadt: Option<&[u8]>,
    definition_blocks: impl IntoIterator<Item = &'a [u8]>,
    has_efi_services: bool,
) -> bool {
    let Some(fadt) = fadt.map(Table::new) else { return false };
    let is_reduced = fadt.word(FLAGS) & HW_REDUCED != 0;
    let has_s5 = definition_blocks.into_iter().any(|block| defines_s5(Table::new(block).0));
    let has_register = if is_reduced {
        fadt.has_generic_address(SLEEP_CONTROL) && fadt.has_generic_address(SLEEP_STATUS)
    } else {
        fadt.word(PM1A_CONTROL) != 0 || fadt.has_generic_address(X_PM1A_CONTROL)
    };
    // The kernel asks the firmware only where ACPI has no answer.
    (has_s5 && has_register) || (has_efi_services && (is_reduced || !has_s5))
}

/// Whether the FADT of an Arm machine tells of PSCI, by which the kernel powers it off (`acpi_psci_present`). The kernel uses
/// none of the registers above on Arm.
pub(crate) fn has_psci(fadt: &[u8]) -> bool {
    Table::new(fadt).0.get(ARM_BOOT_FLAGS).is_some_and(|flags| flags & PSCI_COMPLIANT != 0)
}

/// Whether AML code defines `\_S5_`, the values that switch the machine off: as a package with a name, or as a method that
/// returns one. A mere mention is none (ACPI Specification 6.5, sections 7.4.2 and 20.2).
fn defines_s5(aml: &[u8]) -> bool {
    const NAME_OP: u8 = 0x08;
    const METHOD_OP: u8 = 0x14;
    const PACKAGE_OP: u8 = 0x12;
    const VAR_PACKAGE_OP: u8 = 0x13;
    aml.windows(4).enumerate().filter(|(_, name)| name == b"_S5_").any(|(at, _)| {
        let before = &aml[..at];
        let before = before.strip_suffix(b"\\").unwrap_or(before);
        let after = aml.get(at + 4);
        let is_name = before.last() == Some(&NAME_OP) && matches!(after, Some(&PACKAGE_OP | &VAR_PACKAGE_OP));
        // Between a method's operator and its name is its length, of one to four bytes.
        let is_method = (1..=4).any(|size| {
            let Some((head, length)) = before.len().checked_sub(size).map(|cut| before.split_at(cut)) else {
                return false;
            };
            head.last() == Some(&METHOD_OP) && usize::from(length[0] >> 6) + 1 == size
        });
        is_name || is_method
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A FADT of `length` bytes.
    fn fadt(length: usize, flags: u32) -> Vec<u8> {
        let mut table = vec![0; length];
        table[..4].copy_from_slice(b"FACP");
        put(&mut table, LENGTH, u32::try_from(length).unwrap());
        put(&mut table, FLAGS, flags);
        table
    }

    fn put(table: &mut [u8], at: usize, word: u32) {
        table[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }

    fn block(aml: &[u8]) -> Vec<u8> {
        let mut table = vec![0; 36];
        table[..4].copy_from_slice(b"DSDT");
        table.extend(aml);
        let length = u32::try_from(table.len()).unwrap();
        put(&mut table, LENGTH, length);
        table
    }

    /// `Name (_S5_, Package () { 5, 5, 0, 0 })` behind something else.
    const S5: &[u8] = b"\x10\x05_SB_\x08_S5_\x12\x08\x04\x0a\x05\x0a\x05\x00\x00";
    const NO_S5: &[u8] = b"\x10\x05_SB_\x08_S3_\x12\x08\x04\x0a\x01\x0a\x01\x00\x00";

    fn firecracker() -> Vec<u8> {
        fadt(276, 0x0010_0030)
    }

    fn cloud_hypervisor() -> Vec<u8> {
        let mut table = fadt(276, 0x0010_0500);
        put(&mut table, SLEEP_CONTROL + ADDRESS, 0x600);
        put(&mut table, SLEEP_STATUS + ADDRESS, 0x600);
        table
    }

    fn q35() -> Vec<u8> {
        let mut table = fadt(244, 0x0000_84a5);
        put(&mut table, PM1A_CONTROL, 0x604);
        put(&mut table, X_PM1A_CONTROL + ADDRESS, 0x604);
        table
    }

    fn can(fadt: &[u8], aml: &[u8]) -> bool {
        can_power_off(Some(fadt), [block(aml).as_slice()], false)
    }

    #[test]
    fn the_three_shapes() {
        assert!(!can(&firecracker(), NO_S5));
        assert!(can(&cloud_hypervisor(), S5));
        assert!(can(&q35(), S5));
    }

    #[test]
    fn register_and_values_are_both_needed() {
        assert!(!can(&firecracker(), S5));
        assert!(!can(&cloud_hypervisor(), NO_S5));
        assert!(!can(&q35(), NO_S5));
        let mut without_status = cloud_hypervisor();
        put(&mut without_status, SLEEP_STATUS + ADDRESS, 0);
        assert!(!can(&without_status, S5));
        let mut without_pm1 = q35();
        put(&mut without_pm1, PM1A_CONTROL, 0);
        put(&mut without_pm1, X_PM1A_CONTROL + ADDRESS, 0);
        assert!(!can(&without_pm1, S5));
        put(&mut without_pm1, X_PM1A_CONTROL + ADDRESS + 4, 1);
        assert!(can(&without_pm1, S5), "an address above 4 GiB is one");
    }

    #[test]
    fn no_tables_no_power_off() {
        assert!(!can_power_off(None, [block(S5).as_slice()], false));
        assert!(!can_power_off(None, [], true), "without ACPI the kernel does not ask the firmware");
    }

    #[test]
    fn firmware_helps_where_acpi_does_not() {
        let none: [&[u8]; 0] = [];
        assert!(can_power_off(Some(&firecracker()), none, true));
        assert!(can_power_off(Some(&q35()), none, true));
        let mut broken = q35();
        put(&mut broken, PM1A_CONTROL, 0);
        put(&mut broken, X_PM1A_CONTROL + ADDRESS, 0);
        assert!(
            !can_power_off(Some(&broken), [block(S5).as_slice()], true),
            "ACPI comes first, and it fails"
        );
    }

    #[test]
    fn any_block_may_define_it() {
        let (dsdt, ssdt) = (block(NO_S5), block(S5));
        assert!(can_power_off(Some(&q35()), [dsdt.as_slice(), ssdt.as_slice()], false));
    }

    #[test]
    fn definitions_are_told_from_mentions() {
        for aml in [
            &b"\x08_S5_\x12\x06\x04"[..],
            b"\x08\\_S5_\x12\x06\x04",
            b"\x08_S5_\x13\x06\x01",
            b"\x14\x09_S5_\x00\xa4",
            b"\x14\x09\\_S5_\x00\xa4",
            b"\x14\x45\x01_S5_\x00\xa4",
        ] {
            assert!(defines_s5(aml), "{aml:02x?}");
        }
        for aml in [
            &b""[..],
            b"_S5_",
            b"\x08_S5_",
            b"\x08_S5_\x0a\x05",
            b"\x15\\_S5_\x08\x00",
            b"\x0d_S5_\x12\x00",
            b"\x14\x45_S5_\x00\xa4",
            b"\x08_S4_\x12\x06\x04",
        ] {
            assert!(!defines_s5(aml), "{aml:02x?}");
        }
    }

    #[test]
    fn psci_is_a_flag_of_the_fadt() {
        let mut table = fadt(276, HW_REDUCED);
        assert!(!has_psci(&table));
        // Bit 1 says only how it would be called.
        table[ARM_BOOT_FLAGS] = 2;
        assert!(!has_psci(&table));
        table[ARM_BOOT_FLAGS] = 3;
        assert!(has_psci(&table));
        put(&mut table, LENGTH, 129);
        assert!(!has_psci(&table), "behind the table's end");
        assert!(!has_psci(&[]));
    }

    #[test]
    fn a_table_ends_where_it_says() {
        let mut long = block(NO_S5);
        long.extend(S5);
        assert!(!can_power_off(Some(&q35()), [long.as_slice()], false));
        // Fields behind the end are absent, whatever lies there.
        let mut cut = cloud_hypervisor();
        put(&mut cut, LENGTH, 244);
        assert!(!can(&cut, S5));
    }

    #[test]
    fn broken_tables_are_survived() {
        let (whole, aml) = (cloud_hypervisor(), block(S5));
        for length in 0..whole.len() {
            assert!(
                !can_power_off(Some(&whole[..length]), [&aml[..aml.len().min(length)]], false)
                    || length > 260
            );
        }
        let mut absurd = whole;
        put(&mut absurd, LENGTH, u32::MAX);
        assert!(can_power_off(Some(&absurd), [aml.as_slice()], false));
    }
}
