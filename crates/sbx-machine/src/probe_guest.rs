//! The tiniest guest that proves a machine: an initramfs whose `/init` writes one line and reboots.

use cpio::newc::{Builder, ModeFileType, trailer};
use std::io::{self, Write};

/// What the guest writes to its console.
pub(crate) const WORD: &str = "sbx-probe-ok";

/// `write(1, WORD)`, `reboot(RESTART)`, stay. Position independent.
const CODE: &[u8] = &[
    0xb8, 0x01, 0x00, 0x00, 0x00, // mov eax, 1 (write)
    0x89, 0xc7, // mov edi, eax
    0x48, 0x8d, 0x35, 0x1f, 0x00, 0x00, 0x00, // lea rsi, [rip + 0x1f]: behind the code
    0xba, 0x0d, 0x00, 0x00, 0x00, // mov edx, 13
    0x0f, 0x05, // syscall
    0xb8, 0xa9, 0x00, 0x00, 0x00, // mov eax, 169 (reboot)
    0xbf, 0xad, 0xde, 0xe1, 0xfe, // mov edi, LINUX_REBOOT_MAGIC1
    0xbe, 0x69, 0x19, 0x12, 0x28, // mov esi, LINUX_REBOOT_MAGIC2
    0xba, 0x67, 0x45, 0x23, 0x01, // mov edx, LINUX_REBOOT_CMD_RESTART
    0x0f, 0x05, // syscall
    0xeb, 0xfe, // jmp to itself
];

const BASE: u64 = 0x40_0000;
const EHDR: u16 = 64;
const PHDR: u16 = 56;

/// A static x86-64 ELF program (System V ABI, ELF-64 object file format): header, one loadable segment.
fn program() -> Vec<u8> {
    let body: Vec<u8> = [CODE, WORD.as_bytes(), b"\n"].concat();
    let headers = u64::from(EHDR + PHDR);
    let size = headers + body.len() as u64;
    let mut out = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for half in [2u16, 62] {
        out.extend(half.to_le_bytes()); // executable, x86-64
    }
    out.extend(1u32.to_le_bytes());
    for word in [BASE + headers, u64::from(EHDR), 0] {
        out.extend(word.to_le_bytes()); // entry, program headers, no sections
    }
    out.extend(0u32.to_le_bytes());
    for half in [EHDR, PHDR, 1, 0, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    for word in [1u32, 5] {
        out.extend(word.to_le_bytes()); // PT_LOAD, read and execute
    }
    for word in [0, BASE, BASE, size, size, 0x1000] {
        out.extend(word.to_le_bytes());
    }
    out.extend(body);
    out
}

/// The initramfs (newc cpio).
pub(crate) fn initramfs() -> io::Result<Vec<u8>> {
    let program = program();
    let size = u32::try_from(program.len()).map_err(io::Error::other)?;
    let mut init = Builder::new("init")
        .mode(0o755)
        .set_mode_file_type(ModeFileType::Regular)
        .write(Vec::new(), size);
    init.write_all(&program)?;
    trailer(init.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_where_the_code_looks_for_it() {
        // `lea` ends at offset 14 of the code and adds its displacement.
        assert_eq!(CODE.len(), 14 + 0x1f);
        assert_eq!(WORD.len() + 1, 13);
    }

    #[test]
    fn the_program_runs_on_this_kernel_and_says_the_word() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("init");
        // Patched to exit(0) instead of rebooting, should a test run with that power.
        let mut program = program();
        let at = usize::from(EHDR + PHDR) + 21;
        program[at..at + 10].copy_from_slice(&[0xb8, 0x3c, 0, 0, 0, 0xbf, 0, 0, 0, 0]);
        std::fs::write(&path, program).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        let output = std::process::Command::new(&path).output().unwrap();
        assert_eq!(output.stdout, format!("{WORD}\n").as_bytes());
        assert!(output.status.success());
    }
}
