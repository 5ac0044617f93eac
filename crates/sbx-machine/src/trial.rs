//! Which of two kernels starts sooner here?
//!
//! A kernel that was made for the job should, but whether it does, and whether it starts at all with this QEMU
//! and this accelerator, is found out by starting both, in turns. The verdict is remembered for these two
//! kernels, this QEMU, this accelerator and this host kernel, as the accelerator's is ([`crate::probe`]).

use crate::probe::{boot, recall, remember};
use crate::qemu::Version;
use sbx_wire::launch::Accel;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Starts of each kernel; the medians are compared.
const BOOTS: usize = 3;
const SCHEMA: u32 = 1;

/// What to compare, where.
#[derive(Debug, Clone)]
pub struct Trial<'a> {
    /// `qemu-system-x86_64`.
    pub qemu: &'a Path,
    /// Its version.
    pub version: Version,
    /// Accelerator that sandboxes use.
    pub accel: Accel,
    /// The kernel that would like to be used, and an identity of its content.
    pub small: (&'a Path, &'a str),
    /// The kernel that is used otherwise.
    pub stock: (&'a Path, &'a str),
    /// Cache folder; the verdict lies there, in a file for each accelerator.
    pub cache: &'a Path,
}

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verdict {
    /// Whether the small kernel is to be used.
    pub small: bool,
    /// Why, for people.
    pub reason: String,
    /// Median from the start of QEMU to the guest's first program, milliseconds.
    pub small_ms: Option<u64>,
    /// The same for the other kernel.
    pub stock_ms: Option<u64>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    schema: u32,
    qemu: String,
    host_kernel: String,
    accel: Accel,
    small: String,
    stock: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Remembered {
    key: Key,
    verdict: Verdict,
}

impl Trial<'_> {
    fn file(&self) -> PathBuf {
        self.cache.join(match self.accel {
            Accel::Kvm => "kernel-kvm.json",
            Accel::Tcg => "kernel-tcg.json",
        })
    }

    fn key(&self) -> Key {
        let host = rustix::system::uname();
        Key {
            schema: SCHEMA,
            qemu: self.version.to_string(),
            host_kernel: host.release().to_string_lossy().into_owned(),
            accel: self.accel,
            small: self.small.1.to_owned(),
            stock: self.stock.1.to_owned(),
        }
    }

    /// The verdict of an earlier comparison of the same. Reads one small file.
    pub fn recall(&self) -> Option<Verdict> {
        let known: Remembered = recall(&self.file())?;
        (known.key == self.key()).then_some(known.verdict)
    }

    /// Remembers that the small kernel is not to be used, because `reason` was seen when it was.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn condemn(&self, reason: &str) -> io::Result<()> {
        self.remember(Verdict {
            small: false,
            reason: reason.to_owned(),
            small_ms: None,
            stock_ms: None,
        })
    }

    /// Compares, which takes some seconds, and remembers the verdict. `None`: neither kernel came up in time, so
    /// that nothing was learnt about them.
    ///
    /// # Errors
    /// The tiny guest could not be written.
    pub async fn run(&self) -> io::Result<Option<Verdict>> {
        let (mut small, mut stock) = (Vec::new(), Vec::new());
        for _ in 0..BOOTS {
            for (boots, kernel) in [(&mut small, self.small.0), (&mut stock, self.stock.0)] {
                let booted = boot(self.qemu, kernel, self.accel).await?;
                boots.push(booted.map_err(|failure| failure.why));
            }
        }
        let verdict = judge(small, stock);
        if let Some(verdict) = &verdict {
            // A verdict that cannot be kept is still a verdict; the next daemon compares again.
            let _ = self.remember(verdict.clone());
        }
        Ok(verdict)
    }

    fn remember(&self, verdict: Verdict) -> io::Result<()> {
        let key = self.key();
        remember(&self.file(), &Remembered { key, verdict })
    }
}

type Boots = Vec<Result<Duration, String>>;

fn judge(small: Boots, stock: Boots) -> Option<Verdict> {
    let (small, stock) = (median(small), median(stock));
    let (is_small, reason) = match (&small, &stock) {
        (Ok(small), Ok(stock)) if small <= stock => (
            true,
            format!("starts in {small} ms, the distribution's in {stock} ms"),
        ),
        (Ok(small), Ok(stock)) => (
            false,
            format!("starts in {small} ms, the distribution's in only {stock} ms"),
        ),
        (Ok(small), Err(why)) => (
            true,
            format!("starts in {small} ms, the distribution's did not: {why}"),
        ),
        (Err(why), Ok(stock)) => (
            false,
            format!("does not start ({why}), the distribution's does, in {stock} ms"),
        ),
        (Err(_), Err(_)) => return None,
    };
    Some(Verdict {
        small: is_small,
        reason,
        small_ms: small.ok(),
        stock_ms: stock.ok(),
    })
}

/// Milliseconds; one start that failed spoils them all.
fn median(boots: Boots) -> Result<u64, String> {
    let mut all = boots
        .into_iter()
        .collect::<Result<Vec<Duration>, String>>()?;
    all.sort_unstable();
    let middle = all.get(all.len() / 2).copied().unwrap_or(Duration::MAX);
    Ok(u64::try_from(middle.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boots(ms: [u64; 3]) -> Boots {
        ms.map(|ms| Ok(Duration::from_millis(ms))).into()
    }

    #[test]
    fn small_kernel_is_used_when_it_always_starts_and_is_not_slower() {
        let verdict = judge(boots([500, 9000, 400]), boots([900, 800, 1000])).unwrap();
        assert!(verdict.small, "{verdict:?}");
        assert_eq!((verdict.small_ms, verdict.stock_ms), (Some(500), Some(900)));
        assert!(judge(boots([900; 3]), boots([900; 3])).unwrap().small);
        let slower = judge(boots([901; 3]), boots([900; 3])).unwrap();
        assert!(!slower.small);
        let mut once = boots([1; 3]);
        once[1] = Err("silent".to_owned());
        let failed = judge(once, boots([900; 3])).unwrap();
        assert!(
            !failed.small && failed.reason.contains("silent"),
            "{failed:?}"
        );
    }

    #[test]
    fn nothing_is_learnt_where_no_kernel_starts() {
        let none = || vec![Err("silent".to_owned())];
        assert_eq!(judge(none(), none()), None);
        assert!(judge(boots([5; 3]), none()).unwrap().small);
    }

    #[test]
    fn verdict_holds_for_the_same_kernels_qemu_and_accelerator_only() {
        let dir = tempfile::tempdir().unwrap();
        let trial = Trial {
            qemu: Path::new("qemu"),
            version: Version {
                major: 10,
                minor: 0,
                micro: 2,
            },
            accel: Accel::Tcg,
            small: (Path::new("a"), "small-1"),
            stock: (Path::new("b"), "6.12.1"),
            cache: dir.path(),
        };
        assert_eq!(trial.recall(), None);
        trial.condemn("a start with it failed").unwrap();
        assert!(!trial.recall().unwrap().small);
        let others = [
            Trial {
                accel: Accel::Kvm,
                ..trial.clone()
            },
            Trial {
                small: (Path::new("a"), "small-2"),
                ..trial.clone()
            },
            Trial {
                stock: (Path::new("b"), "6.12.2"),
                ..trial.clone()
            },
            Trial {
                version: crate::qemu::OLDEST,
                ..trial.clone()
            },
        ];
        for other in others {
            assert_eq!(other.recall(), None, "{other:?}");
        }
    }

    #[tokio::test]
    async fn kernels_that_are_none_give_no_verdict() {
        let dir = tempfile::tempdir().unwrap();
        let none = Path::new("/nonexistent");
        let trial = Trial {
            qemu: Path::new("qemu-system-x86_64"),
            version: crate::qemu::OLDEST,
            accel: Accel::Tcg,
            small: (none, "a"),
            stock: (none, "b"),
            cache: dir.path(),
        };
        assert_eq!(trial.run().await.unwrap(), None);
        assert_eq!(trial.recall(), None);
    }
}
