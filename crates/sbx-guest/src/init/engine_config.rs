//! What the Docker Engine is configured with.

use super::disks::DOCKER_ROOT;
use super::shims::FOLDER;
use sbx_wire::guest::engine_variables;

/// Where containerd listens.
pub(super) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// Its data on the data disk (an overlay cannot lie on our root, which is one), without the parts that the
/// engine does not use: some of them look for kernel modules that are not there.
pub(super) fn containerd() -> String {
    const UNUSED: [&str; 10] = [
        "io.containerd.grpc.v1.cri",
        "io.containerd.internal.v1.opt",
        "io.containerd.internal.v1.restart",
        "io.containerd.internal.v1.tracing",
        "io.containerd.nri.v1.nri",
        "io.containerd.snapshotter.v1.aufs",
        "io.containerd.snapshotter.v1.blockfile",
        "io.containerd.snapshotter.v1.btrfs",
        "io.containerd.snapshotter.v1.devmapper",
        "io.containerd.snapshotter.v1.zfs",
    ];
    format!(
        "version = 2\nroot = \"{DOCKER_ROOT}/containerd/daemon\"\nstate = \"/run/containerd/state\"\n\
         disabled_plugins = {UNUSED:?}\n[grpc]\n  address = \"{CONTAINERD_SOCKET}\"\n"
    )
}

/// The MTU stands for the network that is there from the start, and again for those that are made later.
pub(super) fn dockerd(mtu: u16) -> String {
    format!(
        r#"{{
  "data-root": "{DOCKER_ROOT}",
  "storage-driver": "overlay2",
  "mtu": {mtu},
  "default-network-opts": {{ "bridge": {{ "com.docker.network.driver.mtu": "{mtu}" }} }},
  "ip6tables": false,
  "log-driver": "json-file",
  "log-opts": {{ "max-size": "10m", "max-file": "3" }},
  "shutdown-timeout": 5
}}
"#
    )
}

/// The engine's own surroundings: what it pulls goes through the sandbox's proxy and trusts its roots.
pub(super) fn environment(sandbox: &[(String, String)]) -> Vec<(String, String)> {
    let mut env = vec![
        (
            "PATH".to_owned(),
            // Our `runc` comes first, for the engine (which builds images with it) and for containerd.
            format!("{FOLDER}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ),
        ("HOME".to_owned(), "/root".to_owned()),
    ];
    env.extend(engine_variables(sandbox));
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_gets_proxies_and_roots_and_nothing_else_of_the_sandbox() {
        let pair = |name: &str| (name.to_owned(), "value".to_owned());
        let env = environment(&[pair("https_proxy"), pair("SSL_CERT_FILE"), pair("API_KEY")]);
        let names: Vec<&str> = env.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["PATH", "HOME", "https_proxy", "SSL_CERT_FILE"]);
    }
}
