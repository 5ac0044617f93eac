//! What goes into the images, and the keys that follow from it.

use crate::request::Request;
use crate::{customise, layer};
use sbx_agents::Install;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// Rises with every change to what a build makes of the same packages and texts.
const RECIPE: u32 = 2;
/// Debian release of the sandboxes.
pub const SUITE: &str = "trixie";
/// Package whose dependency is the kernel to use.
pub(crate) const KERNEL_META: &str = "linux-image-cloud-amd64";
/// What a sandbox has besides `minbase`. `docker-cli` and `docker-buildx` are separate from the engine in
/// this release; `kmod` and `iptables` are what the engine starts its network with; `socat` carries the SSH
/// agent; `zstd` and `xz-utils` also unpack the kernel during the build.
pub(crate) const PACKAGES: [&str; 25] = [
    "bash",
    "ca-certificates",
    "curl",
    "docker-buildx",
    "docker-cli",
    "docker.io",
    "e2fsprogs",
    "file",
    "git",
    "iproute2",
    "iputils-ping",
    "iptables",
    "jq",
    "kmod",
    "less",
    "openssh-client",
    "procps",
    "python3",
    "ripgrep",
    "socat",
    "sudo",
    "tini",
    "unzip",
    "xz-utils",
    "zstd",
];
/// Search path of the agent and everything it starts.
pub(crate) const PATH: &str =
    "/home/agent/.local/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where the agent starts when no workspace says otherwise.
pub(crate) const WORKDIR: &str = "/home/agent/workspace";
/// Modules that the initramfs loads before the root file system is there. Those that a kernel has built in
/// drop out; the last two are useful, not necessary.
pub(crate) const INITRAMFS_MODULES: [&str; 8] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "erofs",
    "overlay",
    "ext4",
    "virtiofs",
    "virtio_net",
];
/// Loaded as well where the kernel has them.
pub(crate) const OPTIONAL_MODULES: [&str; 2] = ["virtio_rng", "virtio_balloon"];
/// Size of the writable disk, bytes; the file is sparse.
pub(crate) const UPPER_BYTES: u64 = 20 << 30;
/// Size of the Docker data disk, bytes; the file is sparse.
pub(crate) const DOCKER_BYTES: u64 = 10 << 30;

/// Key of the base image.
pub(crate) fn base_key(request: &Request) -> String {
    let mut text = format!("base {RECIPE} {} {SUITE} {KERNEL_META}", request.revision);
    for name in PACKAGES
        .iter()
        .chain(&INITRAMFS_MODULES)
        .chain(&OPTIONAL_MODULES)
    {
        let _ = write!(text, " {name}"); // writing to a String cannot fail
    }
    text.push_str(&customise::texts());
    key("base", &text)
}

/// Key of the image that `request` asks for.
pub(crate) fn image_key(request: &Request) -> String {
    let base = base_key(request);
    match &request.agent.install {
        Install::Base | Install::Inside(_) => base,
        Install::Layer(layer) => {
            let version = agent_version(request);
            let made_of = layer::text(layer);
            key(
                request.agent.name,
                &format!("{RECIPE} {} {base} {made_of} {version}", request.revision),
            )
        }
    }
}

/// Version or tag of the agent's package.
pub(crate) fn agent_version(request: &Request) -> &str {
    request.agent_version.as_deref().unwrap_or("latest")
}

/// Key of what is called `name` and made by `text`.
pub(crate) fn key(name: &str, text: &str) -> String {
    format!("{name}-{}", &hex(&Sha256::digest(text))[..16])
}

/// Lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sbx_agents::Agent;

    #[test]
    fn key_changes_with_revision_and_version_and_the_base_is_shared() {
        let shell = Request::new("/c", Agent::SHELL);
        let claude = Request {
            agent: "claude".parse().unwrap(),
            ..shell.clone()
        };
        let inside = Request {
            agent: "cursor".parse().unwrap(),
            ..shell.clone()
        };
        assert_eq!(image_key(&inside), base_key(&shell));
        assert_eq!(base_key(&shell), base_key(&claude));
        assert_eq!(image_key(&shell), base_key(&shell));
        let newer = Request {
            revision: 1,
            ..claude.clone()
        };
        let pinned = Request {
            agent_version: Some("2.0.0".into()),
            ..claude.clone()
        };
        let keys = [
            image_key(&claude),
            image_key(&newer),
            image_key(&pinned),
            image_key(&shell),
        ];
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[i + 1..].contains(key), "{key}");
        }
    }
}
