//! A client of registries of images (skopeo, whose library podman and buildah use) that has no login, against the reference
//! registry.

use std::path::Path;
use std::time::Duration;

use sbx_testkit::docker_registry::{PASSWORD, USER, by_password, by_token};
use sbx_testkit::registry::Options;
use sbx_testkit::{DockerRegistry, RegistryStandIn, TestRoot};
use serde_json::Value;

use super::{Standin, Town, Way, installed};
use crate::lab::Setup;
use crate::registries::login;

const REGISTRY: &str = "registry.test";
const AUTH: &str = "auth.test";
/// Makes an image, pushes it and pulls it.
const PUSH_AND_PULL: &str = r#"set -e
    export LD_LIBRARY_PATH=$CLIENTS/debian/usr/lib/x86_64-linux-gnu:$CLIENTS/debian/lib/x86_64-linux-gnu
    skopeo() { "$CLIENTS/debian/usr/bin/skopeo" --insecure-policy --tmpdir "$PWD" "$@"; }
    mkdir image
    head -c 3000000 /dev/urandom > content
    tar -czf layer.tar.gz content
    layer=$(sha256sum < layer.tar.gz | cut -d' ' -f1)
    content=$(gzip -dc layer.tar.gz | sha256sum | cut -d' ' -f1)
    cp layer.tar.gz image/$layer
    printf '{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' $content > config
    config=$(sha256sum < config | cut -d' ' -f1)
    cp config image/$config
    printf 'Directory Transport Version: 1.1\n' > image/version
    cat > image/manifest.json <<END
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$config","size":$(wc -c < config)},
"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:$layer","size":$(wc -c < layer.tar.gz)}]}
END
    skopeo copy --quiet dir:image docker://$1/some/app:1
    skopeo copy --quiet docker://$1/some/app:1 dir:back
    cmp image/$layer back/$layer
    cmp image/manifest.json back/manifest.json
    echo pulled
"#;

/// A registry with this configuration of who may do what, and the gateway before it.
fn town(
    folder: &Path,
    auth: &Value,
    others: &[(&str, &RegistryStandIn)],
    endpoint: Option<&str>,
) -> (DockerRegistry, Town) {
    let root = TestRoot::new("registry root").unwrap();
    let program = installed().join("debian/usr/bin/docker-registry");
    let registry = DockerRegistry::start(&program, folder, &root, &[REGISTRY], auth).unwrap();
    let mut setup = Setup::new(&["allow registry.test", "allow auth.test"])
        .send_to("registry.test:443", registry.address());
    setup.file.upstream.extra_roots_pem.push(root.pem());
    for (name, server) in others {
        setup = setup.send_to(&format!("{name}:443"), server.address());
        let root = server.root_pem().to_owned();
        setup.file.upstream.extra_roots_pem.push(root);
    }
    let standin = Standin::program(registry.address(), root.pem());
    let town = Town::start(setup.bind(login(REGISTRY, endpoint)), standin);
    (registry, town)
}

#[track_caller]
fn pushes_and_pulls(town: &Town) {
    for way in [Way::Forward, Way::Transparent] {
        let outcome = town.run(way, PUSH_AND_PULL, &[REGISTRY]);
        let shown = format!("{way:?}: {}", outcome.output);
        assert!(
            outcome.success && outcome.output.contains("pulled"),
            "{shown}"
        );
    }
    let credential = |host: &str| {
        let records = town.records_of(host, 0);
        records
            .into_iter()
            .any(|record| record.credential.as_deref() == Some("registry:registry.test"))
    };
    assert!(credential(REGISTRY));
}

#[test]
fn skopeo_without_a_login_pushes_to_and_pulls_from_a_registry_that_wants_one() {
    let folder = tempfile::tempdir().unwrap();
    let auth = by_password(folder.path()).unwrap();
    let (_registry, town) = town(folder.path(), &auth, &[], None);
    pushes_and_pulls(&town);
}

#[test]
fn skopeo_without_a_login_pushes_to_and_pulls_from_a_registry_that_wants_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let server = RegistryStandIn::start(Options {
        names: vec![AUTH.to_owned()],
        user: USER.to_owned(),
        password: PASSWORD.to_owned(),
        realm: None,
        storage: None,
        lifetime: Duration::from_mins(5),
    });
    let server = server.unwrap();
    let endpoint = "https://auth.test/token";
    let auth = by_token(folder.path(), &server, endpoint, REGISTRY).unwrap();
    let (_registry, town) = town(folder.path(), &auth, &[(AUTH, &server)], Some(endpoint));
    pushes_and_pulls(&town);
    let asked = server.recorder().requests();
    assert!(
        !asked.is_empty()
            && asked
                .iter()
                .all(|request| request.header("authorization").is_some())
    );
}
