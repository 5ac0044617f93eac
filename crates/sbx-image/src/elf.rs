//! As much of ELF as is needed to tell a static program and a kernel with a PVH entry (System V ABI, 4 and 5).

/// `PT_INTERP`: the program wants a dynamic loader.
const INTERP: u32 = 3;
/// `PT_NOTE`.
const NOTE: u32 = 4;
/// `EM_X86_64`.
const X86_64: u16 = 62;
/// `XEN_ELFNOTE_PHYS32_ENTRY`, the entry point of PVH (Linux, include/xen/interface/elfnote.h).
const PHYS32_ENTRY: u32 = 18;

/// A 64-bit little-endian ELF file for x86-64.
pub(crate) struct Elf<'a> {
    bytes: &'a [u8],
    /// Type, offset and size in the file of each segment.
    segments: Vec<(u32, usize, usize)>,
}

impl<'a> Elf<'a> {
    /// Reads the headers; `None` for anything else.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        if !bytes.starts_with(b"\x7fELF\x02\x01") || u16_at(bytes, 18)? != X86_64 {
            return None;
        }
        let (offset, size) = (
            usize::try_from(u64_at(bytes, 32)?).ok()?,
            u16_at(bytes, 54)?,
        );
        let mut segments = Vec::new();
        for index in 0..usize::from(u16_at(bytes, 56)?) {
            let at = offset.checked_add(index.checked_mul(usize::from(size))?)?;
            let field = |plus| usize::try_from(u64_at(bytes, at.checked_add(plus)?)?).ok();
            segments.push((u32_at(bytes, at)?, field(8)?, field(32)?));
        }
        Some(Self { bytes, segments })
    }

    /// Whether the program runs without a dynamic loader.
    pub(crate) fn is_static(&self) -> bool {
        self.segments.iter().all(|(kind, ..)| *kind != INTERP)
    }

    /// Whether a hypervisor can start this kernel directly.
    pub(crate) fn has_pvh_entry(&self) -> bool {
        let notes = self.segments.iter().filter(|(kind, ..)| *kind == NOTE);
        notes
            .filter_map(|(_, offset, size)| self.bytes.get(*offset..offset.checked_add(*size)?))
            .any(|notes| has_note(notes).unwrap_or(false))
    }
}

fn has_note(mut notes: &[u8]) -> Option<bool> {
    while !notes.is_empty() {
        let name_len = usize::try_from(u32_at(notes, 0)?).ok()?;
        let desc_len = usize::try_from(u32_at(notes, 4)?).ok()?;
        let name = notes.get(12..12_usize.checked_add(name_len)?)?;
        if name == b"Xen\0" && u32_at(notes, 8)? == PHYS32_ENTRY {
            return Some(true);
        }
        let aligned = |len: usize| len.checked_next_multiple_of(4);
        notes = notes.get(
            12_usize
                .checked_add(aligned(name_len)?)?
                .checked_add(aligned(desc_len)?)?..,
        )?;
    }
    Some(false)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_shell_is_recognised_as_dynamic_and_text_is_no_program() {
        let shell = std::fs::read("/bin/sh").unwrap();
        let elf = Elf::parse(&shell).unwrap();
        assert!(!elf.is_static());
        assert!(!elf.has_pvh_entry());
        assert!(Elf::parse(b"#!/bin/sh\n").is_none());
        assert!(Elf::parse(&shell[..60]).is_none());
    }

    #[test]
    fn pvh_note_is_found_behind_another_and_a_cut_one_is_not() {
        let note = |kind: u32, name: &[u8; 4], desc: &[u8]| {
            let len = u32::try_from(desc.len()).unwrap();
            let mut bytes = [4, len, kind].map(u32::to_le_bytes).concat();
            bytes.extend(name);
            bytes.extend(desc);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let mut notes = note(7, b"Xen\0", b"xyz");
        notes.extend(note(PHYS32_ENTRY, b"Xen\0", &[0; 4]));
        assert_eq!(has_note(&notes), Some(true));
        assert_eq!(has_note(&notes[..20]), Some(false));
        assert_eq!(has_note(&notes[..25]), None);
    }
}
