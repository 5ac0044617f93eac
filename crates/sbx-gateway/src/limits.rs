//! Every bound of the gateway: value and reason. What happens when it is hit stands where it is used.

use std::time::Duration;

/// Open TCP connections of the guest. A further SYN is answered with RST and a record.
pub const CONNECTIONS: usize = 1024;
/// Ended connections of the guest whose buffers are kept for the next ones: so many with [`SOCKET_BUFFER`], and [`FEW`] with
/// [`WIDE_BUFFER`].
pub const SPARE_SOCKETS: usize = 16;
/// SYNs to other ports than 53, 80, 443 and 3128 whose upstream is being dialled. Beyond: RST.
pub const PARKED_SYNS: usize = 64;
/// smoltcp's buffer for what the guest sends on a connection that begins while fewer than [`FEW`] others are there, in bytes.
/// Pages are only used once written. Sixteen of the largest segments: with four, an emulated guest ran out of window so
/// often that it took its own segments for lost.
pub const WIDE_BUFFER: usize = 1024 * 1024;
/// The same for what the guest receives. With 4 MiB, a guest threw away now and then what it had no memory for, and smoltcp
/// notices that a second later.
pub const WIDE_SEND_BUFFER: usize = 512 * 1024;
/// Connections with the widest buffers.
pub const FEW: usize = 8;
/// The same, each way, for a connection that begins while [`FEW`] others are there. Four of the largest segments: fewer are
/// no pipeline.
pub const SOCKET_BUFFER: usize = 256 * 1024;
/// The same for a connection that begins while [`CROWD`] others are there.
pub const CROWDED_BUFFER: usize = 64 * 1024;
/// Connections with more than the smallest buffers. With [`CONNECTIONS`] at most 184 MiB are buffered.
pub const CROWD: usize = 128;
/// Bytes on their way to the VM before the network thread stops producing more.
pub const FRAMES_OUT: usize = 256 * 1024;
/// Bytes that the kernel holds for the VM, of which it counts its own share; it may allow less (`net.core.wmem_max`).
pub const FRAMES_SENT: usize = 512 * 1024;
/// Bytes read from the VM at once; at least two of the largest frames.
pub const FRAMES_IN: usize = 256 * 1024;
/// Time for the VM's frames before others have a turn: some cost much, such as one to an address with thousands of names.
pub const FRAMES_TIME: Duration = Duration::from_millis(5);
/// Largest Ethernet frame that is looked at: the largest IPv4 packet, Ethernet header, VLAN tag.
pub const FRAME: usize = 65_535 + 18;
/// Largest length prefix that is skipped over; a larger one means that the stream is out of step.
pub const FRAME_SKIPPED: usize = 256 * 1024;
/// A connection that has not finished its handshake after this is dropped.
pub const HALF_OPEN: Duration = Duration::from_secs(10);
/// A connection that both sides are done with, or that the guest no longer reads, is cut after this.
pub const LINGER: Duration = Duration::from_secs(30);
/// What the guest sends is acknowledged after this at the latest: an answer that comes earlier takes the acknowledgement
/// with it. A guest that waits for it, as Nagle's algorithm does, waits no longer than that.
pub const ACK_DELAY: Duration = Duration::from_millis(1);
/// Between two questions to a guest where it is, when it has lost data and nothing else would have that sent again.
pub const ASKED_AGAIN: Duration = Duration::from_millis(200);
/// Data that the guest does not acknowledge for this long ends its connection.
pub const UNACKNOWLEDGED: Duration = Duration::from_mins(2);

/// UDP flows of the guest at a time, where UDP is open at all. Beyond: refused, with a record.
pub const UDP_FLOWS: usize = 256;
/// Datagrams of one flow that wait for the host's network. Beyond: lost, as datagrams may be.
pub const UDP_QUEUE: usize = 64;
/// Datagrams of all flows that wait for the host's network, in bytes. Beyond: lost.
pub const UDP_SENDING: usize = 1024 * 1024;
/// Datagrams of all flows that wait for the guest, in bytes. Beyond: lost.
pub const UDP_WAITING: usize = 1024 * 1024;
/// A flow without a datagram either way for this long is over.
pub const UDP_IDLE: Duration = Duration::from_mins(1);

/// DNS questions of the guest that are being answered. Beyond: dropped, the guest asks again.
pub const DNS_IN_FLIGHT: usize = 128;
/// Longest DNS message of the guest that is looked at, in bytes. A question with its options takes some hundred.
pub const DNS_QUESTION: usize = 4096;
/// Names whose addresses are remembered; the one that was used longest ago goes.
pub const PINNED_NAMES: usize = 4096;
/// Other names of its address that a raw connection or a UDP flow is judged by when the policy changes. One that has
/// more ends at any change. With [`CONNECTIONS`] and [`UDP_FLOWS`] they take some 30 MiB.
pub const NAMES_BESIDE: usize = 128;
/// Addresses kept for a name.
pub const PINNED_ADDRESSES: usize = 32;
/// A pin outlives its TTL by this: clients keep addresses longer than they were told to.
pub const PIN_GRACE: Duration = Duration::from_hours(1);
/// Longest TTL that counts for a pin: a name may say 136 years.
pub const PIN_TTL: Duration = Duration::from_hours(24);
/// Largest file of pins that is read, in bytes; about 60,000 answers.
pub const PIN_FILE: u64 = 4 * 1024 * 1024;
/// One resolver gets this long for an answer.
pub const RESOLVER: Duration = Duration::from_secs(3);
/// Longest DNS message taken from a resolver over TCP, in bytes.
pub const DNS_MESSAGE: usize = 65_535;
/// A DNS connection of the guest that sends nothing is closed after this.
pub const DNS_IDLE: Duration = Duration::from_secs(30);

/// A TLS client gets this long for its first message, and for the whole handshake.
pub const CLIENT_HELLO: Duration = Duration::from_secs(30);
/// Longest first message of a TLS client, in bytes.
pub const CLIENT_HELLO_BYTES: usize = 64 * 1024;
/// Certificates kept, by host. Beyond, the quarter goes that was used longest ago.
pub const LEAVES: usize = 256;
/// A request head has to be complete after this.
pub const REQUEST_HEAD: Duration = Duration::from_mins(1);
/// An opened TLS connection of the guest without a request, from its beginning or between two, is closed after
/// this, whether HTTP/1.1 or HTTP/2.
pub const REQUEST_IDLE: Duration = Duration::from_mins(2);
/// Longest request head over HTTP/1.1 and read buffer, in bytes.
pub const REQUEST_HEAD_BYTES: usize = 64 * 1024;
/// Most headers in a request or answer: what the HTTP library takes by itself, with room for them on its stack. Told another
/// number, it allocates that room anew for every message.
pub const HEADERS: usize = 100;
/// Extensions of the chunks of one body, in bytes. Nobody uses them.
pub const CHUNK_EXTENSIONS: usize = 4 * 1024;
/// Trailers of one body over HTTP/1.1, in bytes.
pub const TRAILER_BYTES: usize = 8 * 1024;
/// Trailers of one body over HTTP/1.1.
pub const TRAILERS: usize = 64;
/// Bytes behind a request to change the protocol that are read before it is answered.
pub const EARLY_BYTES: usize = 64 * 1024;
/// Longest header list over HTTP/2, in bytes.
pub const H2_HEADERS: u32 = 64 * 1024;
/// Requests at a time on one HTTP/2 connection of the guest.
pub const H2_STREAMS: u32 = 64;
/// Requests over HTTP/2 in work at a time, of all connections of the guest. Beyond: they wait.
pub const REQUESTS: usize = 1024;
/// Pieces of bodies shorter than this, in bytes, are small.
pub const SMALL: usize = 1024;
/// Small pieces that wait to be sent, of all bodies: each takes some 300 bytes beside its content. Beyond: the body that
/// has another one is cut.
pub const SMALL_PIECES: usize = 64 * 1024;
/// Frames on one HTTP/2 connection of the guest that ask for nothing: resets, settings, priorities, unknown ones. Beyond,
/// the connection ends.
pub const H2_IDLE_FRAMES: u32 = 1000;
/// So many more of them may come each second.
pub const H2_IDLE_FRAMES_PER_SECOND: u32 = 33;
/// Bytes of a body that wait for whoever takes it over HTTP/2, for each request and each way; the library's defaults are
/// 400 KiB for answers and 1 MiB for requests. What all of them hold has [`MEMORY`].
pub const H2_SEND_BUFFER: usize = 32 * 1024;
/// HTTP/2 window of a connection and of a stream, in bytes.
pub const H2_WINDOW: u32 = 1024 * 1024;

/// Addresses of one name that are tried.
pub const DIALS: usize = 4;
/// TCP connect to one upstream address.
pub const CONNECT: Duration = Duration::from_secs(10);
/// TLS handshake with an upstream.
pub const UPSTREAM_TLS: Duration = Duration::from_secs(15);
/// An upstream gets this long to begin its answer. Models think for minutes.
pub const RESPONSE_HEAD: Duration = Duration::from_mins(15);
/// A body that makes no progress for this long is cut.
pub const BODY_IDLE: Duration = Duration::from_mins(15);
/// A tunnel without a byte in either direction for this long is closed.
pub const TUNNEL_IDLE: Duration = Duration::from_hours(4);
/// Bytes of a WebSocket that are read at once, each way: a TLS record holds no more. What goes on of them is at least one
/// frame.
pub const WEBSOCKET_PIECE: usize = 16 * 1024;
/// A guest whose WebSocket is closed here gets this long to hear of it.
pub const WEBSOCKET_CLOSE: Duration = Duration::from_secs(5);
/// Upstream connections kept for the next request, of the whole gateway. Beyond, the oldest quarter goes.
pub const IDLE_UPSTREAMS: usize = 64;
/// An upstream connection that nobody used for this long is closed; servers wait for about as long.
pub const UPSTREAM_IDLE: Duration = Duration::from_mins(1);
/// Requests at a time on one HTTP/2 connection to an upstream; then another one is opened.
pub const H2_STREAMS_UPSTREAM: usize = 100;
/// How long a client that asked for `100 Continue` waits if the upstream says nothing; clients that are not answered
/// wait about as long.
pub const CONTINUE: Duration = Duration::from_secs(1);
/// How long a connection waits for credentials and certificate authority after a restart.
pub const CONFIGURE_WAIT: Duration = Duration::from_secs(5);

/// A page for the host's browser is taken and dealt with by the daemon within this.
pub const PAGE: Duration = Duration::from_secs(5);

/// The daemon takes what the host's SSH agent is asked within this.
pub const SSH_AGENT_TAKEN: Duration = Duration::from_secs(5);
/// And answers within this: a person may have to agree.
pub const SSH_AGENT: Duration = Duration::from_secs(90);

/// A body that was announced to be no longer than this, in bytes, is read whole before anything of the request is sent,
/// where it is looked into.
pub const BODY_READ_FIRST: u64 = 64 * 1024;
/// Bytes of a body that are looked into at a time.
pub const STEP: usize = 64 * 1024;
/// The same of a compressed body. In `gzip` and `deflate` they come to 132 KiB at most.
pub const STEP_ENCODED: usize = 128;
/// Bytes of a body, with what they come to where it is compressed, after which others have a turn before more of it is
/// looked into.
pub const LOOKED_AT: usize = 512 * 1024;
/// What one such step of a compressed body may come to, in bytes, where it is looked into.
pub const DECODED: usize = 16 * 1024 * 1024;
/// Largest window of a body compressed with Zstandard, in bytes: no content coding needs a larger one (RFC 9659). Those of
/// Brotli have up to 16 MiB (RFC 7932).
pub const ZSTD_WINDOW: u64 = 8 * 1024 * 1024;
/// Bytes of such a body that wait until what they mean was looked at, which is a window behind.
pub const ZSTD_HELD: usize = 9 * 1024 * 1024;
/// Bodies with such windows that are looked into at a time, of all requests. Beyond: they wait.
pub const DECODING: usize = 8;
/// Targets whose credentials are kept ready, of those that patterns take in.
pub const BOUND_TARGETS: usize = 256;
/// Values of one service that are looked for in answers, with those that were replaced. Beyond, the one goes that was used
/// longest ago: a command may give another value each time.
pub const GIVEN: usize = 64;
/// The same, in bytes: what finds them has several times as many.
pub const GIVEN_BYTES: usize = 16 * 1024;
/// A value that was replaced or withdrawn is looked for this long. Tokens that are fetched are good for hours.
pub const GIVEN_KEPT: Duration = Duration::from_hours(24);
/// A value that is asked for when it is needed has to come within this: commands that find one may ask a person.
pub const VALUE: Duration = Duration::from_mins(1);
/// And the daemon takes the question within this.
pub const VALUE_TAKEN: Duration = Duration::from_secs(5);
/// What an issuer was asked or answers has been dealt with by the daemon within this.
pub const ISSUED: Duration = Duration::from_mins(1);
/// Services whose values are asked for at a time.
pub const VALUES_ASKED: usize = 16;

/// Tokens of registries that are kept, of all registries. Beyond, the oldest goes: its client asks for another one.
pub const REGISTRY_TOKENS: usize = 128;
/// A token of a registry is kept this long behind the time that its client counts, which begins later than ours.
pub const REGISTRY_TOKEN_GRACE: Duration = Duration::from_mins(1);
/// Time of a token of which nobody says how long it is good, and the shortest that clients count.
pub const REGISTRY_TOKEN: Duration = Duration::from_mins(1);
/// The longest time of a token of a registry that counts.
pub const REGISTRY_TOKEN_LONGEST: Duration = Duration::from_hours(24);
/// Registries of which it is remembered where they issue tokens. Beyond, all are forgotten: they say it again.
pub const REGISTRIES: usize = 64;

/// Memory of the process for data, in bytes: its end if a guest and an upstream that it reaches keep more waiting here
/// than all other limits were thought for. It starts anew then, and its sandbox alone has felt it.
pub const MEMORY: u64 = 2 * 1024 * 1024 * 1024;
/// Control connections at a time.
pub const CONTROL_CONNECTIONS: usize = 16;
/// Records of allowed requests are written together with those that come after them, until the thread has nothing else
/// to do, and at the first that comes this long after the first of them.
pub const RECORD_GATHER: Duration = Duration::from_millis(1);
/// And as soon as they are so many, in bytes. So many wait at most while they cannot be written.
pub const RECORDS_WAITING: usize = 64 * 1024;
/// What was let through waits up to here, in bytes: of that only what was under way comes while nothing can be written.
pub const RECORDS_WAITING_ALLOWED: usize = 1024 * 1024;
/// Size at which `egress.jsonl` becomes `egress.jsonl.1`, in bytes.
pub const RECORD_FILE: u64 = 16 * 1024 * 1024;
/// Longest host, method or path text in a record, in bytes.
pub const RECORD_TEXT: usize = 1024;
/// Dropped packets to the same place within this time make one record.
pub const DROP_RECORD_EVERY: Duration = Duration::from_secs(10);
/// Different places of dropped packets that are told apart within that time.
pub const DROP_PLACES: usize = 256;

/// Size at which the log begins anew, in bytes.
pub const LOG_FILE: u64 = 4 * 1024 * 1024;

/// The frame socket must exist and accept within this.
pub const FRAMES_WAIT: Duration = Duration::from_secs(30);
/// Pause between two attempts to connect to it.
pub const FRAMES_RETRY: Duration = Duration::from_millis(20);

/// Largest body that is held to verify what was signed with a key of AWS, in bytes: one whose digest is signed and stands
/// nowhere, or in which the name of the call stands.
pub const AWS_BODY: usize = 10 * 1024 * 1024;
/// Bytes of such bodies, and of signed chunks, that are held at a time, of all requests. Beyond: they wait.
pub const AWS_HELD: usize = 64 * 1024 * 1024;
