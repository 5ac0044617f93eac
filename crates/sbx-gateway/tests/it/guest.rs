//! A guest as the gateway sees one: a TCP/IP stack at the other end of the frame socket. The test listens
//! on the socket, as QEMU does. Each TCP connection of the guest is a socket pair, so that tests use it
//! like any other stream.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant as Clock};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use sbx_gateway::addresses::{GATEWAY, GUEST, MTU};
use sbx_testkit::Frames;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, IpEndpoint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

pub(crate) const MAC: EthernetAddress = EthernetAddress([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

enum Command {
    Connect(SocketAddrV4, oneshot::Sender<io::Result<Stream>>),
    Udp(SocketAddrV4, Vec<u8>, oneshot::Sender<Vec<u8>>),
    Frame(Vec<u8>),
}

/// A TCP connection of the guest.
pub(crate) struct Stream {
    inner: tokio::net::UnixStream,
    reset: Arc<AtomicBool>,
    broken: Arc<AtomicBool>,
}

impl Stream {
    /// Ends the connection with RST.
    pub(crate) fn break_off(self) {
        self.broken.store(true, Ordering::Release);
    }

    /// Returns once bytes have come that nobody has read.
    pub(crate) async fn readable(&self) {
        self.inner.readable().await.unwrap();
    }

    /// Whether the connection ended with RST, once it has ended.
    pub(crate) fn was_reset(&self) -> bool {
        self.reset.load(Ordering::Acquire)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if polled.is_ready() && buf.filled().len() == before && self.was_reset() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The guest. Dropping it closes the frame socket.
pub(crate) struct Guest {
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
    captured: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Guest {
    /// Listens on `path` and becomes a guest once the gateway has connected.
    pub(crate) fn listen(path: &Path) -> UnixListener {
        UnixListener::bind(path).unwrap()
    }

    pub(crate) fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        let (commands, receiver) = channel();
        let wake = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let captured = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let mut body = Body::new(
            stream,
            receiver,
            wake.clone(),
            Arc::clone(&captured),
            stop.clone(),
        );
        let thread = std::thread::spawn(move || body.run());
        Self {
            commands,
            wake,
            captured,
            stop,
            thread: Some(thread),
        }
    }

    fn send(&self, command: Command) {
        self.commands.send(command).unwrap();
        rustix::io::write(&*self.wake, &1_u64.to_ne_bytes()).unwrap();
    }

    /// Connects. Refused: `ConnectionRefused`.
    pub(crate) async fn connect(&self, address: Ipv4Addr, port: u16) -> io::Result<Stream> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Connect(SocketAddrV4::new(address, port), reply));
        tokio::time::timeout(Duration::from_secs(10), answer)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
            .unwrap_or(Err(io::ErrorKind::BrokenPipe.into()))
    }

    /// Sends a datagram and waits for one back.
    pub(crate) async fn udp(
        &self,
        address: Ipv4Addr,
        port: u16,
        payload: &[u8],
    ) -> Option<Vec<u8>> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Udp(
            SocketAddrV4::new(address, port),
            payload.to_vec(),
            reply,
        ));
        tokio::time::timeout(Duration::from_secs(8), answer)
            .await
            .ok()?
            .ok()
    }

    /// Puts a frame on the wire as it is.
    pub(crate) fn frame(&self, frame: &[u8]) {
        self.send(Command::Frame(frame.to_vec()));
    }

    /// The frames that came from the gateway so far.
    pub(crate) fn captured(&self) -> Vec<Vec<u8>> {
        self.captured.lock().unwrap().clone()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = rustix::io::write(&*self.wake, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Connection {
    handle: SocketHandle,
    waiting: Option<oneshot::Sender<io::Result<Stream>>>,
    pair: Option<UnixStream>,
    reset: Arc<AtomicBool>,
    /// The test wants RST and not FIN.
    broken: Arc<AtomicBool>,
    test_closed: bool,
    told_eof: bool,
}

struct Body {
    stream: UnixStream,
    commands: Receiver<Command>,
    wake: Arc<OwnedFd>,
    captured: Arc<Mutex<Vec<Vec<u8>>>>,
    stop: Arc<AtomicBool>,
    wire: Frames,
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: Vec<Connection>,
    datagrams: Vec<(SocketHandle, oneshot::Sender<Vec<u8>>)>,
    next_port: u16,
    started: Clock,
}

impl Body {
    fn new(
        stream: UnixStream,
        commands: Receiver<Command>,
        wake: Arc<OwnedFd>,
        captured: Arc<Mutex<Vec<Vec<u8>>>>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        stream.set_nonblocking(true).unwrap();
        let mut wire = Frames::new(MTU);
        let mut config = Config::new(HardwareAddress::Ethernet(MAC));
        config.random_seed = u64::from(std::process::id());
        let mut interface = Interface::new(config, &mut wire, Instant::from_millis(0));
        interface.update_ip_addrs(|a| a.push(IpCidr::new(GUEST.into(), 24)).unwrap());
        interface
            .routes_mut()
            .add_default_ipv4_route(GATEWAY)
            .unwrap();
        Self {
            stream,
            commands,
            wake,
            captured,
            stop,
            wire,
            interface,
            sockets: SocketSet::new(Vec::new()),
            connections: Vec::new(),
            datagrams: Vec::new(),
            next_port: 40_000,
            started: Clock::now(),
        }
    }

    fn run(&mut self) {
        while !self.stop.load(Ordering::Acquire) {
            if !self.turn() {
                return;
            }
        }
    }

    fn turn(&mut self) -> bool {
        let now = Instant::from_micros(i64::try_from(self.started.elapsed().as_micros()).unwrap());
        self.wait(now);
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        if !self.read_frames() {
            return false;
        }
        while let Ok(command) = self.commands.try_recv() {
            self.obey(command);
        }
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        for at in (0..self.connections.len()).rev() {
            if serve(&mut self.connections[at], &mut self.sockets) {
                let gone = self.connections.remove(at);
                self.sockets.remove(gone.handle);
            }
        }
        let sockets = &mut self.sockets;
        self.datagrams = std::mem::take(&mut self.datagrams)
            .into_iter()
            .filter_map(|(handle, reply)| {
                let socket = sockets.get_mut::<udp::Socket>(handle);
                match socket.recv() {
                    Ok((data, _)) => {
                        let _ = reply.send(data.to_vec());
                        None
                    }
                    Err(_) => Some((handle, reply)),
                }
            })
            .collect();
        self.interface.poll(now, &mut self.wire, &mut self.sockets);
        self.write_frames();
        true
    }

    fn wait(&mut self, now: Instant) {
        let delay = self
            .interface
            .poll_delay(now, &self.sockets)
            .map(Duration::from);
        let delay = delay
            .unwrap_or(Duration::from_secs(1))
            .min(Duration::from_secs(1));
        let mut flags = PollFlags::IN;
        if !self.wire.output().is_empty() {
            flags |= PollFlags::OUT;
        }
        let mut fds = vec![
            PollFd::new(&self.stream, flags),
            PollFd::new(&*self.wake, PollFlags::IN),
        ];
        for connection in &self.connections {
            let socket = self.sockets.get::<tcp::Socket>(connection.handle);
            if let Some(pair) = &connection.pair {
                let mut flags = PollFlags::empty();
                if socket.can_send() && !connection.test_closed {
                    flags |= PollFlags::IN;
                }
                if socket.can_recv() {
                    flags |= PollFlags::OUT;
                }
                if !flags.is_empty() {
                    fds.push(PollFd::new(pair, flags));
                }
            }
        }
        let _ = poll(&mut fds, Timespec::try_from(delay).ok().as_ref());
    }

    fn read_frames(&mut self) -> bool {
        let mut chunk = vec![0; 256 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => return false,
            Ok(length) => {
                let mut captured = self.captured.lock().unwrap();
                self.wire.receive(&chunk[..length], |frame| {
                    if captured.len() < 10_000 {
                        captured.push(frame[..frame.len().min(200)].to_vec());
                    }
                });
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        true
    }

    fn write_frames(&mut self) {
        while !self.wire.output().is_empty() {
            match self.stream.write(self.wire.output()) {
                Ok(length) => self.wire.sent(length),
                Err(_) => return,
            }
        }
    }

    fn obey(&mut self, command: Command) {
        self.next_port = self.next_port.wrapping_add(1).max(40_000);
        match command {
            Command::Connect(to, reply) => {
                let buffer = || tcp::SocketBuffer::new(vec![0; 256 * 1024]);
                let mut socket = tcp::Socket::new(buffer(), buffer());
                socket.set_nagle_enabled(false);
                socket.set_ack_delay(None);
                let remote = IpEndpoint::new((*to.ip()).into(), to.port());
                socket
                    .connect(self.interface.context(), remote, self.next_port)
                    .unwrap();
                self.connections.push(Connection {
                    handle: self.sockets.add(socket),
                    waiting: Some(reply),
                    pair: None,
                    reset: Arc::default(),
                    broken: Arc::default(),
                    test_closed: false,
                    told_eof: false,
                });
            }
            Command::Udp(to, payload, reply) => {
                let buffer =
                    || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 65_536]);
                let mut socket = udp::Socket::new(buffer(), buffer());
                socket.bind(self.next_port).unwrap();
                let remote = IpEndpoint::new((*to.ip()).into(), to.port());
                socket.send_slice(&payload, remote).unwrap();
                self.datagrams.push((self.sockets.add(socket), reply));
            }
            Command::Frame(frame) => self.wire.send(&frame),
        }
    }
}

/// Moves bytes. True: the connection is over.
fn serve(connection: &mut Connection, sockets: &mut SocketSet<'static>) -> bool {
    let socket = sockets.get_mut::<tcp::Socket>(connection.handle);
    let state = socket.state();
    if let Some(reply) = connection.waiting.take() {
        match state {
            tcp::State::SynSent | tcp::State::SynReceived => {
                connection.waiting = Some(reply);
                return false;
            }
            tcp::State::Closed => {
                let _ = reply.send(Err(io::ErrorKind::ConnectionRefused.into()));
                return true;
            }
            _ => {
                let (ours, theirs) = UnixStream::pair().unwrap();
                ours.set_nonblocking(true).unwrap();
                theirs.set_nonblocking(true).unwrap();
                connection.pair = Some(ours);
                let (reset, broken) = (connection.reset.clone(), connection.broken.clone());
                // Made into a tokio stream by whoever is inside of a runtime.
                let stream = Raw {
                    theirs,
                    reset,
                    broken,
                };
                if reply.send(Ok(stream.into_stream())).is_err() {
                    socket.abort();
                    return false;
                }
            }
        }
    }
    let Some(pair) = &mut connection.pair else {
        return state == tcp::State::Closed;
    };
    let mut buffer = [0; 16 * 1024];
    while socket.can_send() && !connection.test_closed {
        let room = (socket.send_capacity() - socket.send_queue()).min(buffer.len());
        match pair.read(&mut buffer[..room]) {
            Ok(0) => {
                connection.test_closed = true;
                if connection.broken.load(Ordering::Acquire) {
                    socket.abort();
                } else {
                    socket.close();
                }
            }
            Ok(length) => assert_eq!(socket.send_slice(&buffer[..length]).unwrap(), length),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(_) => {
                connection.test_closed = true;
                socket.abort();
            }
        }
    }
    while socket.can_recv() {
        let moved = socket.recv(|bytes| match pair.write(bytes) {
            Ok(length) => (length, length),
            Err(_) => (0, 0),
        });
        if moved.unwrap_or(0) == 0 {
            break;
        }
    }
    if !socket.may_recv() && !socket.can_recv() && !connection.told_eof {
        connection.told_eof = true;
        // FIN leads through CLOSE-WAIT; from CLOSED straight away it was RST.
        if state == tcp::State::Closed {
            connection.reset.store(true, Ordering::Release);
        }
        let _ = pair.shutdown(std::net::Shutdown::Write);
    }
    // One that was aborted just now stays for a turn: its RST is sent by the poll that follows.
    state == tcp::State::Closed
}

struct Raw {
    theirs: UnixStream,
    reset: Arc<AtomicBool>,
    broken: Arc<AtomicBool>,
}

impl Raw {
    fn into_stream(self) -> Stream {
        let _inside = crate::lab::runtime().enter();
        let inner = tokio::net::UnixStream::from_std(self.theirs).unwrap();
        Stream {
            inner,
            reset: self.reset,
            broken: self.broken,
        }
    }
}
