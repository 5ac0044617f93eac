//! What one attached client is sent.

use super::screen::Screen;
use crate::guest::End;
use sbx_wire::guest::TermSize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes that may wait for the leading client.
pub(super) const QUEUE: usize = 256 << 10;
/// Shortest time between two pictures.
const FRAME: Duration = Duration::from_millis(50);

/// Something for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The agent runs.
    Started,
    /// Bytes for its terminal.
    Output(Vec<u8>),
    /// Last item: it has left.
    Detached,
    /// Last item: the agent has ended.
    End(End),
}

/// How a client sees the screen.
#[derive(Debug)]
pub(super) enum View {
    /// It gets what the program writes.
    Bytes(Vec<u8>),
    /// It gets the screen first, with the lines above it if it is new.
    Restore { history: bool },
    /// It gets pictures: of a screen with this number next, not before this time.
    Pictures {
        first: bool,
        seen: Option<u64>,
        not_before: Instant,
    },
}

impl View {
    pub(super) fn pictures() -> Self {
        Self::Pictures {
            first: true,
            seen: None,
            not_before: Instant::now(),
        }
    }
}

#[derive(Debug)]
pub(super) struct Viewer {
    pub(super) size: TermSize,
    pub(super) view: View,
    pub(super) told_started: bool,
    /// Its terminal has been made usable again, for the end.
    pub(super) cleared: bool,
    /// It wants to leave.
    pub(super) leaving: bool,
    /// Something may be there to send.
    pub(super) wake: Arc<Notify>,
}

/// What there is to do for a client.
pub(super) enum Next {
    Item(Item),
    /// Something new wakes it.
    Wait,
    /// A picture is due then.
    WaitUntil(Instant),
}

impl Viewer {
    /// Takes what comes next. `number` is the screen's.
    pub(super) fn next(
        &mut self,
        screen: &mut Screen,
        number: u64,
        started: bool,
        end: Option<&End>,
    ) -> Next {
        if started && !self.told_started {
            self.told_started = true;
            return Next::Item(Item::Started);
        }
        if self.leaving {
            return self.last(screen, true, Item::Detached);
        }
        let (output, after) = match &mut self.view {
            View::Bytes(bytes) => (Some(std::mem::take(bytes)), None),
            View::Restore { history } => {
                let bytes = screen.restore(*history);
                (Some(bytes), Some(View::Bytes(Vec::new())))
            }
            View::Pictures {
                first,
                seen,
                not_before,
            } if *seen != Some(number) => {
                let now = Instant::now();
                if now < *not_before && end.is_none() {
                    return Next::WaitUntil(*not_before);
                }
                let bytes = screen.mirror(*first);
                *first = false;
                *seen = Some(number);
                *not_before = now + FRAME;
                (Some(bytes), None)
            }
            View::Pictures { .. } => (None, None),
        };
        if let Some(view) = after {
            self.view = view;
        }
        match (output.filter(|bytes| !bytes.is_empty()), end) {
            (Some(bytes), _) => Next::Item(Item::Output(bytes)),
            (None, Some(end)) => {
                let disorder = matches!(self.view, View::Pictures { .. }) || !screen.is_plain();
                self.last(screen, disorder, Item::End(end.clone()))
            }
            (None, None) => Next::Wait,
        }
    }

    /// The last item, after what makes a terminal in disorder usable again.
    fn last(&mut self, screen: &Screen, disorder: bool, item: Item) -> Next {
        if disorder && !std::mem::replace(&mut self.cleared, true) {
            return Next::Item(Item::Output(screen.leave()));
        }
        Next::Item(item)
    }
}
