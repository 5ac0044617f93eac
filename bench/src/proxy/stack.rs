//! The clients' own TCP/IP, for a gateway that is fed through frames: as a machine's frames come from the process that
//! has the machine, those of the clients come from the clients' process, and nobody carries them.

use std::io;
use std::net::SocketAddrV4;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant as Clock};

use sbx_gateway::addresses::{GATEWAY, GUEST, MTU, PREFIX};
use sbx_testkit::Frames;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::{Socket as AnySocket, tcp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, IpEndpoint};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::ours::GUEST_MAC;

/// Bytes that a connection keeps on each way.
const BUFFER: usize = 256 * 1024;
/// Bytes that are read from the gateway at once.
const CHUNK: usize = 256 * 1024;
/// How long an acknowledgement waits for something to go with, as smoltcp has it and close to what Linux does.
const ACK_DELAY: smoltcp::time::Duration = smoltcp::time::Duration::from_millis(10);
/// First port of the clients.
const FIRST_PORT: u16 = 32_768;

/// The stack. What it does is done by [`Stack::run`].
#[derive(Clone)]
pub(super) struct Stack {
    state: Arc<Mutex<State>>,
    /// Somebody has written, read or connected.
    work: Arc<Notify>,
}

struct State {
    interface: Interface,
    sockets: SocketSet<'static>,
    frames: Frames,
    /// Connections whose owners have gone.
    left: Vec<SocketHandle>,
    /// Those that have ended: a new one takes the buffers of an old one.
    spare: Vec<tcp::Socket<'static>>,
    next_port: u16,
    started: Clock,
}

impl State {
    fn now(&self) -> Instant {
        let micros = self.started.elapsed().as_micros();
        Instant::from_micros(i64::try_from(micros).unwrap_or(i64::MAX))
    }

    /// Moves everything on. Returns after what time it has to be done again, if nothing happens before.
    fn turn(&mut self) -> Option<Duration> {
        let now = self.now();
        let Self {
            interface,
            sockets,
            frames,
            left,
            spare,
            ..
        } = self;
        interface.poll(now, frames, sockets);
        left.retain(|handle| {
            let state = sockets.get::<tcp::Socket<'_>>(*handle).state();
            let over = matches!(state, tcp::State::Closed | tcp::State::TimeWait);
            if over {
                // There are others too where some package of the same build uses them.
                if let AnySocket::Tcp(mut socket) = sockets.remove(*handle) {
                    socket.abort();
                    spare.push(socket);
                }
            }
            !over
        });
        interface.poll_delay(now, sockets).map(Duration::from)
    }
}

impl Stack {
    pub(super) fn new() -> Self {
        let mut frames = Frames::new(MTU).believing();
        let hardware = HardwareAddress::Ethernet(EthernetAddress(GUEST_MAC));
        let mut config = Config::new(hardware);
        config.random_seed = u64::from(std::process::id());
        let mut interface = Interface::new(config, &mut frames, Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            // There is room for three.
            let _ = addresses.push(IpCidr::new(GUEST.into(), PREFIX));
        });
        let _ = interface.routes_mut().add_default_ipv4_route(GATEWAY);
        let state = State {
            interface,
            sockets: SocketSet::new(Vec::new()),
            frames,
            left: Vec::new(),
            spare: Vec::new(),
            next_port: FIRST_PORT,
            started: Clock::now(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            work: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves frames until the gateway hangs up.
    pub(super) async fn run(self, gateway: UnixStream) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let (mut interest, delay) = (Interest::READABLE, {
                if !self.read(&gateway, &mut chunk)? {
                    return Ok(());
                }
                self.state().turn()
            });
            if !self.write(&gateway)? {
                interest = interest.add(Interest::WRITABLE);
            }
            let later = async {
                match delay {
                    Some(delay) => tokio::time::sleep(delay).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ready = gateway.ready(interest) => drop(ready?),
                () = self.work.notified() => {}
                () = later => {}
            }
        }
    }

    /// Takes in what has come. `false`: the gateway has hung up.
    fn read(&self, gateway: &UnixStream, chunk: &mut [u8]) -> io::Result<bool> {
        loop {
            match gateway.try_read(chunk) {
                Ok(0) => return Ok(false),
                Ok(length) => self.state().frames.receive(&chunk[..length], |_| ()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends what is to be sent. `false`: some of it waits.
    fn write(&self, gateway: &UnixStream) -> io::Result<bool> {
        let mut state = self.state();
        while !state.frames.output().is_empty() {
            match gateway.try_write(state.frames.output()) {
                Ok(length) => state.frames.sent(length),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    pub(super) async fn connect(&self, to: SocketAddrV4) -> io::Result<Stream> {
        let stream = self.begin(to)?;
        std::future::poll_fn(|context| {
            stream.with(|socket| match socket.state() {
                tcp::State::SynSent | tcp::State::SynReceived => {
                    socket.register_send_waker(context.waker());
                    Poll::Pending
                }
                tcp::State::Closed => {
                    Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionRefused)))
                }
                _ => Poll::Ready(Ok(())),
            })
        })
        .await?;
        Ok(stream)
    }

    fn begin(&self, to: SocketAddrV4) -> io::Result<Stream> {
        let mut state = self.state();
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        let new = || tcp::Socket::new(buffer(), buffer());
        let mut socket = state.spare.pop().unwrap_or_else(new);
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(Some(ACK_DELAY));
        let port = state.next_port;
        state.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
        let remote = IpEndpoint::new((*to.ip()).into(), to.port());
        socket
            .connect(state.interface.context(), remote, port)
            .map_err(io::Error::other)?;
        let handle = state.sockets.add(socket);
        drop(state);
        self.work.notify_one();
        Ok(Stream {
            stack: self.clone(),
            handle,
        })
    }
}

/// A connection. Dropped, it is closed.
pub(super) struct Stream {
    stack: Stack,
    handle: SocketHandle,
}

impl Stream {
    fn with<T>(&self, work: impl FnOnce(&mut tcp::Socket<'static>) -> T) -> T {
        work(self.stack.state().sockets.get_mut(self.handle))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.with(|socket| {
            // Its last answer goes out at once: it is not there any more when a later one would be due, and the gateway
            // would wait for that and count the connection as open.
            socket.set_ack_delay(None);
            socket.close();
        });
        self.stack.state().left.push(self.handle);
        self.stack.work.notify_one();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = self.with(|socket| {
            if socket.can_recv() {
                let length = socket.recv_slice(to.initialize_unfilled());
                Poll::Ready(length.map_err(io::Error::other))
            } else if socket.may_recv() {
                socket.register_recv_waker(context.waker());
                Poll::Pending
            } else if socket.state() == tcp::State::Closed {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            } else {
                Poll::Ready(Ok(0))
            }
        });
        polled.map_ok(|length| {
            to.advance(length);
            // The gateway may send more now.
            self.stack.work.notify_one();
        })
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = self.with(|socket| {
            if socket.can_send() {
                Poll::Ready(socket.send_slice(from).map_err(io::Error::other))
            } else if socket.may_send() {
                socket.register_send_waker(context.waker());
                Poll::Pending
            } else {
                Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
            }
        });
        polled.map_ok(|length| {
            self.stack.work.notify_one();
            length
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(tcp::Socket::close);
        self.stack.work.notify_one();
        Poll::Ready(Ok(()))
    }
}
