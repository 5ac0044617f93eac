//! The claim that needs the host's eyes: a stored secret is nowhere that anybody but the two processes that need it could
//! read it.

use crate::claims::{Claim, REAL_KEY, Stage};
use crate::search::{Process, Search, processes};
use std::path::Path;

/// Programs that hold the secret in memory, because they need it; closed to others of their user.
const HOLDERS: [&str; 2] = ["sbx-daemon", "sbx-gateway"];

impl Stage {
    /// The key is in no file of the installation (disks of the machine, records, logs, database), in no command line and
    /// no environment of the host, and in no memory of the machine, its share or its supervisor. The same search finds
    /// the placeholder.
    pub fn secret_is_nowhere(&self) -> Claim {
        let placeholder = self.placeholder()?;
        let secret = REAL_KEY.get(13..).unwrap_or(REAL_KEY);
        let search = Search::new(&[secret, &placeholder]);
        let root = self.installation.state();
        let files = search.folder(&root)?;
        let mut with_placeholder = 0;
        for (path, hits) in &files {
            if hits[0] > 0 {
                return Err(format!("the key is in {}", path.display()));
            }
            with_placeholder += usize::from(hits[1] > 0);
        }
        let everybody = processes();
        for Process {
            pid,
            command,
            environment,
            ..
        } in &everybody
        {
            let environment = String::from_utf8_lossy(environment);
            if command.contains(secret) || environment.contains(secret) {
                return Err(format!(
                    "the key is in the words or variables of {pid}: {command}"
                ));
            }
        }
        let (ours, holders) = self.searched(&everybody);
        for name in HOLDERS {
            let mut of_name = holders
                .iter()
                .filter(|process| is(process, name))
                .peekable();
            if of_name.peek().is_none() {
                return Err(format!("no {name} is found among the processes"));
            }
            if let Some(open) = of_name.find(|process| !process.closed) {
                return Err(format!(
                    "its memory can be read by its user: {}",
                    open.command
                ));
            }
        }
        let mut in_machine = 0;
        for process in &ours {
            let hits = search.memory(process.pid)?;
            if hits[0] > 0 {
                return Err(format!("the key is in the memory of {}", process.command));
            }
            if is(process, "qemu") {
                in_machine += hits[1];
            }
        }
        if with_placeholder == 0 || in_machine == 0 {
            return Err(format!(
                "the search does not find the placeholder: {with_placeholder} files, {in_machine} times in the machine"
            ));
        }
        Ok(format!(
            "0 hits in the files of the installation, the words and variables of {} processes, the memory of {}; \
             the placeholder: {with_placeholder} files, {in_machine} times in the machine's memory",
            everybody.len(),
            ours.len()
        ))
    }

    /// Processes of the installation that must not hold the key, and those that hold it.
    fn searched<'a>(&self, all: &'a [Process]) -> (Vec<&'a Process>, Vec<&'a Process>) {
        let root = self.installation.state();
        let root = root
            .parent()
            .unwrap_or(Path::new("/"))
            .display()
            .to_string();
        let here = |process: &&Process| {
            String::from_utf8_lossy(&process.environment).contains(&root)
                || process.command.contains(&root)
        };
        let ours = all.iter().filter(here);
        let (mut searched, mut holders) = (Vec::new(), Vec::new());
        for process in ours {
            if HOLDERS.iter().any(|name| is(process, name)) {
                holders.push(process);
            } else if ["qemu", "sbx-share", "sbx-supervisor"]
                .iter()
                .any(|name| is(process, name))
            {
                searched.push(process);
            }
        }
        (searched, holders)
    }

    fn placeholder(&self) -> Result<String, String> {
        let said = self
            .installation
            .inside(&self.sandbox, "sync; printenv ANTHROPIC_API_KEY");
        let placeholder = said.success()?.trim().to_owned();
        match placeholder.strip_prefix("sk-ant-api03-") {
            Some(random) if random.len() > 40 => Ok(random.to_owned()),
            _ => Err(format!("no placeholder: {placeholder:?}")),
        }
    }
}

/// Whether a process runs this program.
fn is(process: &Process, program: &str) -> bool {
    let name = process.command.split(' ').next().unwrap_or_default();
    name.rsplit('/')
        .next()
        .is_some_and(|name| name.starts_with(program))
}
