//! Exit codes, as a type. They are stable: scripts rely on them.

use sbx_wire::guest::ExitStatus;
use tokio::signal::unix::SignalKind;

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done: 0.
    Success,
    /// An ordinary failure, or a denied `policy check`: 1.
    Failure,
    /// The command line does not parse: 2.
    Usage,
    /// The exit code of the program that was run inside the sandbox.
    Program(u8),
}

impl Exit {
    /// The command went as a program here ends at this signal.
    pub(crate) fn signal(kind: SignalKind) -> Self {
        let number = u8::try_from(kind.as_raw_value()).unwrap_or_default();
        Self::Program(ExitStatus::Signal(number).code())
    }

    /// The number.
    pub(crate) fn code(self) -> i32 {
        match self {
            Self::Success => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Program(code) => i32::from(code),
        }
    }
}
