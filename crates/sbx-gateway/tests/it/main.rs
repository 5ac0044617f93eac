//! The real gateway process between a guest's TCP/IP stack and stand-ins.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod agreement;
mod attack;
mod attacks_bodies;
mod attacks_dns;
mod attacks_framing;
mod attacks_h2;
mod attacks_handshake;
mod attacks_host;
mod attacks_http;
mod attacks_ip;
mod attacks_life;
mod attacks_limits;
mod attacks_names;
mod attacks_tls;
mod authority;
mod browser;
mod clients;
mod credentials;
mod dns;
mod framing;
mod guest;
mod h2;
mod hello;
mod lab;
mod packets;
mod parked;
mod pins;
mod policy;
mod proxy;
mod tape;
mod transparent;
mod udp;
mod ways;
mod wire;
