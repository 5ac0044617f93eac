//! What the host's messages and the other threads' events lead to.

use super::events::{Event, Mailbox};
use super::session::{Running, Session, SessionKey};
use super::start::{self, Surroundings};
use super::{Agent, Broken, Channel};
use crate::console;
use crate::sys;
use sbx_wire::guest::{ExecError, ExecRequest, FromGuest, MAX_SESSIONS, Personalise, ToGuest};
use std::sync::Arc;
use std::time::Duration;

impl Agent {
    pub(super) fn dispatch(&mut self, message: ToGuest) -> Result<(), Broken> {
        let Channel::Open(life) = &self.channel else {
            return Ok(());
        };
        let epoch = life.epoch;
        match message {
            ToGuest::Personalise(request) => self.personalise(epoch, request),
            ToGuest::Exec { session, request } => self.exec(SessionKey { epoch, session }, request),
            ToGuest::Stdin { session, data } => {
                if let Some(session) = self.session(epoch, session) {
                    session.stdin(&data)?;
                }
            }
            ToGuest::StdinEof { session } => {
                if let Some(session) = self.session(epoch, session) {
                    session.stdin_eof();
                }
            }
            ToGuest::Resize { session, size } => {
                if let Some(session) = self.session(epoch, session) {
                    session.resize(size);
                }
            }
            ToGuest::Signal { session, signal } => {
                let reaper = self.reaper.clone();
                if let (Some(session), Some(signal)) =
                    (self.session(epoch, session), sys::signal(signal))
                {
                    session.signal(signal, &reaper);
                }
            }
            ToGuest::Hangup { session } => {
                let reaper = self.reaper.clone();
                if let Some(session) = self.session(epoch, session) {
                    session.hang_up(&reaper);
                }
            }
            ToGuest::Credit {
                session,
                stream,
                bytes,
            } => {
                if let Some(session) = self.session(epoch, session) {
                    session.credit(stream, bytes)?;
                }
            }
            ToGuest::SetClock { unix_ns } => {
                if let Err(error) = self.platform.set_clock(unix_ns) {
                    self.outbox.message(epoch, &FromGuest::Log(error));
                }
            }
            ToGuest::Ping { token } => self.outbox.message(epoch, &FromGuest::Pong { token }),
            ToGuest::Shutdown { grace_ms } => {
                let platform = Arc::clone(&self.platform);
                self.background("shutdown", move |_| {
                    platform.shutdown(Duration::from_millis(grace_ms.into()));
                });
            }
            ToGuest::Prepare(request) => {
                let platform = Arc::clone(&self.platform);
                self.background("prepare", move |mailbox| {
                    let result = platform.prepare(&request);
                    mailbox.send(Event::Prepared { epoch, result });
                });
            }
        }
        Ok(())
    }

    fn session(&mut self, epoch: u32, session: u32) -> Option<&mut Session> {
        let key = SessionKey { epoch, session };
        self.sessions.iter_mut().find(|session| session.key == key)
    }

    fn personalise(&mut self, epoch: u32, request: Box<Personalise>) {
        self.surroundings = Arc::new(Surroundings {
            env: request.env.clone(),
            workdir: request.workdir.clone(),
            default_uid: self.platform.default_uid(),
        });
        let platform = Arc::clone(&self.platform);
        self.background("personalise", move |mailbox| {
            let result = platform.personalise(&request);
            mailbox.send(Event::Personalised { epoch, result });
        });
    }

    fn exec(&mut self, key: SessionKey, request: ExecRequest) {
        let ready = matches!(&self.channel, Channel::Open(life) if life.personalised);
        let refusal = if !ready {
            Some("the sandbox is not personalised")
        } else if self.sessions.len() >= MAX_SESSIONS {
            Some("too many sessions")
        } else if self.sessions.iter().any(|session| session.key == key) {
            Some("session number in use")
        } else {
            None
        };
        if let Some(reason) = refusal {
            return self.refuse(key, reason);
        }
        let reaper = self.reaper.clone();
        let surroundings = Arc::clone(&self.surroundings);
        let begun = self.background("start", move |mailbox| {
            let exits = mailbox.clone();
            let started = start::start(&request, &surroundings, &reaper, move |status| {
                exits.send(Event::Exited(key, status));
            });
            mailbox.send(Event::Started(key, started));
        });
        if begun {
            self.sessions.push(Session::new(key));
        } else {
            self.refuse(key, "no thread to start it on");
        }
    }

    fn refuse(&mut self, key: SessionKey, reason: &str) {
        let error = ExecError::BadRequest(reason.into());
        let failed = FromGuest::ExecFailed {
            session: key.session,
            error,
        };
        self.outbox.message(key.epoch, &failed);
    }

    /// Runs something that may block on a thread of its own. `false`: there is no thread to be had, and the
    /// console says why.
    fn background(&self, name: &str, work: impl FnOnce(&Mailbox) + Send + 'static) -> bool {
        let mailbox = self.mailbox.clone();
        let spawned = std::thread::Builder::new()
            .name(name.into())
            .stack_size(256 << 10)
            .spawn(move || work(&mailbox));
        if let Err(error) = &spawned {
            console::say(&format!("no thread for {name}: {error}"));
        }
        spawned.is_ok()
    }

    pub(super) fn take_events(&mut self) {
        self.inbox.clear();
        while let Some(event) = self.inbox.next() {
            match event {
                Event::Started(key, result) => self.started(key, result),
                Event::Exited(key, status) => {
                    if let Some(session) = self.session(key.epoch, key.session) {
                        session.exited(status);
                    }
                }
                Event::Personalised { epoch, result } => self.personalised(epoch, result),
                Event::Prepared { epoch, result } => {
                    if matches!(&self.channel, Channel::Open(life) if life.epoch == epoch) {
                        self.tell(&FromGuest::Prepared(result));
                    }
                }
                Event::Docker(state) => {
                    self.docker = Some(state.clone());
                    self.tell(&FromGuest::Docker(state));
                }
                Event::Log(text) => self.tell(&FromGuest::Log(text)),
            }
        }
    }

    /// Sends to whoever is there.
    fn tell(&mut self, message: &FromGuest) {
        if let Channel::Open(life) = &self.channel {
            self.outbox.message(life.epoch, message);
        }
    }

    fn personalised(&mut self, epoch: u32, result: Result<(), String>) {
        let Channel::Open(life) = &mut self.channel else {
            return;
        };
        if life.epoch != epoch {
            return;
        }
        life.personalised = result.is_ok();
        self.outbox.message(epoch, &FromGuest::Personalised(result));
        if let Some(state) = self.docker.clone() {
            self.outbox.message(epoch, &FromGuest::Docker(state));
        }
    }

    fn started(&mut self, key: SessionKey, result: Result<Running, ExecError>) {
        let Some(index) = self.sessions.iter().position(|session| session.key == key) else {
            return;
        };
        let message = match result {
            Ok(running) => {
                let pid = running.pid;
                self.sessions[index].started(running, &self.reaper);
                FromGuest::Started {
                    session: key.session,
                    pid,
                }
            }
            Err(error) => {
                self.sessions.remove(index);
                FromGuest::ExecFailed {
                    session: key.session,
                    error,
                }
            }
        };
        self.outbox.message(key.epoch, &message);
    }
}
