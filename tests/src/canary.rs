//! Listeners on the host that nothing from a sandbox may ever reach.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

/// A TCP and a UDP listener on an address of this host that is not loopback, where it has one.
#[derive(Debug)]
pub struct Canary {
    tcp: TcpListener,
    udp: UdpSocket,
}

impl Canary {
    /// Listens.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn new() -> Result<Self, String> {
        let address = own_address().unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let tcp = TcpListener::bind((address, 0)).map_err(|e| e.to_string())?;
        let udp = UdpSocket::bind((address, 0)).map_err(|e| e.to_string())?;
        tcp.set_nonblocking(true).map_err(|e| e.to_string())?;
        udp.set_nonblocking(true).map_err(|e| e.to_string())?;
        Ok(Self { tcp, udp })
    }

    /// Where the TCP listener is.
    pub fn tcp(&self) -> SocketAddr {
        self.tcp
            .local_addr()
            .unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// Where the UDP listener is.
    pub fn udp(&self) -> SocketAddr {
        self.udp
            .local_addr()
            .unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// Connections and datagrams that came in since the last look. What was sent before this call has
    /// arrived by now: the sender is on this host.
    pub fn visitors(&self) -> usize {
        let mut count = 0;
        while self.tcp.accept().is_ok() {
            count += 1;
        }
        let mut buffer = [0; 2048];
        loop {
            match self.udp.recv(&mut buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => return count,
                Ok(_) | Err(_) => count += 1,
            }
        }
    }
}

/// The address that this host would send from; no packet leaves for the question.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified()).then_some(address)
}
