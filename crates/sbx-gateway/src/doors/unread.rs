//! A connection that passes unread, from the moment it is granted.

use std::sync::Arc;

use sbx_wire::gateway::ProxyKind;
use tokio::net::TcpStream;

use super::tls::{block_hello, block_sni, names, record_grant};
use super::{Client, Guest, tunnel_to_end};
use crate::adapter::hello::read_hello;
use crate::connector::{self, DialError};
use crate::decision::Grant;
use crate::gateway::Gateway;
use crate::live::{Feed, Lease};
use crate::reason::Reason;

/// See the module. A new policy ends it, also while it is dialled and while the guest has not said who it wants.
pub(super) struct Unread {
    account: Account,
    lease: Lease,
}

/// Its record. It is written when this goes, also because the guest gives the connection up: the upstream may have seen
/// it all the same.
struct Account {
    gateway: Arc<Gateway>,
    grant: Grant,
    proxy: ProxyKind,
    /// Tells whether the lease is revoked: whoever did that has recorded it.
    feed: Feed,
    told: bool,
}

impl Account {
    fn tell(&mut self, reason: Reason) {
        self.told |= self.feed.is_revoked();
        if !std::mem::replace(&mut self.told, true) {
            record_grant(&self.gateway, &self.grant, self.proxy, reason);
        }
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.tell(self.grant.reason);
    }
}

impl Unread {
    /// A connection that may be dialled.
    pub(super) fn new(gateway: Arc<Gateway>, grant: Grant, proxy: ProxyKind) -> Self {
        let lease = gateway.lease(&grant, proxy);
        let account = Account {
            gateway,
            grant,
            proxy,
            feed: lease.feed(),
            told: false,
        };
        Self { account, lease }
    }

    /// What was granted.
    pub(super) fn grant(&self) -> &Grant {
        &self.account.grant
    }

    /// Dials. `None`: a new policy does not allow it any more.
    pub(super) async fn dial(&mut self) -> Result<TcpStream, Option<DialError>> {
        let dialled = tokio::select! {
            biased;
            () = &mut self.lease => return Err(None),
            dialled = connector::dial(&self.account.grant) => dialled,
        };
        dialled.map_err(|error| {
            self.account.tell(error.reason());
            Some(error)
        })
    }

    /// Relays what has to begin with TLS for the host that was judged, unless a rule names the port of something else.
    pub(super) async fn relay_judged<S: Client>(mut self, guest: Guest<S>, upstream: TcpStream) {
        let account = &mut self.account;
        if !account.grant.needs_tls {
            return self.relay(guest, upstream).await;
        }
        let heard = tokio::select! {
            biased;
            () = &mut self.lease => return,
            heard = read_hello(guest) => heard,
        };
        let guest = match heard {
            Ok((hello, mut guest)) if names(&hello, &account.grant.target) => {
                guest.push_front(hello.seen);
                guest
            }
            Ok((hello, guest)) => {
                account.told = true;
                block_sni(&account.gateway, account.proxy, &account.grant, &hello);
                return guest.into_inner().abort();
            }
            Err(error) => {
                account.told = block_hello(&account.gateway, account.proxy, &account.grant, &error);
                return;
            }
        };
        self.relay(guest, upstream).await;
    }

    /// Relays until it ends. It is recorded before a byte of it passes, or none does.
    pub(super) async fn relay<S: Client>(mut self, guest: Guest<S>, upstream: TcpStream) {
        self.account.tell(self.account.grant.reason);
        if !self.account.gateway.records.can_write() {
            return guest.into_inner().abort();
        }
        tunnel_to_end(guest, upstream, self.lease).await;
    }
}
