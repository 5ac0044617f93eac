//! The agent on a terminal of its own, which outlives the clients that look at it.
//!
//! | module | |
//! |---|---|
//! | [`Terminals`] | the one agent of a sandbox, or none |
//! | `shared` | a running agent and the clients attached to it |
//! | `attached` | what a client does: look, type, leave |
//! | `viewer` | what one client is sent |
//! | `screen`, `modes`, `paint` | the screen, for clients that come later |
//!
//! Of the attached clients one *leads*: the last that came or typed. When its terminal has the size of the
//! session it gets every byte, in order, as if nothing were in between; the others get pictures of the screen,
//! at most twenty a second. So a program that asks its terminal something gets one answer, and a client that
//! is slow costs nobody anything: it sees fewer pictures. The leader holds the program up for half a second at
//! most, then it is left behind and gets the screen when it reads again. The session has the size of the
//! smallest terminal, so that everybody sees everything.

mod attached;
mod modes;
mod paint;
mod screen;
mod shared;
mod viewer;

pub use attached::{Attached, Input};
pub use shared::Terminal;
pub use viewer::Item;

use crate::guest::channel::OpenError;
use crate::guest::{End, Guest};
use crate::state::{State, lock};
use sbx_wire::guest::{ExecRequest, TermSize};
use std::sync::{Arc, Mutex};

/// The place of a sandbox's agent. Clones are the same place.
#[derive(Debug, Clone, Default)]
pub struct Terminals {
    current: Arc<Mutex<Option<Terminal>>>,
}

impl Terminals {
    /// The agent that runs.
    pub fn running(&self) -> Option<Terminal> {
        lock(&self.current)
            .clone()
            .filter(|terminal| !terminal.has_ended())
    }

    /// Starts an agent unless one runs. Returns the one that runs then, and whether it was started here.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn start(
        &self,
        guest: &Guest,
        mut request: ExecRequest,
        state: &State,
    ) -> Result<(Terminal, bool), OpenError> {
        let size = request.terminal.unwrap_or(DEFAULT_SIZE).bounded();
        request.terminal = Some(size);
        request.stdin = true;
        let terminal = Terminal::new(guest.clone(), size, state.clone());
        {
            let mut current = lock(&self.current);
            if let Some(running) = current.as_ref().filter(|terminal| !terminal.has_ended()) {
                return Ok((running.clone(), false));
            }
            *current = Some(terminal.clone());
        }
        // It stays when whoever wants it first leaves.
        let session = match guest.exec(request, std::future::pending()).await {
            Ok(session) => session,
            Err(error) => {
                terminal.end(End::Lost(error.to_string()));
                return Err(error);
            }
        };
        state.update(|snapshot| snapshot.agent = true);
        terminal.drive(session);
        Ok((terminal, true))
    }
}

/// Size of an agent's terminal when its starter has none.
const DEFAULT_SIZE: TermSize = TermSize { rows: 24, cols: 80 };
