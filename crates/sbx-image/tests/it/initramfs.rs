//! The initramfs, read back with the archive crate's reader.

use crate::sample;
use sbx_image::build_initramfs;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Barrier;
use std::thread;

/// A 64-bit x86-64 ELF header with one segment of type `kind`.
fn program(kind: u32) -> Vec<u8> {
    let mut bytes = vec![0; 64 + 56];
    bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
    bytes[18..20].copy_from_slice(&62_u16.to_le_bytes());
    bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
    bytes[54..56].copy_from_slice(&56_u16.to_le_bytes());
    bytes[56..58].copy_from_slice(&1_u16.to_le_bytes());
    bytes[64..68].copy_from_slice(&kind.to_le_bytes());
    bytes
}

/// Name, mode and content of every entry.
fn entries(archive: &Path) -> Vec<(String, u32, Vec<u8>)> {
    let mut file = fs::File::open(archive).unwrap();
    let mut found = Vec::new();
    loop {
        let mut reader = cpio::newc::Reader::new(file).unwrap();
        if reader.entry().is_trailer() {
            return found;
        }
        let (name, mode) = (reader.entry().name().to_owned(), reader.entry().mode());
        let mut content = Vec::new();
        reader.read_to_end(&mut content).unwrap();
        found.push((name, mode, content));
        file = reader.finish().unwrap();
    }
}

#[test]
fn archive_holds_init_and_the_modules_in_load_order() {
    let dir = tempfile::tempdir().unwrap();
    let image = sample::image(dir.path());
    let guest = dir.path().join("sbx-guest");
    fs::write(&guest, program(1)).unwrap();
    let path = build_initramfs(&guest, &image.modules, dir.path()).unwrap();
    let all = entries(&path);
    let init = all.iter().find(|(name, ..)| name == "init").unwrap();
    assert_eq!(
        (init.1, init.2.as_slice()),
        (0o100_755, program(1).as_slice())
    );
    let modules: Vec<_> = all
        .iter()
        .filter(|(name, ..)| name.starts_with("modules/"))
        .collect();
    assert_eq!(modules[0].0, "modules/00-erofs.ko");
    assert_eq!(modules[0].2, b"first");
    assert_eq!(modules[1].0, "modules/01-overlay.ko");
    let folder = all.iter().position(|(name, ..)| name == "modules").unwrap();
    let first = all
        .iter()
        .position(|(name, ..)| name == "modules/00-erofs.ko")
        .unwrap();
    assert!(folder < first, "a folder comes before what is in it");
}

#[test]
fn same_parts_give_the_same_file_and_another_guest_another() {
    let dir = tempfile::tempdir().unwrap();
    let image = sample::image(dir.path());
    let guest = dir.path().join("sbx-guest");
    fs::write(&guest, program(1)).unwrap();
    let first = build_initramfs(&guest, &image.modules, dir.path()).unwrap();
    let written = first.metadata().unwrap().modified().unwrap();
    assert_eq!(
        build_initramfs(&guest, &image.modules, dir.path()).unwrap(),
        first
    );
    assert_eq!(first.metadata().unwrap().modified().unwrap(), written);
    fs::write(&guest, program(2)).unwrap();
    assert_ne!(
        build_initramfs(&guest, &image.modules, dir.path()).unwrap(),
        first
    );
}

#[test]
fn whoever_writes_at_the_same_time_gets_a_file_that_is_what_its_name_says() {
    const WRITERS: u8 = 8;
    let dir = tempfile::tempdir().unwrap();
    let image = sample::image(dir.path());
    let guest = |writer: u8| {
        let padding = vec![writer; usize::from(writer) << 18];
        [program(1), padding].concat()
    };
    let barrier = Barrier::new(usize::from(WRITERS));
    let paths: Vec<_> = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let path = dir.path().join(format!("guest-{writer}"));
                fs::write(&path, guest(writer)).unwrap();
                let (image, dir, barrier) = (&image, dir.path(), &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    build_initramfs(&path, &image.modules, dir).unwrap()
                })
            })
            .collect();
        let joined = writers.into_iter().map(|writer| writer.join().unwrap());
        joined.collect()
    });
    for (writer, path) in (0..WRITERS).zip(&paths) {
        let all = entries(path);
        let init = all.iter().find(|(name, ..)| name == "init").unwrap();
        assert!(init.2 == guest(writer), "{}", path.display());
    }
    let written = fs::read_dir(dir.path().join("initramfs")).unwrap().count();
    assert_eq!(written, paths.len(), "nothing is left beside them");
}

#[test]
fn file_that_is_not_what_its_name_says_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let image = sample::image(dir.path());
    let guest = dir.path().join("sbx-guest");
    fs::write(&guest, program(1)).unwrap();
    let path = build_initramfs(&guest, &image.modules, dir.path()).unwrap();
    let right = fs::read(&path).unwrap();
    fs::write(&path, &right[..right.len() / 2]).unwrap();
    assert_eq!(
        build_initramfs(&guest, &image.modules, dir.path()).unwrap(),
        path
    );
    assert!(fs::read(&path).unwrap() == right);
}

#[test]
fn dynamic_guest_binary_is_refused_with_a_next_step() {
    let dir = tempfile::tempdir().unwrap();
    let image = sample::image(dir.path());
    for guest in [Path::new("/bin/sh"), Path::new("/etc/passwd")] {
        let report = build_initramfs(guest, &image.modules, dir.path())
            .unwrap_err()
            .report();
        assert_eq!(report.code, "guest-binary");
        assert!(report.hint.is_some());
    }
    assert!(!dir.path().join("initramfs").exists());
}
