//! What programs inside ask the host's SSH agent, on the proxy port.

use std::sync::Arc;

use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response};
use sbx_wire::gateway::ProxyKind;
use sbx_wire::ssh_agent::{self, MAX_REQUEST, PATH, Reply};

use super::browser::is_for_us;
use crate::decision::UNWRITTEN;
use crate::gateway::Gateway;
use crate::limits;
use crate::reason::Reason;
use crate::records::Event;
use crate::relay::page::{self, AnswerBody};

/// What a record says instead of a host: which one it is for the client does not say.
const HOST: &str = "ssh-agent";

/// Whether a request to the proxy port is one.
pub(super) fn asks(request: &Request<Incoming>) -> bool {
    is_for_us(request, PATH)
}

/// Parses it and hands it to the daemon.
pub(super) async fn ask(gateway: Arc<Gateway>, request: Request<Incoming>) -> Response<AnswerBody> {
    let body = Limited::new(request.into_body(), MAX_REQUEST).collect();
    let body = match tokio::time::timeout(limits::REQUEST_HEAD, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err("the message is too long or breaks off"),
        Err(_) => Err("the message did not come in time"),
    };
    let body = match body {
        Ok(body) => body,
        Err(why) => {
            record(&gateway, Reason::BadRequest, "other");
            return page::bad_request(why);
        }
    };
    let Ok(request) = ssh_agent::Request::parse(&body) else {
        record(&gateway, Reason::BadRequest, "other");
        return answer(&refused("it is not served"));
    };
    let purpose = match &request {
        ssh_agent::Request::Keys => None,
        ssh_agent::Request::Sign { purpose, .. } => Some(purpose.to_string()),
    };
    if let Some(purpose) = &purpose
        && !gateway.records.can_write()
    {
        record(&gateway, Reason::RecordsUnwritten, purpose);
        return answer(&refused(UNWRITTEN));
    }
    let desk = &gateway.ssh_agent;
    let handled = desk.hand(request, limits::SSH_AGENT_TAKEN, limits::SSH_AGENT);
    let reply = handled
        .await
        .unwrap_or_else(|_| refused("nobody on the host takes it"));
    let reply = match (reply, &purpose) {
        // What was not asked for is no answer.
        (reply @ Reply::Keys { .. }, None)
        | (reply @ Reply::Signature { .. }, Some(_))
        | (reply @ Reply::Refused { .. }, _) => reply,
        _ => refused("the host answered something else"),
    };
    if let Some(purpose) = purpose {
        let reason = match reply {
            Reply::Refused { .. } => Reason::SshRefused,
            _ => Reason::SshSigned,
        };
        record(&gateway, reason, &purpose);
    }
    answer(&reply)
}

fn refused(why: &str) -> Reply {
    Reply::Refused {
        why: why.to_owned(),
    }
}

fn record(gateway: &Gateway, reason: Reason, purpose: &str) {
    let generation = gateway.generation();
    let event = Event::at(
        HOST.to_owned(),
        0,
        ProxyKind::SshAgent,
        reason,
        generation.number,
    );
    gateway.record(&generation, event.with_request("SIGN", purpose));
}

fn answer(reply: &Reply) -> Response<AnswerBody> {
    page::bytes(reply.encode())
}
