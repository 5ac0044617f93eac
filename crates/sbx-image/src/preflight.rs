//! Everything that can be known to fail is found before anything is written.

use crate::request::Request;
use crate::small::SmallRequest;
use crate::{ImageError, apt, namespace, store::Store, tools};
use crate::{recipe, request::AptSources};
use sbx_agents::Install;
use std::path::Path;

/// Space that building the base image takes at its peak, MiB (measured: 1,900).
const BASE_MIB: u64 = 2500;
/// The same for a small kernel (measured: 1,150).
const SMALL_MIB: u64 = 1800;

/// Checks programs, namespaces, the archive and the free space for what `request` still lacks in its cache.
/// Writes nothing but the cache folder. Takes about 50 ms.
///
/// # Errors
/// The first thing that is missing, each with its own next step; missing programs come together.
pub fn check(request: &Request) -> Result<(), ImageError> {
    let store = Store::new(&request.cache);
    let needs_base = store.open_key(&recipe::base_key(request)).is_none();
    let mut need_mib = 0;
    if needs_base {
        need_mib += BASE_MIB;
        debian(request.archive.as_ref())?;
    }
    if let Install::Layer(layer) = &request.agent.install
        && store.open_key(&recipe::image_key(request)).is_none()
    {
        need_mib += layer.space_mib;
        programs(
            tools::BASE
                .iter()
                .filter(|tool| tool.program == "mkfs.erofs"),
        )?;
        if tools::find("npm").is_none() {
            return Err(ImageError::MissingNpm);
        }
    }
    store.prepare()?;
    space(&request.cache, need_mib)
}

/// The same for a small kernel, which is missing.
pub(crate) fn check_small(request: &SmallRequest) -> Result<(), ImageError> {
    if !request.cache.is_absolute() {
        return Err(ImageError::Unexpected {
            what: "the cache folder must be an absolute path",
            detail: request.cache.display().to_string(),
        });
    }
    debian(request.archive.as_ref())?;
    Store::kernels(&request.cache).prepare()?;
    space(&request.cache, SMALL_MIB)
}

/// What making a Debian tree takes.
fn debian(wanted: Option<&AptSources>) -> Result<(), ImageError> {
    programs(tools::BASE.iter().chain(if namespace::is_root() {
        &[]
    } else {
        tools::USER
    }))?;
    namespace::check()?;
    archive(wanted).map(drop)
}

/// The archive to build from.
pub(crate) fn archive(wanted: Option<&AptSources>) -> Result<AptSources, ImageError> {
    match wanted {
        Some(archive) => Ok(AptSources {
            keyrings: apt::keyrings(&archive.keyrings, &|path| Path::new(path).is_file()),
            ..AptSources::new(&archive.main, archive.security.as_deref())?
        }),
        None => apt::detect(Path::new("/etc/apt")).ok_or(ImageError::NoArchive),
    }
}

fn programs<'a>(wanted: impl Iterator<Item = &'a tools::Tool>) -> Result<(), ImageError> {
    let missing: Vec<tools::Tool> = wanted.filter(|tool| !present(tool)).copied().collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(ImageError::MissingTools(missing))
    }
}

fn present(tool: &tools::Tool) -> bool {
    if *tool == tools::KEYRING {
        return apt::KEYRINGS.iter().any(|file| Path::new(file).exists());
    }
    tools::find(tool.program).is_some()
}

fn space(dir: &Path, need_mib: u64) -> Result<(), ImageError> {
    let stat = rustix::fs::statvfs(dir)
        .map_err(|error| ImageError::io("look at the free space of", dir)(error.into()))?;
    let have_mib = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
    if have_mib < need_mib {
        return Err(ImageError::TooLittleSpace {
            dir: dir.to_owned(),
            need_mib,
            have_mib,
        });
    }
    Ok(())
}
