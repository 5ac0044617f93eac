//! A state folder on a small file system of its own, in a namespace that nobody else sees.

use crate::Installation;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};

/// Holds the namespace; dropped, every sandbox and the daemon in it end, and with them the file system.
#[derive(Debug)]
pub struct SmallState {
    holder: Child,
    entered: Installation,
    folder: PathBuf,
}

impl Installation {
    /// From now on commands run where a new file system in memory lies over the state folder, with these options of
    /// `mount -t tmpfs`.
    ///
    /// # Errors
    /// Why there is no such namespace.
    pub fn with_small_state(&mut self, options: &str) -> Result<SmallState, String> {
        let folder = self.folder("state")?;
        let line = format!(
            "mount -t tmpfs -o {options},mode=700 none '{}' && echo $$ && read -r _end",
            folder.display()
        );
        let words = [
            "--user",
            "--map-current-user",
            "--keep-caps",
            "--mount",
            "sh",
            "-c",
            &line,
        ];
        let mut holder = self
            .program("/usr/bin/unshare", words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        let mut said = String::new();
        let output = holder.stdout.take().ok_or("no output")?;
        BufReader::new(output)
            .read_line(&mut said)
            .map_err(|e| e.to_string())?;
        let pid = said
            .trim()
            .parse()
            .map_err(|_| "there is no namespace with a file system in memory".to_owned())?;
        self.enter(pid);
        Ok(SmallState {
            holder,
            entered: self.clone(),
            folder,
        })
    }
}

impl SmallState {
    /// Leaves so many MiB free, by a file that takes the rest.
    ///
    /// # Errors
    /// What did not work.
    pub fn fill(&self, left_mib: u64) -> Result<(), String> {
        let file = self.folder.join("fill");
        let line = format!(
            "rm -f '{0}'; n=$(($(df -B1 --output=avail '{1}' | tail -1) - {2})); [ $n -le 0 ] || fallocate -l $n '{0}'",
            file.display(),
            self.folder.display(),
            left_mib << 20
        );
        let done = self.entered.program("/bin/sh", ["-c", &line]).output();
        let done = done.map_err(|e| e.to_string())?;
        if done.status.success() {
            Ok(())
        } else {
            Err(format!("{done:?}"))
        }
    }
}

impl SmallState {
    /// The ends of the logs and consoles inside: nobody outside sees them.
    fn logs(&self) -> String {
        let line = format!(
            "cd '{}' && df -h . && tail -n 60 sbx/*.log sbx/sandboxes/*/*.log sbx/sandboxes/*/*/*.log sbx/sandboxes/*/last-exit",
            self.folder.display()
        );
        let said = self.entered.program("/bin/sh", ["-c", &line]).output();
        said.map_or_else(
            |error| error.to_string(),
            |said| String::from_utf8_lossy(&said.stdout).into_owned(),
        )
    }
}

impl Drop for SmallState {
    #[expect(
        clippy::print_stderr,
        reason = "a test that failed shows what only its namespace has"
    )]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        // Nobody could reach what runs in there any more.
        self.entered.tear_down();
        drop(self.holder.stdin.take());
        let _ended = self.holder.wait();
    }
}
