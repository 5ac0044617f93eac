//! One gateway without a process around it, for the targets that need one.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use sbx_gateway::gateway::Gateway;
use sbx_gateway::generation::{Generation, HostTrust};
use sbx_gateway::mint::SigningKey;
use sbx_gateway::pins::Pins;
use sbx_gateway::records::Records;
use sbx_policy::{CreatedVia, Decision, PolicyDocument, Protocols, ResourcePattern, Rule, Scope};
use sbx_wire::gateway::{GatewayFile, Upstream};

/// What the host gives: no roots, and no resolver, so that nothing is ever asked.
pub(crate) fn host() -> &'static HostTrust {
    static HOST: OnceLock<HostTrust> = OnceLock::new();
    HOST.get_or_init(|| HostTrust {
        roots: Vec::new(),
        resolvers: Vec::new(),
        provider: Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
    })
}

/// The policy of every target: some names, one of which is sent elsewhere.
pub(crate) fn file() -> GatewayFile {
    let rule = |(id, resource): (usize, &str)| Rule {
        id: format!("rule-{id}"),
        name: None,
        scope: Scope::Global,
        decision: Decision::Allow,
        resources: vec![ResourcePattern::parse(resource).expect("a pattern")],
        protocols: Protocols::TCP,
        created_via: CreatedVia::Added,
        http: None,
    };
    let resources = ["web.test", "**.cdn.test", "api.test:443", "asked.test"];
    let upstream = Upstream {
        overrides: [("web.test:443".to_owned(), ([127, 0, 0, 1], 1).into())].into(),
        ..Upstream::default()
    };
    GatewayFile {
        sandbox: "fuzz".to_owned(),
        policy: PolicyDocument::new(1, resources.into_iter().enumerate().map(rule).collect()),
        upstream,
        credential_hosts: vec!["api.test".to_owned()],
    }
}

/// The gateway. Its records go nowhere.
pub(crate) fn gateway() -> &'static Arc<Gateway> {
    static GATEWAY: OnceLock<Arc<Gateway>> = OnceLock::new();
    GATEWAY.get_or_init(|| {
        let generation = Generation::from_file(file(), host()).expect("a good file");
        let records = Records::open(Path::new("/dev/null")).expect("records");
        let key = SigningKey::generate().expect("randomness");
        Gateway::new(generation, host().clone(), key, records, Pins::default())
    })
}

/// Runs a future to its end on this thread.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}
