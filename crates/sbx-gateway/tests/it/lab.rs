//! One gateway process with a guest before it and stand-ins behind it.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use sbx_gateway::addresses::GATEWAY;
use sbx_policy::{CreatedVia, Decision, PolicyDocument, Protocols, ResourcePattern, Rule, Scope};
use sbx_testkit::dns::Entry;
use sbx_testkit::{DnsStandIn, EchoUpstream};
use sbx_wire::gateway::{
    Answer, Authority, Command, Credential, EgressRecord, GatewayConfig, GatewayFile, Issuer,
    PublicKey, Upstream, Withdrawn,
};
use sbx_wire::secret::SecretText;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_rustls::client::TlsStream;

use crate::guest::{Guest, Stream};

pub(crate) const PLACEHOLDER: &str = "sbx-placeholder-0123456789abcdef";
pub(crate) const SECRET: &str = "sk-the-real-value-that-never-enters";
/// An address that nobody has; connections to it end at an override or nowhere.
pub(crate) const NOWHERE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

pub(crate) fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    })
}

pub(crate) fn run<F: Future>(test: F) -> F::Output {
    runtime().block_on(async {
        tokio::time::timeout(Duration::from_mins(1), test)
            .await
            .expect("the test takes too long")
    })
}

/// Writes a rule: `allow a.test:443`, `deny a.test`, `allow-udp a.test`, or `deny-both a.test`, which is about UDP too.
pub(crate) fn rule(text: &str) -> Rule {
    let (decision, resource) = text.split_once(' ').unwrap();
    let (decision, protocols) = match decision {
        "allow" => (Decision::Allow, Protocols::TCP),
        "allow-udp" => (Decision::Allow, Protocols::UDP),
        "deny" => (Decision::Deny, Protocols::TCP),
        "deny-both" => (Decision::Deny, Protocols::ALL),
        other => panic!("{other}"),
    };
    let id: String = text
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    Rule {
        id,
        name: None,
        scope: Scope::Global,
        decision,
        resources: vec![ResourcePattern::parse(resource).unwrap()],
        protocols,
        created_via: CreatedVia::Added,
        http: None,
    }
}

/// The installation's root, as the daemon has it.
pub(crate) struct TestAuthority {
    issuer: rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    pub(crate) root: CertificateDer<'static>,
}

/// A public key to issue for, as the daemon sees it.
struct Subject(PublicKey);

impl rcgen::PublicKeyData for Subject {
    fn der_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

fn authority_params(name: &str, life: Duration) -> rcgen::CertificateParams {
    let mut params = rcgen::CertificateParams::default();
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, name);
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.not_after = (SystemTime::now() + life).into();
    params
}

impl TestAuthority {
    pub(crate) fn new() -> Self {
        let params = authority_params("installation root", Duration::from_hours(24));
        let key = rcgen::KeyPair::generate().unwrap();
        let issuer = rcgen::CertifiedIssuer::self_signed(params, key).unwrap();
        let root = issuer.der().clone();
        Self { issuer, root }
    }

    pub(crate) fn root_pem(&self) -> String {
        self.issuer.pem()
    }

    /// An intermediate for a gateway's key that ends after `life`.
    pub(crate) fn issue(&self, key: PublicKey, life: Duration) -> Authority {
        let params = authority_params("sandbox intermediate", life);
        let intermediate = params.signed_by(&Subject(key), &self.issuer).unwrap();
        Authority {
            certificate_pem: intermediate.pem(),
            not_after_s: u64::try_from(params.not_after.unix_timestamp()).unwrap(),
            root_pem: self.issuer.pem(),
        }
    }
}

/// The key of a service whose key goes into a header.
pub(crate) fn anthropic(host: &str) -> Credential {
    Credential {
        service: "anthropic".to_owned(),
        hosts: vec![host.to_owned()],
        header: "x-api-key".to_owned(),
        format: "%s".to_owned(),
        placeholder: PLACEHOLDER.to_owned(),
        value: SecretText::new(SECRET.to_owned()),
        basic_user: None,
        replace: None,
        unavailable: None,
        on_demand: false,
        conversation: false,
        aws: None,
        registry: None,
    }
}

/// What the gateway is started with; change it before [`Setup::start`].
pub(crate) struct Setup {
    pub(crate) file: GatewayFile,
    pub(crate) credentials: Vec<Credential>,
    pub(crate) withdrawn: Vec<Withdrawn>,
    pub(crate) issuers: Vec<Issuer>,
    pub(crate) configure: bool,
    pub(crate) dns: DnsStandIn,
    /// Roots that the guest's TLS clients trust besides the sandbox's.
    pub(crate) guest_roots: Vec<String>,
}

impl Setup {
    pub(crate) fn new(rules: &[&str]) -> Self {
        let dns = DnsStandIn::start().unwrap();
        let upstream = Upstream {
            resolvers: vec![dns.address()],
            ..Upstream::default()
        };
        let policy = PolicyDocument::new(1, rules.iter().map(|text| rule(text)).collect());
        let sandbox = "box".to_owned();
        let credential_hosts = Vec::new();
        Self {
            file: GatewayFile {
                sandbox,
                policy,
                upstream,
                credential_hosts,
            },
            credentials: Vec::new(),
            withdrawn: Vec::new(),
            issuers: Vec::new(),
            configure: true,
            dns,
            guest_roots: Vec::new(),
        }
    }

    /// Sends `target` to `address` instead.
    pub(crate) fn send_to(mut self, target: &str, address: SocketAddr) -> Self {
        self.file
            .upstream
            .overrides
            .insert(target.to_owned(), address);
        self
    }

    /// Sends `name:443` to a TLS upstream and trusts its root.
    pub(crate) fn tls_upstream(self, name: &str, upstream: &EchoUpstream) -> Self {
        let mut setup = self.send_to(&format!("{name}:443"), upstream.address());
        let root = upstream.root_pem().unwrap().to_owned();
        setup.file.upstream.extra_roots_pem.push(root.clone());
        setup.guest_roots.push(root);
        setup
    }

    pub(crate) fn credential(mut self, host: &str) -> Self {
        let credential = anthropic(host);
        self.file.credential_hosts.push(host.to_owned());
        self.credentials.push(credential);
        self
    }

    /// Adds a credential of any form.
    pub(crate) fn bind(mut self, credential: Credential) -> Self {
        let hosts = credential.hosts.iter().cloned();
        self.file.credential_hosts.extend(hosts);
        self.credentials.push(credential);
        self
    }

    pub(crate) fn name(self, name: &str, addresses: &[Ipv4Addr]) -> Self {
        let addresses: Vec<IpAddr> = addresses.iter().copied().map(IpAddr::V4).collect();
        self.dns.set(name, Entry::addresses(60, &addresses));
        self
    }

    pub(crate) fn start(self) -> Lab {
        let _ = runtime();
        let folder = tempfile::tempdir().unwrap();
        let authority = TestAuthority::new();
        std::fs::create_dir(folder.path().join("run")).unwrap();
        std::fs::create_dir(folder.path().join("records")).unwrap();
        let listener = Guest::listen(&folder.path().join("frames.sock"));
        let Self {
            file,
            credentials,
            withdrawn,
            issuers,
            configure,
            dns,
            guest_roots,
        } = self;
        let mut lab = Lab {
            folder,
            authority,
            listener,
            file,
            credentials,
            withdrawn,
            issuers,
            dns,
            guest_roots,
            process: None,
            guest: None,
        };
        lab.write_file();
        lab.boot();
        if configure {
            lab.configure();
        }
        lab
    }
}

pub(crate) struct Lab {
    folder: tempfile::TempDir,
    pub(crate) authority: TestAuthority,
    listener: UnixListener,
    pub(crate) file: GatewayFile,
    pub(crate) credentials: Vec<Credential>,
    pub(crate) withdrawn: Vec<Withdrawn>,
    pub(crate) issuers: Vec<Issuer>,
    pub(crate) dns: DnsStandIn,
    guest_roots: Vec<String>,
    process: Option<Child>,
    guest: Option<Guest>,
}

impl Drop for Lab {
    #[expect(clippy::print_stdout, reason = "shown with the failure")]
    fn drop(&mut self) {
        self.guest = None;
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
            let records = std::fs::read_to_string(self.path("records/egress.jsonl"));
            let records = records.unwrap_or_default();
            let lines: Vec<&str> = records.lines().rev().take(1000).collect();
            println!("--- gateway log\n{log}--- records, the last first");
            println!("{}", lines.join("\n"));
        }
    }
}

impl Lab {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write_file(&self) {
        let file = serde_json::to_vec(&self.file).unwrap();
        std::fs::write(self.path("run/gateway.json"), file).unwrap();
    }

    /// Starts the process and becomes its guest.
    pub(crate) fn boot(&mut self) {
        self.launch();
        self.attach();
    }

    fn launch(&mut self) {
        let process = Process::new(env!("CARGO_BIN_EXE_sbx-gateway"))
            .arg("--frames")
            .arg(self.path("frames.sock"))
            .arg("--control")
            .arg(self.path("run/gateway.sock"))
            .arg("--file")
            .arg(self.path("run/gateway.json"))
            .arg("--records")
            .arg(self.path("records/egress.jsonl"))
            .arg("--log")
            .arg(self.path("log"))
            .env("SBX_LOG", "debug")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    fn attach(&mut self) {
        self.guest = Some(Guest::accept(&self.listener));
        self.wait_until_attached();
    }

    fn wait_until_attached(&self) {
        // The kernel lets us accept a moment before the gateway knows that it is connected.
        let attached = |answer| matches!(answer, Answer::Status { attached: true, .. });
        while !attached(self.ask(&Command::Status)) {
            std::thread::yield_now();
        }
    }

    /// Kills the process, as a crash would, and starts another one on the same socket.
    pub(crate) fn reboot(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        self.guest = None;
        self.boot();
    }

    /// As [`Lab::reboot`], with a VM whose socket appears only after the gateway has looked for it.
    pub(crate) fn reboot_with_late_vm(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        self.guest = None;
        let frames = self.path("frames.sock");
        std::fs::remove_file(&frames).unwrap();
        self.launch();
        // Bound just before the search begins.
        drop(self.control());
        assert!(self.is_alive(), "ended without a VM");
        self.listener = Guest::listen(&frames);
        self.attach();
    }

    /// Kills the process and starts another one, whose machine is what `become_machine` makes of the frame socket's
    /// path.
    pub(crate) fn hand_over<T>(&mut self, become_machine: impl FnOnce(&Path) -> T) -> T {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        self.guest = None;
        let frames = self.path("frames.sock");
        std::fs::remove_file(&frames).unwrap();
        let machine = become_machine(&frames);
        self.launch();
        self.wait_until_attached();
        self.configure();
        machine
    }

    pub(crate) fn guest(&self) -> &Guest {
        self.guest.as_ref().unwrap()
    }

    /// Closes the guest's end and waits for the gateway to end.
    pub(crate) fn power_off(&mut self) -> std::process::ExitStatus {
        self.guest = None;
        self.process.take().unwrap().wait().unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().id()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.process.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    pub(crate) fn control(&self) -> UnixStream {
        let started = Instant::now();
        loop {
            match UnixStream::connect(self.path("run/gateway.sock")) {
                Ok(stream) => return stream,
                Err(error) if started.elapsed() > Duration::from_secs(10) => panic!("{error}"),
                Err(_) => std::thread::yield_now(),
            }
        }
    }

    pub(crate) fn ask(&self, command: &Command) -> Answer {
        self.ask_raw(&serde_json::to_vec(command).unwrap())
    }

    pub(crate) fn ask_raw(&self, line: &[u8]) -> Answer {
        let mut stream = self.control();
        stream.write_all(line).unwrap();
        stream.write_all(b"\n").unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    pub(crate) fn config(&self) -> GatewayConfig {
        GatewayConfig {
            file: self.file.clone(),
            credentials: self.credentials.clone(),
            withdrawn: self.withdrawn.clone(),
            issuers: self.issuers.clone(),
            authority: self
                .authority
                .issue(self.gateway_key(), Duration::from_hours(2)),
        }
    }

    /// The key that the gateway names.
    pub(crate) fn gateway_key(&self) -> PublicKey {
        match self.ask(&Command::CertificateRequest) {
            Answer::CertificateRequest { public_key } => public_key,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn configure(&self) {
        let answer = self.ask(&Command::Configure(Box::new(self.config())));
        assert!(matches!(answer, Answer::Configured { .. }), "{answer:?}");
    }

    /// Puts other rules in force.
    pub(crate) fn set_rules(&mut self, rules: &[&str]) {
        let generation = self.file.policy.generation + 1;
        let rules = rules.iter().map(|text| rule(text)).collect();
        self.file.policy = PolicyDocument::new(generation, rules);
        self.write_file();
        self.configure();
    }

    pub(crate) fn records(&self) -> Vec<EgressRecord> {
        let text = std::fs::read_to_string(self.path("records/egress.jsonl")).unwrap_or_default();
        // The last line may be on its way.
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Begins the records anew.
    pub(crate) fn forget_records(&self) {
        let file = std::fs::File::options()
            .write(true)
            .open(self.path("records/egress.jsonl"));
        file.unwrap().set_len(0).unwrap();
    }

    /// Waits until so many records fit.
    pub(crate) async fn records_that(
        &self,
        count: usize,
        fits: impl Fn(&EgressRecord) -> bool,
    ) -> Vec<EgressRecord> {
        let started = Instant::now();
        loop {
            let found: Vec<_> = self.records().into_iter().filter(&fits).collect();
            if found.len() == count {
                return found;
            }
            let waiting = found.len() < count && started.elapsed() < Duration::from_secs(10);
            assert!(
                waiting,
                "{} and not {count}: {:#?}",
                found.len(),
                self.records()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for a record with this reason and host, and checks that it is the only one of the kind.
    pub(crate) async fn one_record(&self, reason: &str, host: &str) -> EgressRecord {
        let fits = |record: &EgressRecord| record.reason == reason && record.host == host;
        let started = Instant::now();
        loop {
            let found: Vec<_> = self.records().into_iter().filter(fits).collect();
            match found.as_slice() {
                [one] => return one.clone(),
                [] if started.elapsed() < Duration::from_secs(10) => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                found => panic!(
                    "{} records {reason} {host}: {:#?}",
                    found.len(),
                    self.records()
                ),
            }
        }
    }

    pub(crate) async fn proxy(&self) -> Stream {
        self.guest().connect(GATEWAY, 3128).await.unwrap()
    }

    /// `CONNECT target` through the proxy. Error: the status and body of a refusal.
    pub(crate) async fn connect(&self, target: &str) -> Result<Stream, (u16, String)> {
        let mut stream = self.proxy().await;
        let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).await.unwrap() == 0 {
                break;
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .unwrap_or(0);
        if status == 200 {
            return Ok(stream);
        }
        let length = head.to_ascii_lowercase();
        let length = length
            .split("content-length: ")
            .nth(1)
            .and_then(|l| l.lines().next());
        let mut body = vec![0; length.map_or(0, |l| l.parse().unwrap())];
        stream.read_exact(&mut body).await.unwrap();
        Err((status, String::from_utf8(body).unwrap()))
    }

    /// What a client inside trusts: the sandbox's root, and the given upstream roots.
    pub(crate) fn guest_roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.root.clone()).unwrap();
        for pem in &self.guest_roots {
            roots
                .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
                .unwrap();
        }
        roots
    }

    pub(crate) fn client_tls(&self, alpn: &[&[u8]]) -> rustls::ClientConfig {
        let mut config = rustls::ClientConfig::builder()
            .with_root_certificates(self.guest_roots())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        config
    }

    /// TLS as a client inside does it.
    pub(crate) async fn tls<S>(
        &self,
        stream: S,
        name: &str,
        alpn: &[&[u8]],
    ) -> std::io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.tls_as(self.client_tls(alpn), stream, name).await
    }

    /// TLS as a client inside does it that is configured in its own way.
    pub(crate) async fn tls_as<S>(
        &self,
        config: impl Into<Arc<rustls::ClientConfig>>,
        stream: S,
        name: &str,
    ) -> std::io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        tokio_rustls::TlsConnector::from(config.into())
            .connect(ServerName::try_from(name.to_owned()).unwrap(), stream)
            .await
    }

    /// A name's address as the guest's resolver gives it. Error: the response code.
    pub(crate) async fn resolve(&self, name: &str) -> Result<Vec<Ipv4Addr>, u8> {
        let answer = self.dns_query(name, 1).await;
        assert!(answer.len() >= 12, "no DNS answer for {name}");
        match answer[3] & 0xf {
            0 => Ok(addresses(&answer)),
            code => Err(code),
        }
    }

    pub(crate) async fn dns_query(&self, name: &str, kind: u16) -> Vec<u8> {
        let query = dns_question(name, kind);
        self.guest()
            .udp(GATEWAY, 53, &query)
            .await
            .unwrap_or_default()
    }
}

pub(crate) fn dns_question(name: &str, kind: u16) -> Vec<u8> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len()).unwrap());
        query.extend_from_slice(label.as_bytes());
    }
    query.push(0);
    query.extend_from_slice(&kind.to_be_bytes());
    query.extend_from_slice(&[0, 1]);
    query
}

fn addresses(answer: &[u8]) -> Vec<Ipv4Addr> {
    use hickory_proto::rr::RData;
    let message = hickory_proto::op::Message::from_vec(answer).unwrap();
    let of = |record: &hickory_proto::rr::Record| match &record.data {
        RData::A(a) => Some(a.0),
        _ => None,
    };
    message.answers.iter().filter_map(of).collect()
}

/// One HTTP/1.1 request on a stream; the connection is driven in the background.
pub(crate) async fn h1<S>(stream: S) -> hyper::client::conn::http1::SendRequest<Full<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection.with_upgrades());
    sender
}

pub(crate) async fn h2<S>(stream: S) -> hyper::client::conn::http2::SendRequest<Full<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) fn get(uri: &str, host: &str) -> Request<Full<Bytes>> {
    Request::get(uri)
        .header("host", host)
        .body(Full::default())
        .unwrap()
}

pub(crate) async fn text(response: Response<Incoming>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// Sends a request once the connection has done with the one before.
pub(crate) async fn send(
    client: &mut hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> hyper::Result<Response<Incoming>> {
    client.ready().await?;
    client.send_request(request).await
}
