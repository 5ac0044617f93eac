//! `bench proxy`: the gateway beside other intercepting proxies. Each checks a host list and replaces a credential in
//! requests over TLS; clients speak HTTP/1.1. All run at the same time and are measured in turns.

mod generator;
mod injection;
mod load;
mod ours;
mod peers;
mod policy;
mod process;
mod stack;
mod stage;
mod upstream;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

use crate::figure::{Figure, median};
use generator::Generator;
use load::{Job, Set};
use process::Proxy;
use stage::{HOST, NAMES, NEW_NAMES, SECRET, Stage};
use upstream::{LARGE, SMALL};

pub(crate) use injection::run as injection;
pub(crate) use load::run as load_part;
pub(crate) use ours::serve_tcp as gateway_part;

/// What the guest holds instead of the secret.
pub(crate) const PLACEHOLDER: &str = "sbx-placeholder-0123456789abcdef";

/// The peers, in the order of the figures.
const PEERS: [&str; 4] = ["squid", "mitmproxy", "hudsucker", peers::PASTA];
/// Places of ours among the proxies: fed through a TCP port, through frames, and through frames that somebody carries.
const TCP: usize = 0;
const FRAMES: usize = 1;
const BRIDGED: usize = 2;
/// Turns of each proxy.
const ROUNDS: usize = 5;
/// Connections of the throughput figure.
const CONNECTIONS: usize = 32;
/// Connections of the figures of large bodies and event streams.
const FEW: usize = 4;
/// Connections that are kept for the figure of memory.
const MANY: usize = 1_000;

/// Measurements of one proxy, by metric.
type Measured = BTreeMap<&'static str, Vec<f64>>;

/// Runs against the named peers; all of them without a name.
pub(crate) fn run(names: &[&str]) -> Result<Vec<Figure>, String> {
    let peers: Vec<&str> = match names {
        [] => PEERS.to_vec(),
        // Ours alone, for whoever works on it.
        ["alone"] => Vec::new(),
        names => names.to_vec(),
    };
    let stage = Stage::new()?;
    let mut figures = policy::figures()?;
    let (ours, place) = ours::start_tcp(&stage, "gateway-tcp", ours::config(&stage, 1)?)?;
    let set = set(&stage);
    let own = std::env::current_exe().map_err(|e| e.to_string())?;
    let (frames, clients) = ours::start_frames(&stage, "gateway-frames", |socket| {
        let set = Set {
            frames: Some(socket.to_owned()),
            ..set.clone()
        };
        Generator::start(Command::new(&own), &set)
    })?;
    let (bridged, namespace) = ours::start_frames(&stage, "gateway-bridged", ours::namespace)?;
    let mut proxies = vec![ours, frames, bridged];
    for name in peers {
        proxies.push(peers::start(name, &stage)?);
    }
    let mut generators = Generators {
        outside: Generator::start(Command::new(&own), &set)?,
        frames: clients,
        bridged: Generator::start(namespace.command(&own), &set)?,
        pasta: proxies
            .iter()
            .any(|proxy| proxy.name == peers::PASTA)
            .then(|| Generator::start(peers::in_pasta(&own)?, &set))
            .transpose()?,
    };
    let measured = measure(&proxies, &mut generators)?;
    // Last: what a swap leaves behind is not what a gateway begins with.
    let swaps = policy::swaps(&stage, &place)?;
    figures.push(Figure::alone("policy_swap_ms", "ms", &swaps));
    figures.extend(beside(&measured, &proxies));
    Ok(figures)
}

fn set(stage: &Stage) -> Set {
    Set {
        roots: vec![stage.root_pem.clone(), stage.upstream_root_pem.clone()],
        upstream: stage.upstream,
        secret: SECRET.to_owned(),
        held: PLACEHOLDER.to_owned(),
        frames: None,
    }
}

/// The clients outside, those with a stack of their own, those inside of our namespace, and those inside of pasta's where
/// that takes part.
struct Generators {
    outside: Generator,
    frames: Generator,
    bridged: Generator,
    pasta: Option<Generator>,
}

impl Generators {
    /// The clients of a proxy.
    fn of(&mut self, at: usize, proxy: &Proxy) -> &mut Generator {
        match &mut self.pasta {
            _ if at == FRAMES => &mut self.frames,
            _ if at == BRIDGED => &mut self.bridged,
            Some(pasta) if proxy.name == peers::PASTA => pasta,
            _ => &mut self.outside,
        }
    }
}

fn measure(proxies: &[Proxy], generators: &mut Generators) -> Result<Vec<Measured>, String> {
    let mut all: Vec<Measured> = proxies.iter().map(|_| Measured::new()).collect();
    for (proxy, measured) in proxies.iter().zip(&mut all) {
        note(measured, "idle_rss_mib", proxy.resident_mib());
    }
    for round in 0..ROUNDS {
        let direct = latency(&mut generators.outside, None)?;
        for (at, (proxy, measured)) in proxies.iter().zip(&mut all).enumerate() {
            turn(generators.of(at, proxy), proxy, measured, direct, round)
                .map_err(|error| format!("{}: {error}", proxy.name))?;
        }
    }
    for (at, (proxy, measured)) in proxies.iter().zip(&mut all).enumerate() {
        let generator = generators.of(at, proxy);
        match open(generator, Some(proxy.address), MANY) {
            Ok(()) => note(measured, "rss_1000_conn_mib", proxy.resident_mib()),
            Err(_) => note(measured, "rss_1000_conn_mib", f64::NAN),
        }
        generator.run(&Job::Close)?;
    }
    Ok(all)
}

fn note(measured: &mut Measured, metric: &'static str, value: f64) {
    measured.entry(metric).or_default().push(value);
}

fn open(
    generator: &mut Generator,
    via: Option<SocketAddr>,
    connections: usize,
) -> Result<(), String> {
    let host = HOST.to_owned();
    generator
        .run(&Job::Open {
            via,
            host,
            connections,
        })
        .map(drop)
}

/// Median duration of a request on one connection, in µs.
fn latency(generator: &mut Generator, via: Option<SocketAddr>) -> Result<f64, String> {
    open(generator, via, 1)?;
    let outcome = generator.run(&requests("/small", SMALL, 0.7))?;
    outcome.values.first().copied().ok_or("no value".to_owned())
}

fn requests(path: &str, length: usize, seconds: f64) -> Job {
    Job::Requests {
        path: path.to_owned(),
        length,
        seconds,
    }
}

/// One proxy's turn in a round.
fn turn(
    generator: &mut Generator,
    proxy: &Proxy,
    measured: &mut Measured,
    direct: f64,
    round: usize,
) -> Result<(), String> {
    let via = Some(proxy.address);
    let through = latency(generator, via)?;
    note(measured, "added_p50_us", through - direct);

    open(generator, via, CONNECTIONS)?;
    let before = proxy.cpu_seconds();
    let outcome = generator.run(&requests("/small", SMALL, 1.5))?;
    let used = proxy.cpu_seconds() - before;
    note(measured, "req_per_cpu_s", number(outcome.count) / used);
    note(
        measured,
        "req_per_s",
        number(outcome.count) / second(&outcome.values)?,
    );

    open(generator, via, FEW)?;
    let outcome = generator.run(&requests("/large", LARGE, 1.0))?;
    let megabytes = number(outcome.count) * number(LARGE) / 1e6;
    note(
        measured,
        "large_body_mb_s",
        megabytes / second(&outcome.values)?,
    );

    let events = Job::Events {
        path: "/events".to_owned(),
    };
    let late = generator.run(&events)?.values;
    note(measured, "sse_late_p50_ms", median(&late) / 1000.0);

    let share = NAMES / ROUNDS;
    let outcome = generator.run(&Job::NewNames {
        via,
        domain: NEW_NAMES.to_owned(),
        first: round * share,
        most: share,
        seconds: 1.2,
    })?;
    let seconds = outcome.values.first().copied().unwrap_or(f64::NAN);
    note(
        measured,
        "new_name_conn_per_s",
        number(outcome.count) / seconds,
    );
    generator.run(&Job::Close).map(drop)
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^53")]
fn number(count: usize) -> f64 {
    count as f64
}

fn second(values: &[f64]) -> Result<f64, String> {
    values.get(1).copied().ok_or("no duration".to_owned())
}

const UNITS: [(&str, &str); 8] = [
    ("req_per_cpu_s", "1/s"),
    ("req_per_s", "1/s"),
    ("added_p50_us", "us"),
    ("new_name_conn_per_s", "1/s"),
    ("large_body_mb_s", "MB/s"),
    ("sse_late_p50_ms", "ms"),
    ("idle_rss_mib", "MiB"),
    ("rss_1000_conn_mib", "MiB"),
];

/// Every metric of ours beside every peer's: fed through a TCP port as the peers are, and fed through frames.
fn beside(all: &[Measured], proxies: &[Proxy]) -> Vec<Figure> {
    let mut figures = Vec::new();
    let peers = || all.iter().zip(proxies).skip(BRIDGED + 1);
    let ways = [(TCP, ""), (FRAMES, "_frames"), (BRIDGED, "_bridged")];
    for (ours, way) in ways.map(|(place, way)| (&all[place], way)) {
        for (metric, unit) in UNITS {
            let shown = format!("{metric}{way}");
            if peers().next().is_none() {
                figures.push(Figure::alone(&shown, unit, &ours[metric]));
            }
            for (peer, proxy) in peers() {
                let (ours, peer) = (&ours[metric], &peer[metric]);
                figures.push(Figure::new(&shown, unit, ours, peer, proxy.name));
            }
        }
    }
    figures
}
