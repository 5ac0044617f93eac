//! Stored secrets are nowhere that anybody but the two processes that need them could read them.

use crate::Installation;
use crate::search::{Process, Search, processes};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use std::fmt;
use std::path::Path;

/// Programs whose memory holds no secret. That of the machine holds all of its memory.
const SEARCHED: [&str; 3] = ["qemu", "sbx-share", "sbx-supervisor"];
/// Programs of which others of their user read neither memory nor variables. The first two hold secrets, because they need
/// them.
const CLOSED: [&str; 3] = ["sbx-daemon", "sbx-gateway", "sbx-supervisor"];
/// Shorter parts of a secret are found by chance.
const LEAST: usize = 12;

/// What is looked for, each with what it is called.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sought<'a> {
    /// What must be nowhere.
    pub secrets: &'a [(&'a str, &'a str)],
    /// What stands for secrets inside, which the search must find in the machine's memory.
    pub placeholders: &'a [(&'a str, &'a str)],
    /// Folders below the installation's root in which the user keeps secrets.
    pub kept_by_user: &'a [&'a Path],
}

/// What a search saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Files of the installation with a placeholder in them.
    pub files_with_placeholders: usize,
    in_machines: usize,
    processes: usize,
    searched: usize,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "0 hits in the files of the installation and its snapshots, the words and variables of {} processes, the \
             memory of {}; the placeholder: {} files, {} times in the machine's memory",
            self.processes, self.searched, self.files_with_placeholders, self.in_machines
        )
    }
}

/// Each secret, as it is or in Base64, is in no file of the installation (disks and states of machines, workspaces,
/// records, logs, database, settings) or of the snapshots, in no command line and no environment of the host, and in no
/// memory of a machine, its share or its supervisor. Nor could others of the user look into those that hold it.
///
/// # Errors
/// Where one was found, or what the search did not find that it must.
pub fn is_nowhere(installation: &Installation, sought: &Sought) -> Result<Seen, String> {
    let secrets: Vec<(&str, String)> = sought
        .secrets
        .iter()
        .flat_map(|(name, secret)| forms(secret).into_iter().map(move |form| (*name, form)))
        .collect();
    let placeholders = sought.placeholders.iter().map(|(_, text)| *text);
    let texts: Vec<&str> = secrets
        .iter()
        .map(|(_, form)| form.as_str())
        .chain(placeholders)
        .collect();
    let search = Search::new(&texts);
    let none_of = |hits: &[usize], place: &dyn fmt::Display| {
        let found = secrets.iter().zip(hits).find(|(_, hits)| **hits > 0);
        found.map_or(Ok(()), |((name, form), _)| {
            Err(format!("{name} is in {place}, as {form}"))
        })
    };
    let everybody = processes();
    for process in &everybody {
        let variables = String::from_utf8_lossy(&process.environment);
        let holds = |form: &str| process.command.contains(form) || variables.contains(form);
        if let Some((name, _)) = secrets.iter().find(|(_, form)| holds(form)) {
            let Process { pid, command, .. } = process;
            return Err(format!(
                "{name} is in the words or variables of {pid}: {command}"
            ));
        }
    }
    let ours = of_installation(installation, &everybody);
    are_closed(&ours)?;
    let mut seen = Seen {
        files_with_placeholders: 0,
        in_machines: 0,
        processes: everybody.len(),
        searched: 0,
    };
    let mut in_machines = vec![0; sought.placeholders.len()];
    let searched = |process: &&&Process| SEARCHED.iter().any(|name| is(process, name));
    for process in ours.iter().filter(searched) {
        let hits = search.memory(process.pid)?;
        none_of(&hits, &format_args!("the memory of {}", process.command))?;
        seen.searched += 1;
        if is(process, "qemu") {
            let found = in_machines.iter_mut().zip(&hits[secrets.len()..]);
            found.for_each(|(all, more)| *all += more);
        }
    }
    for folder in [installation.root(), &installation.snapshots()] {
        for (path, hits) in search.folder(folder)? {
            if sought.kept_by_user.iter().any(|own| path.starts_with(own)) {
                continue;
            }
            none_of(&hits, &path.display())?;
            seen.files_with_placeholders += usize::from(hits.iter().any(|hits| *hits > 0));
        }
    }
    let mut found = sought.placeholders.iter().zip(&in_machines);
    if let Some(((name, _), _)) = found.find(|(_, hits)| **hits == 0) {
        return Err(format!("the search does not find {name} in the machine"));
    }
    seen.in_machines = in_machines.iter().sum();
    Ok(seen)
}

/// How a secret may lie somewhere: as it is, and as a part of something in Base64, wherever it begins there.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = vec![secret.to_owned()];
    for before in 0..3 {
        let mut bytes = vec![0; before];
        bytes.extend(secret.as_bytes());
        let encoded = STANDARD_NO_PAD.encode(&bytes);
        // Without the digits that have a part in what stands before or behind it.
        let first = [0, 2, 3][before];
        let last = bytes.len() * 8 / 6;
        if last - first >= LEAST {
            forms.push(encoded[first..last].to_owned());
        }
    }
    forms
}

fn of_installation<'a>(installation: &Installation, all: &'a [Process]) -> Vec<&'a Process> {
    let root = installation.root().display().to_string();
    let here = |process: &&Process| {
        String::from_utf8_lossy(&process.environment).contains(&root)
            || process.command.contains(&root)
    };
    all.iter().filter(here).collect()
}

/// Each of those that must be is there, and closed.
fn are_closed(ours: &[&Process]) -> Result<(), String> {
    for name in CLOSED {
        let mut of_name = ours.iter().filter(|process| is(process, name)).peekable();
        if of_name.peek().is_none() {
            return Err(format!("no {name} is found among the processes"));
        }
        if let Some(open) = of_name.find(|process| !process.closed) {
            return Err(format!(
                "others of its user can read its memory: {}",
                open.command
            ));
        }
    }
    Ok(())
}

/// Whether a process runs this program.
fn is(process: &Process, program: &str) -> bool {
    let name = process.command.split(' ').next().unwrap_or_default();
    name.rsplit('/')
        .next()
        .is_some_and(|name| name.starts_with(program))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_in_base64_wherever_it_begins() {
        let secret = "a-secret-of-26-characters!";
        let forms = forms(secret);
        for before in ["", "u", "us", "user:", "user12:"] {
            let whole = STANDARD_NO_PAD.encode(format!("{before}{secret} and more"));
            assert!(forms.iter().any(|form| whole.contains(form)), "{before}");
        }
        assert_eq!(forms.len(), 4);
    }
}
