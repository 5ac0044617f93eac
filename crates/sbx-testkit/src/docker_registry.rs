//! The reference registry of images, which distributions package: the real one, on loopback.

use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::registry::{ISSUER, RegistryStandIn};
use crate::tls::TestRoot;

/// The login of [`by_password`].
pub const USER: &str = "u";
/// Its password.
pub const PASSWORD: &str = "the-password-of-the-login";
/// `USER` with `PASSWORD`, as `htpasswd -B` writes it.
const HTPASSWD: &str = "u:$2y$05$abcdefghijklmnopqrstuuTU0ib/5GGuFJhOSkXjiWmSAjiZ1q6Ny\n";

/// Configuration of who may do what: with [`USER`] and [`PASSWORD`], everything.
pub fn by_password(folder: &Path) -> io::Result<Value> {
    let path = folder.join("htpasswd");
    std::fs::write(&path, HTPASSWD)?;
    Ok(json!({ "htpasswd": { "realm": "basic", "path": path } }))
}

/// The same: with a token that `issuer` gives out for this registry, at this address.
pub fn by_token(
    folder: &Path,
    issuer: &RegistryStandIn,
    address: &str,
    registry: &str,
) -> io::Result<Value> {
    let trusted = folder.join("trusted.pem");
    std::fs::write(&trusted, issuer.trust_pem())?;
    Ok(json!({ "token": {
        "realm": address, "service": registry, "issuer": ISSUER, "rootcertbundle": trusted,
    } }))
}

/// A running one. Dropping it ends it.
#[derive(Debug)]
pub struct DockerRegistry {
    process: Child,
    address: SocketAddr,
}

impl DockerRegistry {
    /// Starts `program` on a free port, over TLS with a certificate of `root` for these names. Everything it writes lies
    /// in `folder`. `auth`: that part of its configuration; null: everybody may do everything.
    pub fn start(
        program: &Path,
        folder: &Path,
        root: &TestRoot,
        names: &[&str],
        auth: &Value,
    ) -> io::Result<Self> {
        let (certificate, key) = root.leaf_pem(names).map_err(io::Error::other)?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).map(|()| path.display().to_string())
        };
        let config = json!({
            "version": 0.1,
            "log": { "level": "info" },
            "storage": { "filesystem": { "rootdirectory": folder.join("images") } },
            "auth": auth,
            "http": {
                "addr": "127.0.0.1:0",
                "tls": { "certificate": write("certificate", &certificate)?, "key": write("key", &key)? },
            },
        });
        // JSON is YAML.
        let config = write("config.yml", &config.to_string())?;
        let mut process = Command::new(program)
            .args(["serve", &config])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut log =
            BufReader::new(process.stderr.take().ok_or(io::ErrorKind::BrokenPipe)?).lines();
        let listening = log
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("listening on ")?.1.to_owned()));
        let address = listening.as_deref().and_then(|rest| rest.split(',').next());
        let address = address.and_then(|address| address.parse().ok());
        // It must not wait for a reader of its log.
        std::thread::spawn(move || log.for_each(drop));
        let Some(address) = address else {
            let _ = process.kill();
            let _ = process.wait();
            return Err(io::Error::other("the registry did not start"));
        };
        Ok(Self { process, address })
    }

    /// The bound address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
