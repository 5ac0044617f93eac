//! Everything inside trusts the root: the machine and its containers, whatever they are written in.
//!
//! The stand-in answers for a host with a credential, so the gateway opens every connection to it, and only
//! a client that trusts the root gets through. What came through is read from the stand-in's record.

use crate::clients::installed;
use crate::setting::{Setting, cache};
use sbx_e2e::debian::Debian;
use sbx_testkit::upstream::EchoUpstream;
use std::path::Path;

const HOST: &str = "api.anthropic.com";

/// `clients.sh TAG TREE`: each client asks for a path of its own below TAG. TREE holds Node.js and Java, the folder of the
/// script what pip installs for Requests, with roots of its own.
const CLIENTS: &str = r#"
url=https://api.anthropic.com/$1 tree=$2
try() { name=$1; shift; "$@" >/tmp/said 2>&1 || { echo "$name:"; tail -n 5 /tmp/said; }; }
export PYTHONPATH=$tree/usr/lib/python3/dist-packages
try curl curl -fsS -o /dev/null $url/curl
request() { printf 'GET /%s HTTP/1.1\r\nHost: api.anthropic.com\r\nConnection: close\r\n\r\n' $1; }
tls() { request $1 | openssl s_client -quiet -verify_return_error -connect api.anthropic.com:443; }
try openssl tls $1/openssl
try urllib python3 -c "import urllib.request as u; u.urlopen('$url/urllib').read()"
# As Debian packs it, it does not load where the image has no bundle of its own; nor does pip, which has it inside.
[ $1 = scratch ] || try requests python3 -c "import requests; requests.get('$url/requests').raise_for_status()"
export PYTHONPATH=$(dirname $0)/pypi
certifi="import certifi, requests; assert '/pypi/' in certifi.__file__; requests.get('$url/certifi').raise_for_status()"
try certifi python3 -c "$certifi"
export PYTHONPATH=$tree/usr/lib/python3/dist-packages
python3 -m pip download -q --no-deps --retries 0 -d /tmp --index-url $url/pip nothing >/dev/null 2>&1
node="fetch('$url/node').then(a => a.text()).catch(e => { console.error(e); process.exit(1) })"
LD_LIBRARY_PATH=$tree/usr/lib/x86_64-linux-gnu try node $tree/usr/bin/node -e "$node"
java="new java.net.URL('$url/java').openStream().read()"
try java $tree/usr/lib/jvm/default-java/bin/java -XX:TieredStopAtLevel=1 -cp $tree/usr/share/java/js.jar \
    org.mozilla.javascript.tools.shell.Main -e "$java"
"#;
/// What [`CLIENTS`] ask for.
const ASKED: [&str; 8] = [
    "curl",
    "openssl",
    "urllib",
    "requests",
    "certifi",
    "pip/nothing/",
    "node",
    "java",
];
/// A build step that speaks TLS, replaces the image's own bundle and leaves files with known times.
const DOCKERFILE: &str = r"
FROM debian
ARG WHERE
RUN curl -fsS -o /dev/null https://api.anthropic.com/$WHERE/curl; \
    cd /etc/ssl/certs && cp -p ca-certificates.crt new && mv new ca-certificates.crt && \
    mkdir /made && echo made > /made/file && touch -d @1000000000 /made/file /made /etc /etc/ssl/certs /
";

#[test]
fn machine_and_containers_trust_the_root_and_images_hold_nothing_of_it() {
    let setting = Setting::ordinary("balanced");
    let debian = Debian::new(&setting.installation, &cache()).unwrap();
    let upstream = EchoUpstream::start_tls(&[HOST]).unwrap();
    let work = prepare(&setting, &upstream, &debian.folder);
    let (work, tree) = (
        work.display().to_string(),
        debian.tree.display().to_string(),
    );
    let inside = |line: &str| {
        let outcome = setting.installation.inside("trust", line);
        println!("{:.1} s: {line}", outcome.took.as_secs_f64());
        outcome.success().unwrap()
    };

    // The machine. Debian's Java has its configuration below /etc, its Node.js parts of itself below /usr/share.
    inside(&format!(
        "sudo ln -s {tree}/etc/java-*-openjdk /etc/; sudo ln -s {tree}/usr/share/nodejs /usr/share/"
    ));
    assert_eq!(
        inside(&format!("bash {work}/clients.sh machine {tree}")),
        ""
    );
    inside(&format!(
        "git ls-remote -q https://{HOST}/machine/git; \
         docker manifest inspect {HOST}/machine/go:1; docker pull -q {HOST}/machine/engine:1; \
         request() {{ printf 'GET /machine/%s HTTP/1.0\\r\\nHost: {HOST}\\r\\n\\r\\n' $1; }}; \
         tls() {{ env -i /usr/bin/openssl s_client -quiet -verify_return_error -connect {HOST}:443 $@; }}; \
         request folder | tls -no-CAfile -CApath /etc/ssl/certs; request bare | tls; \
         sudo curl -sS -o /dev/null https://{HOST}/machine/root; \
         ! curl -sS --capath /var/empty --cacert {tree}/etc/ssl/certs/ca-certificates.crt https://{HOST}/untrusted/machine"
    ));

    // Containers: Debian's with everything, one of an image with nothing in it, one that is entered.
    inside(&format!(
        "docker import {} debian && tar -cT /dev/null | docker import - empty",
        debian.base.display()
    ));
    assert_eq!(
        inside(&format!(
            "docker run --rm -v {tree}:/tree:ro -v {work}:/work:ro debian bash /work/clients.sh run /tree"
        )),
        ""
    );
    // Nothing is in the image, `/etc/ssl` neither: the programs are mounted, and what Java has below `/etc`.
    assert_eq!(
        inside(&format!(
            "java=$(echo {tree}/etc/java-*-openjdk); \
             docker run --rm --read-only --tmpfs /tmp $(printf ' -v /%s:/%s:ro' usr usr bin bin lib lib lib64 lib64) \
             -v $java:/etc/$(basename $java):ro -v {tree}:{tree}:ro -v {work}:/work:ro \
             empty bash /work/clients.sh scratch {tree}"
        )),
        ""
    );
    // Docker's own client is the program in Go; the answer is no manifest.
    inside(&format!(
        "docker run --rm -v /usr/bin/docker:/docker:ro -e DOCKER_CONFIG=/ debian \
         /docker manifest inspect {HOST}/run/go:1; true"
    ));
    inside(&format!(
        "docker run --rm --read-only -v /usr/bin/docker:/docker:ro -v /lib64:/lib64:ro -v /lib:/lib:ro \
         -e DOCKER_CONFIG=/ empty /docker manifest inspect {HOST}/scratch/go:1; \
         docker run -d --name held debian sleep infinity && \
         docker exec held curl -fsS -o /dev/null https://{HOST}/exec/curl && \
         docker exec -e CURL_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt held \
             sh -c '! curl -sS https://{HOST}/untrusted/own' && \
         docker rm -f held"
    ));

    same_layers(&setting, &work);
    pages_are_asked_for(&setting);
    let paths: Vec<String> = upstream
        .recorder()
        .requests()
        .into_iter()
        .map(|request| request.path)
        .collect();
    let tags = ["machine", "run", "scratch"];
    let mut wanted: Vec<String> = tags
        .iter()
        .flat_map(|tag| ASKED.map(|name| format!("/{tag}/{name}")))
        .filter(|path| !matches!(path.as_str(), "/scratch/requests" | "/scratch/pip/nothing/"))
        .collect();
    wanted.extend(
        [
            "/machine/git/info/refs",
            "/v2/machine/go/manifests/1",
            "/v2/machine/engine/manifests/1",
            "/machine/folder",
            "/machine/bare",
            "/machine/root",
            "/v2/run/go/manifests/1",
            "/v2/scratch/go/manifests/1",
            "/exec/curl",
            "/buildkit/curl",
            "/legacy/curl",
        ]
        .map(str::to_owned),
    );
    let missing: Vec<&String> = wanted.iter().filter(|path| !paths.contains(path)).collect();
    assert!(
        missing.is_empty(),
        "did not get through: {missing:?}\ngot through: {paths:?}"
    );
    let untrusted = |path: &&String| path.contains("untrusted");
    assert_eq!(paths.iter().find(untrusted), None);
}

/// A program that opens a page asks the host, under each name that it may know. No page opens here: the policy
/// allows neither, and there is no screen.
fn pages_are_asked_for(setting: &Setting) {
    let line = "for name in xdg-open sensible-browser \"$BROWSER\"; do $name https://denied.test/page; echo $?; done";
    let outcome = setting.installation.inside("trust", line);
    assert!(outcome.stderr.contains("denied.test"), "{outcome}");
    assert_eq!(outcome.success().unwrap(), "4\n4\n4\n");
    let log = ["policy", "log", "trust", "--json"];
    let log = setting.installation.sbx(log).json().unwrap();
    let rows = log["blocked_hosts"].as_array().unwrap();
    let asked = |row: &&serde_json::Value| {
        row["proxy_type"] == "browser-open"
            && row["host"]
                .as_str()
                .is_some_and(|host| host.starts_with("denied.test"))
    };
    assert!(rows.iter().any(|row| asked(&row)), "{log:#}");
}

/// The sandbox `trust` with two workspaces: one for scripts, which is returned, and `programs`.
fn prepare(setting: &Setting, upstream: &EchoUpstream, programs: &Path) -> std::path::PathBuf {
    let installation = &setting.installation;
    let work = installation.folder("work").unwrap();
    let root = work.join("upstream.pem");
    let root_pem = upstream.root_pem().unwrap();
    for (path, text) in [
        (root.clone(), root_pem),
        (work.join("clients.sh"), CLIENTS),
        (work.join("Dockerfile"), DOCKERFILE),
    ] {
        installation.write(&path, text.as_bytes()).unwrap();
    }
    let packages = work.join("pypi");
    std::fs::create_dir(&packages).unwrap();
    let python = installed().join("python/lib");
    let own = std::fs::read_dir(&python).unwrap().next().unwrap().unwrap();
    for package in [
        "certifi",
        "charset_normalizer",
        "idna",
        "requests",
        "urllib3",
    ] {
        let from = own.path().join("site-packages").join(package);
        let copy = [
            "-rT",
            &from.display().to_string(),
            &packages.join(package).display().to_string(),
        ]
        .map(str::to_owned);
        assert!(
            std::process::Command::new("cp")
                .args(copy)
                .status()
                .unwrap()
                .success()
        );
    }
    let overrides = serde_json::json!({ format!("{HOST}:443"): upstream.address().to_string() });
    let (overrides, root) = (overrides.to_string(), root.display().to_string());
    for step in [
        ["settings", "set", "upstream.overrides", &overrides],
        ["settings", "set", "upstream.extraRoots", &root],
    ] {
        installation.sbx(step).success().unwrap();
    }
    let secret = ["secret", "set", "anthropic"];
    installation
        .sbx_in(&work, b"sk-ant-api03-of-the-stand-in", secret)
        .success()
        .unwrap();
    let (first, second) = (
        work.display().to_string(),
        format!("{}:ro", programs.display()),
    );
    let create = [
        "create", "shell", &first, &second, "--name", "trust", "--memory", "2g", "--cpus", "2",
    ];
    installation.sbx(create).success().unwrap();
    work
}

/// Images built with the real `runc` in our place have the same layers, and there the step finds no trust.
fn same_layers(setting: &Setting, work: &str) {
    let build = |builder: u8, tag: &str, place: &str| {
        format!(
            "DOCKER_BUILDKIT={builder} docker build -q --no-cache --build-arg WHERE={place} -t {tag} {work} && "
        )
    };
    let line = [
        build(1, "one", "buildkit"),
        build(0, "two", "legacy"),
        "sudo ln -sf /usr/sbin/runc /run/sbx/bin/runc && ".to_owned(),
        build(1, "three", "untrusted-buildkit"),
        build(0, "four", "untrusted-legacy"),
        "docker image inspect -f '{{json .RootFS.Layers}}' one two three four".to_owned(),
    ];
    let outcome = setting.installation.inside("trust", &line.concat());
    println!("{:.1} s: four builds", outcome.took.as_secs_f64());
    let said = outcome.success().unwrap();
    let layers: Vec<&str> = said.lines().filter(|line| line.starts_with('[')).collect();
    let [ours, ours_legacy, real, real_legacy] = layers[..] else {
        panic!("not four images: {said}");
    };
    assert_eq!(ours.matches("sha256:").count(), 2, "{said}");
    assert_eq!(ours, real, "{said}");
    assert_eq!(ours_legacy, real_legacy, "{said}");
}
