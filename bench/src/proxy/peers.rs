//! The peers: squid's ssl-bump, mitmproxy, a minimal proxy on the hudsucker crate. Each checks the host list,
//! replaces the credential, and finds every name on 127.0.0.1.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::process::Proxy;
use super::stage::{SECRET, Stage, free_address};
use super::upstream::SECRET_HEADER;
use crate::tool::{cache, need, output};

/// The sources of the hudsucker peer, in the project's folder.
const HUDSUCKER: &str = "bench/peers/hudsucker/Cargo.toml";
/// The mitmproxy that is installed: the newest that the distribution's Python runs.
const MITMPROXY: &str = "mitmproxy>=11,<13";

/// hudsucker whose clients are in a network namespace, as those of our frames are, and come out of it through pasta, passt's
/// form for that: what a proxy needs that is not fed with frames itself.
pub(crate) const PASTA: &str = "hudsucker-pasta";
/// The host's loopback as pasta's clients see it.
const PASTA_HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 9, 2);

/// The command that runs this program in pasta's namespace.
pub(crate) fn in_pasta(program: &Path) -> Result<Command, String> {
    need("pasta", &["passt"])?;
    let mut command = Command::new("pasta");
    if rustix::process::getuid().is_root() {
        // It would become somebody who may not make a namespace.
        command.args(["--runas", "0:0"]);
    }
    let host = PASTA_HOST.to_string();
    command.args(["-q", "-4", "--config-net", "-I", "eth0", "-m", "65520"]);
    command.args(["-a", "10.0.9.15", "-n", "255.255.255.0", "-g", &host]);
    command.args(["-t", "none", "-u", "none", "-T", "none", "-U", "none", "--"]);
    command.arg(program).stderr(Stdio::null());
    Ok(command)
}

/// Starts a peer by its name, after installing it if need be.
pub(crate) fn start(name: &str, stage: &Stage) -> Result<Proxy, String> {
    match name {
        "squid" => squid(stage),
        "mitmproxy" => mitmproxy(stage),
        "hudsucker" => hudsucker(stage, "hudsucker"),
        PASTA => {
            let mut proxy = hudsucker(stage, PASTA)?;
            proxy.address.set_ip(PASTA_HOST.into());
            Ok(proxy)
        }
        other => Err(format!("there is no peer {other}")),
    }
}

fn squid(stage: &Stage) -> Result<Proxy, String> {
    need("squid", &["squid-openssl"])?;
    let address = free_address()?;
    let names = Stage::names().fold(String::new(), |mut lines, name| {
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "127.0.0.1 {name}");
        lines
    });
    stage.write("squid.hosts", &names)?;
    let folder = stage.folder("squid")?.display().to_string();
    // Made by squid's own user, which is another one when we are root.
    let generator = "/usr/lib/squid/security_file_certgen";
    output(
        generator,
        &["-c", "-s", &format!("{folder}/certificates"), "-M", "64MB"],
    )?;
    open_to_all(Path::new(&format!("{folder}/certificates")))?;
    let file = |name: &str| stage.text_path(name);
    let config = format!(
        "http_port {address} ssl-bump generate-host-certificates=on dynamic_cert_mem_cache_size=64MB \
         tls-cert={ca}\n\
         sslcrtd_program {generator} -s {folder}/certificates -M 64MB\n\
         sslcrtd_children 4 startup=2 idle=1\n\
         tls_outgoing_options cafile={root}\n\
         acl listed dstdomain \"{list}\"\n\
         http_access allow listed\n\
         http_access deny all\n\
         ssl_bump bump all\n\
         request_header_access {SECRET_HEADER} deny all\n\
         request_header_replace {SECRET_HEADER} {SECRET}\n\
         hosts_file {hosts}\n\
         cache deny all\n\
         access_log stdio:{folder}/access.log\n\
         cache_log {folder}/cache.log\n\
         pid_filename {folder}/pid\n\
         coredump_dir {folder}\n\
         netdb_filename none\n\
         pinger_enable off\n\
         max_filedescriptors 8192\n\
         shutdown_lifetime 0 seconds\n",
        ca = file("ca-and-key.pem"),
        root = file("upstream.pem"),
        list = file("list"),
        hosts = file("squid.hosts"),
    );
    let config = stage.write("squid.conf", &config)?;
    let said = stage.path("squid.out");
    let mut command = Command::new("/usr/sbin/squid");
    command.arg("-N").arg("-f").arg(config);
    Proxy::start("squid", &mut command, address, &said)?.listening(&said)
}

fn open_to_all(folder: &Path) -> Result<(), String> {
    output("chmod", &["-R", "a+rwX", &folder.display().to_string()]).map(drop)
}

fn mitmproxy(stage: &Stage) -> Result<Proxy, String> {
    let program = mitmdump()?;
    let address = free_address()?;
    let folder = stage.folder("mitmproxy")?;
    stage.write(
        "mitmproxy/mitmproxy-ca.pem",
        &std::fs::read_to_string(stage.path("ca-and-key.pem")).map_err(|e| e.to_string())?,
    )?;
    let script = format!(
        "import socket\n\
         from mitmproxy import http\n\
         # Every name is on 127.0.0.1; changed here, so that upstream connections are used again.\n\
         resolve = socket.getaddrinfo\n\
         socket.getaddrinfo = lambda host, *rest, **more: resolve('127.0.0.1', *rest, **more)\n\
         LISTED = frozenset(open({list:?}).read().split())\n\
         def allowed(host):\n\
         \x20   if host in LISTED:\n\
         \x20       return True\n\
         \x20   at = host.find('.')\n\
         \x20   while at >= 0:\n\
         \x20       if host[at:] in LISTED:\n\
         \x20           return True\n\
         \x20       at = host.find('.', at + 1)\n\
         \x20   return False\n\
         def http_connect(flow):\n\
         \x20   if not allowed(flow.request.host):\n\
         \x20       flow.response = http.Response.make(403)\n\
         def request(flow):\n\
         \x20   if not allowed(flow.request.host):\n\
         \x20       flow.response = http.Response.make(403)\n\
         \x20   flow.request.headers[{SECRET_HEADER:?}] = {SECRET:?}\n\
         def responseheaders(flow):\n\
         \x20   if 'event-stream' in flow.response.headers.get('content-type', ''):\n\
         \x20       flow.response.stream = True\n",
        list = stage.text_path("list"),
    );
    let script = stage.write("mitmproxy.py", &script)?;
    let said = stage.path("mitmproxy.out");
    let mut command = Command::new(program);
    command
        .args(["-q", "--listen-host", "127.0.0.1", "--listen-port"])
        .arg(address.port().to_string())
        .arg("-s")
        .arg(script)
        .args(["--set", &format!("confdir={}", folder.display())])
        .args(["--set", "connection_strategy=lazy"])
        .arg("--set")
        .arg(format!(
            "ssl_verify_upstream_trusted_ca={}",
            stage.text_path("upstream.pem")
        ));
    Proxy::start("mitmproxy", &mut command, address, &said)?.listening(&said)
}

/// The program, in a virtual environment of its own in the cache folder.
fn mitmdump() -> Result<PathBuf, String> {
    let folder = cache("sbx-bench-mitmproxy")?;
    let program = folder.join("bin/mitmdump");
    if program.exists() {
        return Ok(program);
    }
    need("python3", &["python3"])?;
    let place = folder.display().to_string();
    if output("python3", &["-m", "venv", &place]).is_err() {
        need("python3-venv", &["python3-venv"])?;
        output("python3", &["-m", "venv", "--clear", &place])?;
    }
    let pip = folder.join("bin/pip").display().to_string();
    output(&pip, &["install", "--quiet", MITMPROXY])?;
    Ok(program)
}

fn hudsucker(stage: &Stage, name: &'static str) -> Result<Proxy, String> {
    let target = cache("sbx-bench-hudsucker")?;
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let place = target.display().to_string();
    let build = [
        "build",
        "--quiet",
        "--release",
        "--locked",
        "--manifest-path",
        HUDSUCKER,
        "--target-dir",
        &place,
    ];
    output(&cargo, &build)?;
    let address = free_address()?;
    let said = stage.path(&format!("{name}.out"));
    let mut command = Command::new(target.join("release/sbx-bench-hudsucker"));
    command.arg(address.port().to_string());
    for file in ["ca.pem", "ca.key", "upstream.pem", "list"] {
        command.arg(stage.path(file));
    }
    command.arg(SECRET);
    Proxy::start(name, &mut command, address, &said)?.listening(&said)
}
