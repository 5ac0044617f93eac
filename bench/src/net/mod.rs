//! `bench net`: bytes in and out of an emulated guest, through our gateway, QEMU's user network and passt. One guest has
//! all of them at the same time; the other end is on the host's loopback interface, which a rule allows.

mod ends;
mod machine;

use std::collections::BTreeMap;
use std::path::Path;

use sbx_e2e::Installation;

use crate::figure::Figure;
use crate::front;
use crate::tool::{beside, cache};
use ends::Ends;
use machine::{Card, Peers};

/// Turns of each network. Whether a connection's interrupts and its program get the same processor of the guest halves or
/// doubles its speed: interrupts stay on the first one, and programs take turns, as many on each. The networks take turns in
/// being the first: whoever is has its code translated by the emulator.
const ROUNDS: usize = 12;
/// Processors of the guest.
const PROCESSORS: usize = 2;
/// All interrupts that can be moved go to the first processor.
const INTERRUPTS: &str =
    "for irq in /proc/irq/*/smp_affinity; do echo 1 | sudo tee $irq >/dev/null 2>&1 || true; done";
/// Seconds of one transfer.
const SECONDS: &str = "1.2";
/// The program inside.
const PROGRAM: &str = "sbx-bench-transfer";
/// Our gateway's address as the guest sees it.
const GATEWAY: &str = "192.168.127.1";
/// The largest MTU of both sides, and Ethernet's.
const MTUS: [u16; 2] = [65_520, 1500];

/// Speeds in MiB/s by network, MTU, direction and whether a container moved them.
type Speeds = BTreeMap<(String, u16, &'static str, bool), Vec<f64>>;

/// One transfer.
struct Job {
    network: String,
    mtu: u16,
    direction: &'static str,
    address: String,
}

pub(crate) fn run() -> Result<Vec<Figure>, String> {
    let root = tempfile::Builder::new()
        .prefix("sbx-bench-")
        .tempdir()
        .map_err(|e| e.to_string())?;
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(root.path(), all).map_err(|e| e.to_string())?;
    let peers = Peers::start(root.path())?;
    let ends = Ends::start()?;
    let cache = cache("")?;
    let installation = Installation::new(root.path(), &cache, None)?;
    let guest = Guest {
        work: installation.folder("work")?.display().to_string(),
        installation,
    };
    let speeds = guest
        .start(&peers, ends)
        .and_then(|()| guest.measure(&peers, ends));
    guest.installation.tear_down();
    speeds.map(|speeds| figures(&speeds))
}

struct Guest {
    installation: Installation,
    work: String,
}

impl Guest {
    fn start(&self, peers: &Peers, ends: Ends) -> Result<(), String> {
        front::start_daemon(&self.installation, &peers.front)?;
        for port in [ends.source, ends.sink] {
            let rule = format!("localhost:{port}");
            let allow = ["policy", "allow", "network", &rule];
            self.installation.sbx(allow).success()?;
        }
        let place = Path::new(&self.work).join(PROGRAM);
        std::fs::copy(beside(PROGRAM)?, place).map_err(|e| e.to_string())?;
        let create = [
            "create",
            "shell",
            "--name",
            "bench",
            "--memory",
            "2g",
            "--cpus",
            &PROCESSORS.to_string(),
            &self.work,
        ];
        self.installation.sbx(create).success()?;
        for card in &peers.cards {
            self.inside(&set_up(card))?;
        }
        self.inside(INTERRUPTS)?;
        // Nothing in the image but the program and the libraries that it is linked with.
        self.inside(&format!(
            "cp {}/{PROGRAM} /tmp/ && tar -chf /tmp/image.tar -C / tmp/{PROGRAM} \
             $(ldd /tmp/{PROGRAM} | grep -o '/lib[^ ]*' | sed 's|^/||' | sort -u) 2>/dev/null; \
             docker import /tmp/image.tar transfer",
            self.work
        ))?;
        Ok(())
    }

    fn inside(&self, line: &str) -> Result<String, String> {
        self.installation.inside("bench", line).success()
    }

    fn measure(&self, peers: &Peers, ends: Ends) -> Result<Speeds, String> {
        let mut speeds = Speeds::new();
        for round in 0..ROUNDS {
            let processor = round % PROCESSORS;
            for mtu in MTUS {
                self.inside(&format!("sudo ip link set eth0 mtu {mtu}"))?;
                let jobs = jobs(&peers.cards, ends, mtu, round);
                self.transfer(
                    &format!("/tmp/{PROGRAM} {processor}"),
                    &jobs,
                    false,
                    &mut speeds,
                )?;
            }
            self.inside(&format!("sudo ip link set eth0 mtu {}", MTUS[0]))?;
            let jobs = jobs(&peers.cards, ends, MTUS[0], round);
            let program = format!("docker run --rm transfer /tmp/{PROGRAM} {processor}");
            self.transfer(&program, &jobs, true, &mut speeds)?;
        }
        Ok(speeds)
    }

    /// Does the jobs in one call of the program.
    fn transfer(
        &self,
        program: &str,
        jobs: &[Job],
        container: bool,
        speeds: &mut Speeds,
    ) -> Result<(), String> {
        let words: Vec<String> = jobs
            .iter()
            .map(|job| format!("{} {}", job.direction, job.address))
            .collect();
        let said = self.inside(&format!("{program} {SECONDS} {}", words.join(" ")))?;
        let mut lines = said.lines();
        for job in jobs {
            let speed = lines.next().and_then(|line| line.trim().parse().ok());
            let speed = speed.ok_or_else(|| format!("{program} said {said:?}"))?;
            let key = (job.network.clone(), job.mtu, job.direction, container);
            speeds.entry(key).or_default().push(speed);
        }
        Ok(())
    }
}

/// The card with this Ethernet address gets its address.
fn set_up(card: &Card) -> String {
    format!(
        "name=$(basename $(dirname $(grep -l {} /sys/class/net/*/address))) && \
         sudo ip link set $name mtu {} up && sudo ip address add {}/24 dev $name",
        card.mac, card.mtu, card.guest
    )
}

/// Both directions through ours at the MTU, and through the peers. QEMU's user network has the one MTU.
fn jobs(cards: &[Card], ends: Ends, mtu: u16, round: usize) -> Vec<Job> {
    let ours = ("ours".to_owned(), GATEWAY.to_owned());
    let peers = cards
        .iter()
        .filter(|card| card.mtu == mtu || card.peer == "slirp")
        .map(|card| (card.peer.clone(), card.host.clone()));
    let mut networks: Vec<_> = std::iter::once(ours).chain(peers).collect();
    // Two rounds each: one for each processor.
    let first = round / PROCESSORS % networks.len();
    networks.rotate_left(first);
    networks
        .into_iter()
        .flat_map(|(network, host)| {
            [("down", ends.source), ("up", ends.sink)].map(|(direction, port)| Job {
                network: network.clone(),
                mtu,
                direction,
                address: format!("{host}:{port}"),
            })
        })
        .collect()
}

fn figures(speeds: &Speeds) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (container, place) in [(false, "guest"), (true, "container")] {
        for mtu in MTUS {
            for direction in ["down", "up"] {
                let key = |network: &str| (network.to_owned(), mtu, direction, container);
                let Some(ours) = speeds.get(&key("ours")) else {
                    continue;
                };
                let suffix = if mtu == MTUS[0] { "" } else { "_mtu_1500" };
                let metric = format!("{place}_{direction}_mib_s{suffix}");
                for peer in ["slirp", "passt"] {
                    if let Some(speed) = speeds.get(&key(peer)) {
                        figures.push(Figure::new(&metric, "MiB/s", ours, speed, peer));
                    }
                }
            }
        }
    }
    figures
}
