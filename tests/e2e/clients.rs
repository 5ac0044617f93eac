//! Clients inside a machine: the Docker Engine against a registry of images, git and curl against a server of files.
//! (Every other client runs against the same gateway without a machine: sbx-gateway, tests/it/clients.)

use crate::setting::Setting;
use sbx_e2e::nowhere::{Sought, is_nowhere};
use sbx_testkit::docker_registry::{self, DockerRegistry};
use sbx_testkit::registry::{Options, RegistryStandIn};
use sbx_testkit::{FileServer, TestRoot, files::git_repository};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The registry under a name that is tunnelled unread.
const UNREAD: &str = "registry.test";
/// The same registry under a name that is opened, because a credential is bound to it.
const OPENED: &str = "api.anthropic.com";
/// The server of files, tunnelled unread.
const FILES: &str = "files.test";

/// A registry that wants a login.
const LOGIN: &str = "login.test";
/// One that wants tokens, and where those are issued.
const TOKENS: &str = "tokens.test";
const ISSUER: &str = "issuer.test";

/// The registries that nobody may use without a login, which the machine does not have.
struct Private {
    login: DockerRegistry,
    tokens: DockerRegistry,
    issuer: RegistryStandIn,
}

impl Private {
    fn start(folder: &Path, program: &Path, root: &TestRoot) -> Self {
        let own = |name: &str| {
            let own = folder.join(name);
            std::fs::create_dir(&own).unwrap();
            own
        };
        let issuer = RegistryStandIn::start(Options {
            names: vec![ISSUER.to_owned()],
            user: docker_registry::USER.to_owned(),
            password: docker_registry::PASSWORD.to_owned(),
            realm: None,
            storage: None,
            lifetime: Duration::from_mins(5),
        })
        .unwrap();
        let (login, tokens) = (own(LOGIN), own(TOKENS));
        let password = docker_registry::by_password(&login).unwrap();
        let address = format!("https://{ISSUER}/token");
        let token = docker_registry::by_token(&tokens, &issuer, &address, TOKENS).unwrap();
        Self {
            login: DockerRegistry::start(program, &login, root, &[LOGIN], &password).unwrap(),
            tokens: DockerRegistry::start(program, &tokens, root, &[TOKENS], &token).unwrap(),
            issuer,
        }
    }

    /// Stores the logins for all sandboxes.
    fn store(setting: &Setting, folder: &Path) {
        let endpoint = format!("https://{ISSUER}/token");
        let user = docker_registry::USER;
        let common = ["--username", user, "--password-stdin", "--all-sandboxes"];
        for own in [
            &["--registry", LOGIN][..],
            &["--registry", TOKENS, "--registry-auth-endpoint", &endpoint],
        ] {
            let words = [&["secret", "set"][..], own, &common].concat();
            let password = docker_registry::PASSWORD.as_bytes();
            let set = setting.installation.sbx_in(folder, password, words);
            set.success().unwrap();
        }
    }
}

/// The login of the registries is nowhere in the machine or beside it; Docker has it neither in its files nor in memory.
fn logins_are_nowhere(setting: &Setting) {
    setting.inside("pull", "sync");
    let sought = Sought {
        secrets: &[("the password of a registry", docker_registry::PASSWORD)],
        ..Sought::default()
    };
    println!("{}", is_nowhere(&setting.installation, &sought).unwrap());
}

/// Where `./dev test` installs clients and servers.
pub(crate) fn installed() -> PathBuf {
    let exe = std::env::current_exe().unwrap();
    let target = exe.ancestors().nth(3).unwrap();
    target.join("clients")
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one boot of a machine, one client after the other"
)]
fn docker_pushes_pulls_and_builds_and_git_and_curl_work_in_a_machine() {
    let setting = Setting::ordinary("deny-all");
    let folder = tempfile::tempdir().unwrap();
    let root = TestRoot::new("registry root").unwrap();
    let program = installed().join("debian/usr/bin/docker-registry");
    let names = [UNREAD, OPENED];
    let registry =
        DockerRegistry::start(&program, folder.path(), &root, &names, &Value::Null).unwrap();
    let work = folder.path().join("work");
    std::fs::create_dir(&work).unwrap();
    std::fs::write(work.join("hello"), "hello from a file\n").unwrap();
    git_repository(folder.path(), "hello.git", &work).unwrap();
    let files = FileServer::start(folder.path(), &[FILES]).unwrap();

    let private = Private::start(folder.path(), &program, &root);
    let roots = format!(
        "{}{}{}",
        root.pem(),
        files.root_pem().unwrap(),
        private.issuer.root_pem()
    );
    let trust = setting
        .installation
        .folder("trust")
        .unwrap()
        .join("roots.pem");
    setting
        .installation
        .write(&trust, roots.as_bytes())
        .unwrap();
    let overrides = serde_json::json!({
        format!("{UNREAD}:443"): registry.address().to_string(),
        format!("{OPENED}:443"): registry.address().to_string(),
        format!("{FILES}:443"): files.address().to_string(),
        format!("{LOGIN}:443"): private.login.address().to_string(),
        format!("{TOKENS}:443"): private.tokens.address().to_string(),
        format!("{ISSUER}:443"): private.issuer.address().to_string(),
    });
    let sbx = |arguments: &[&str]| setting.installation.sbx(arguments.iter().copied());
    for step in [
        &[
            "settings",
            "set",
            "upstream.overrides",
            &overrides.to_string(),
        ][..],
        &[
            "settings",
            "set",
            "upstream.extraRoots",
            &trust.display().to_string(),
        ],
        &[
            "policy",
            "allow",
            "network",
            &format!("{UNREAD},{OPENED},{FILES},{LOGIN},{TOKENS},{ISSUER}"),
        ],
    ] {
        sbx(step).success().unwrap();
    }
    let key = setting.installation.sbx_in(
        folder.path(),
        b"sk-ant-api03-a-key-that-the-registry-ignores",
        ["secret", "set", "anthropic"],
    );
    key.success().unwrap();
    Private::store(&setting, folder.path());
    let workspace = setting.shell("pull");
    // Unread, the stand-ins' own certificates are seen; a person would have theirs trusted in the same way.
    setting
        .installation
        .write(&workspace.join("roots.pem"), roots.as_bytes())
        .unwrap();

    let inside = |line: &str| setting.inside("pull", &format!("set -e\n{line}"));
    inside(&format!(
        "sudo mkdir -p /etc/docker/certs.d/{UNREAD}
         sudo cp roots.pem /etc/docker/certs.d/{UNREAD}/ca.crt
         tar -chf /tmp/tiny.tar -C / bin/sh bin/echo $(ldd /bin/echo | grep -o '/lib[^ ]*' | sed 's|^/||' | sort -u)
         docker import /tmp/tiny.tar {UNREAD}/tiny:1
         docker push {UNREAD}/tiny:1
         for registry in {LOGIN} {TOKENS}
         do docker tag {UNREAD}/tiny:1 $registry/tiny:1; docker push $registry/tiny:1
         done
         test ! -e ~/.docker/config.json"
    ));
    let pull = |name: &str| {
        let line = format!(
            "docker rmi -f $(docker images -q) >/dev/null
             docker pull -q {name}/tiny:1
             docker run --rm {name}/tiny:1 /bin/sh -c '/bin/echo pulled'"
        );
        assert!(inside(&line).contains("pulled"), "{name}");
    };
    pull(UNREAD);
    pull(OPENED);
    pull(LOGIN);
    pull(TOKENS);
    let issued = private.issuer.recorder().requests();
    let all = issued
        .iter()
        .all(|asked| asked.header("authorization").is_some());
    assert!(!issued.is_empty() && all, "{issued:#?}");
    // Built without what was built before: the base is pulled and the step run again.
    let build = || {
        let built = inside(&format!(
            "docker rmi -f $(docker images -q) >/dev/null
             mkdir -p /tmp/build
             printf 'FROM {OPENED}/tiny:1\\nRUN [\"/bin/sh\", \"-c\", \"/bin/echo built > /made\"]\\n' > /tmp/build/Dockerfile
             docker build -q --no-cache -t made /tmp/build
             docker run --rm made /bin/sh -c 'read line < /made; /bin/echo $line'"
        ));
        assert!(built.contains("built"), "{built}");
    };
    build();
    // The variable is set to the sandbox's roots, and stronger than `http.sslCAInfo`.
    let git = format!("env GIT_SSL_CAINFO=roots.pem git clone -q https://{FILES}/git/hello.git");
    let curl = format!("curl -sS --cacert roots.pem https://{FILES}/work/hello");
    let direct = "env -u http_proxy -u https_proxy -u HTTP_PROXY -u HTTPS_PROXY";
    let read = inside(&format!(
        "{git} /tmp/forward\ncat /tmp/forward/hello\n{direct} {git} /tmp/direct\ncat /tmp/direct/hello\n\
         {curl}\n{direct} {curl}"
    ));
    assert_eq!(read, "hello from a file\n".repeat(4));

    // The engine without the proxy: one that its user configured otherwise.
    inside(
        "sudo sed -i '0,/{/s//{ \"proxies\": { \"no-proxy\": \"*\" },/' /etc/docker/daemon.json
         engine=$(cat /run/docker.pid)
         sudo kill $engine
         while test -e /proc/$engine; do sleep 0.1; done
         docker info >/dev/null",
    );
    pull(UNREAD);
    pull(OPENED);
    build();
    logins_are_nowhere(&setting);
    let denied = setting
        .installation
        .inside("pull", "docker pull denied.test/tiny:1");
    assert!(
        !denied.ok() && denied.stderr.contains("no such host"),
        "{denied}"
    );

    let log = sbx(&["policy", "log", "pull", "--json"]).json().unwrap();
    let rows = log["allowed_hosts"].as_array().unwrap();
    let passed = |host: &str, proxy: &str| {
        let fits = |row: &&Value| {
            row["host"]
                .as_str()
                .is_some_and(|name| name.starts_with(host))
                && row["proxy_type"] == proxy
        };
        assert!(rows.iter().any(|row| fits(&row)), "{host} {proxy}: {log:#}");
    };
    passed(UNREAD, "forward-bypass");
    passed(UNREAD, "transparent");
    passed(OPENED, "forward");
    passed(OPENED, "transparent");
    passed(FILES, "forward-bypass");
    passed(FILES, "transparent");
}
