//! Our machine with further network cards: QEMU's user network, and passt at two MTUs. All of them belong to one guest
//! at the same time, so that nothing differs between them but the network.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::front;
use crate::tool::need;

/// A peer has to be ready after this.
const READY: Duration = Duration::from_secs(10);

/// A further card.
#[derive(Debug, Clone)]
pub(crate) struct Card {
    /// Name in the figures.
    pub(crate) peer: String,
    /// The guest's address on it; the network has 24 bits.
    pub(crate) guest: String,
    /// The host's loopback interface as seen through it.
    pub(crate) host: String,
    /// Largest packet.
    pub(crate) mtu: u16,
    /// Ethernet address.
    pub(crate) mac: String,
    /// QEMU's option.
    netdev: String,
}

/// The peers that run beside the machine. They end with the value.
pub(crate) struct Peers {
    /// The cards, in the order in which the guest finds them.
    pub(crate) cards: Vec<Card>,
    children: Vec<Child>,
    /// Folder to put in front of the search path.
    pub(crate) front: PathBuf,
}

impl Drop for Peers {
    fn drop(&mut self) {
        for child in &mut self.children {
            // passt ends by itself with QEMU.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Peers {
    /// Starts them below a folder that everybody may write to.
    pub(crate) fn start(folder: &Path) -> Result<Self, String> {
        need("passt", &["passt"])?;
        let mut cards = vec![Card {
            peer: "slirp".to_owned(),
            guest: "10.0.5.15".to_owned(),
            host: "10.0.5.2".to_owned(),
            mtu: 1500,
            mac: "52:54:00:73:62:a0".to_owned(),
            netdev: "user,id=peer0,net=10.0.5.0/24,host=10.0.5.2,ipv6=off".to_owned(),
        }];
        let mut children = Vec::new();
        for (number, mtu) in [(1, 65_520), (2, 1500)] {
            let card = passt_card(folder, number, mtu);
            children.push(passt(folder, number, &card)?);
            cards.push(card);
        }
        let numbered = cards.iter().enumerate();
        let front = front::put(folder, numbered.flat_map(device).collect())?;
        Ok(Self {
            cards,
            children,
            front,
        })
    }
}

fn socket(folder: &Path, number: u8) -> String {
    folder
        .join(format!("passt{number}.sock"))
        .display()
        .to_string()
}

fn passt_card(folder: &Path, number: u8, mtu: u16) -> Card {
    let path = socket(folder, number);
    Card {
        peer: "passt".to_owned(),
        guest: format!("10.0.{}.15", number + 5),
        host: format!("10.0.{}.2", number + 5),
        mtu,
        mac: format!("52:54:00:73:62:a{number}"),
        netdev: format!("stream,id=peer{number},server=off,addr.type=unix,addr.path={path}"),
    }
}

fn passt(folder: &Path, number: u8, card: &Card) -> Result<Child, String> {
    let path = socket(folder, number);
    let child = Command::new("passt")
        .args(["-f", "-q", "-4", "-s", &path])
        .args(["-a", &card.guest, "-n", "255.255.255.0", "-g", &card.host])
        .args(["-m", &card.mtu.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start passt: {error}"))?;
    let started = Instant::now();
    while !Path::new(&path).exists() {
        if started.elapsed() > READY {
            return Err("passt does not listen".to_owned());
        }
        // Nothing announces it.
        std::thread::park_timeout(Duration::from_millis(20));
    }
    Ok(child)
}

/// QEMU's arguments for a card. The device as JSON, as the machine's own are: those that are not come first, and one of
/// them would be the guest's eth0.
fn device((number, card): (usize, &Card)) -> [String; 4] {
    let device = serde_json::json!({"driver": "virtio-net-pci", "netdev": format!("peer{number}"),
                                    "mac": card.mac, "romfile": ""});
    let netdev = card.netdev.clone();
    [
        "-netdev".into(),
        netdev,
        "-device".into(),
        device.to_string(),
    ]
}
