//! Stopping a sandbox that nothing keeps: the last session has ended and nobody has come back.
//!
//! The supervisor does this by itself, so it happens without a daemon as well.

use crate::life::StopRequest;
use crate::state::State;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::sleep_until;

/// Grace of programs in the guest, as at any stop.
const GRACE: Duration = Duration::from_secs(10);

/// Asks for a stop when it is due, once.
pub async fn watch(state: State, stops: mpsc::Sender<StopRequest>) {
    let mut watch = state.watch();
    let idle = loop {
        let due = state.stops_at(&watch.borrow_and_update());
        match due {
            None => {
                if watch.changed().await.is_err() {
                    return;
                }
            }
            Some((idle, at)) => tokio::select! {
                changed = watch.changed() => if changed.is_err() { return },
                () = sleep_until(at) => break idle,
            },
        }
    };
    tracing::info!(?idle, "nothing keeps the sandbox running");
    // Full: it is being stopped already.
    let _ = stops.try_send(StopRequest {
        grace: GRACE,
        idle: Some(idle),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use sbx_wire::session::{Phase, Stay};
    use tokio::time::{Instant, advance};

    const MINUTE: Duration = Duration::from_mins(1);
    const ALMOST: Duration = Duration::from_secs(59);

    fn start(grace: Option<Duration>) -> (State, mpsc::Receiver<StopRequest>) {
        let state = State::new("0123456789ab", 1, 0, grace);
        let (stop, stops) = mpsc::channel(1);
        tokio::spawn(watch(state.clone(), stop));
        (state, stops)
    }

    /// Lets so much time pass, and everybody notice.
    async fn pass(time: Duration) {
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
        advance(time).await;
        for _ in 0..4 {
            tokio::task::yield_now().await;
        }
    }

    fn sessions(state: &State, count: u32) {
        state.update(|snapshot| snapshot.sessions = count);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sandbox_stops_when_it_had_no_session_for_the_whole_grace() {
        let (state, mut stops) = start(Some(MINUTE));
        pass(MINUTE * 10).await;
        assert!(stops.try_recv().is_err(), "it was not even running");
        state.phase(Phase::Running);
        pass(ALMOST).await;
        sessions(&state, 1);
        pass(MINUTE * 10).await;
        // One goes, another comes and goes at once: the time counts from the last.
        sessions(&state, 0);
        pass(ALMOST).await;
        sessions(&state, 1);
        sessions(&state, 0);
        pass(ALMOST).await;
        assert!(stops.try_recv().is_err(), "too early");
        pass(Duration::from_secs(2)).await;
        assert_eq!(stops.try_recv().unwrap().idle, Some(MINUTE));
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_sandbox_and_one_that_never_stops_stay() {
        let (held, mut stops) = start(Some(MINUTE));
        held.update(|snapshot| snapshot.held = true);
        held.phase(Phase::Running);
        let (always, mut others) = start(None);
        always.phase(Phase::Running);
        pass(MINUTE * 10_000).await;
        assert!(stops.try_recv().is_err() && others.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn without_grace_it_stops_at_once_but_not_before_its_first_session_could_come() {
        let (state, mut stops) = start(Some(Duration::ZERO));
        state.phase(Phase::Running);
        pass(Duration::from_secs(9)).await;
        assert!(stops.try_recv().is_err(), "nobody could have come yet");
        sessions(&state, 1);
        pass(MINUTE).await;
        sessions(&state, 0);
        pass(Duration::from_millis(1)).await;
        assert!(stops.try_recv().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_breaks_the_protocol_does_not_keep_its_sandbox() {
        let (state, mut stops) = start(Some(MINUTE));
        let broken = || Phase::Unresponsive("the guest broke the protocol".to_owned());
        state.phase(Phase::Running);
        sessions(&state, 1);
        pass(MINUTE * 10).await;
        // Its sessions end with it.
        sessions(&state, 0);
        state.phase(broken());
        pass(ALMOST).await;
        assert!(stops.try_recv().is_err(), "too early");
        pass(Duration::from_secs(2)).await;
        assert_eq!(stops.try_recv().unwrap().idle, Some(MINUTE));
        // Until then it is shown when that will be.
        let stay = state.sessions(&state.watch().borrow()).stay;
        assert!(matches!(stay, Stay::Until { .. }), "{stay:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_run_to_be_removed_ends_with_the_last_session() {
        let (state, mut stops) = start(None);
        state.phase(Phase::Running);
        sessions(&state, 2);
        state.update(|snapshot| snapshot.ending = true);
        pass(MINUTE).await;
        assert!(stops.try_recv().is_err(), "another session is open");
        let before = Instant::now();
        sessions(&state, 0);
        pass(Duration::from_millis(1)).await;
        assert!(stops.try_recv().is_ok());
        assert!(before.elapsed() < Duration::from_secs(1));
    }
}
