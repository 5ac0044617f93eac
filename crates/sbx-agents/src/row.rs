//! What there is to know about an agent.

use crate::home::Seed;
use sbx_wire::guest::GuestFile;

/// An agent.
#[derive(Debug)]
pub struct Row {
    /// Its name on the command line, lower case.
    pub name: &'static str,
    /// Other names that mean it.
    pub aliases: &'static [&'static str],
    /// What its makers call it.
    pub title: &'static str,
    /// Where its program comes from.
    pub install: Install,
    /// Command line with the default flags: it asks for nothing, because the machine is the boundary.
    pub command: &'static [&'static str],
    /// Services whose secrets it works with, by their names in `sbx secret`.
    pub services: &'static [&'static str],
    /// Variables that it is given besides those of every sandbox.
    pub variables: &'static [(&'static str, &'static str)],
    /// Hosts that it needs besides its services' own, in the grammar of rules. Nothing is allowed because of
    /// this: it is what people are told when a rule stands in the way.
    pub network: &'static [&'static str],
    /// File that it reads in a project.
    pub project_file: Option<&'static str>,
    /// File below its home that it reads at every start, in every project: where the note about the sandbox
    /// goes. `None`: it reads none.
    pub note_file: Option<&'static str>,
    /// Files that a new sandbox has in the agent's home.
    pub files: fn(&Seed<'_>) -> Vec<GuestFile>,
    /// Service whose placeholder these files hold, so that it is there before a secret is.
    pub placeholder_in_files: Option<&'static str>,
    /// How far this row was tried.
    pub tried: Tried,
}

/// How far an agent was tried by our tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tried {
    /// It did a job in a machine, against a stand-in of its provider's API.
    Job,
    /// Its package was unpacked and its program started in a machine, no more.
    Started,
    /// Never run: written after its makers' documentation.
    Never,
}

/// Where an agent's program comes from.
#[derive(Debug)]
pub enum Install {
    /// Every sandbox has it.
    Base,
    /// A layer on the base image, made of npm packages that are unpacked and not run.
    Layer(Layer),
    /// Its makers' own installation, run inside the sandbox when the agent is first started.
    Inside(Recipe),
}

/// A layer of npm packages.
#[derive(Debug)]
pub struct Layer {
    /// The packages; the first is the agent's own, and the one that a wanted version is meant for.
    pub packages: &'static [Package],
    /// What lands in `/usr/local/bin`.
    pub programs: &'static [Program],
    /// Command that has to succeed inside a machine before the layer counts as finished.
    pub check: &'static [&'static str],
    /// Free space that making it takes at its peak, MiB.
    pub space_mib: u64,
}

/// An npm package, of which some is kept.
#[derive(Debug)]
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// Appended to the version: where a package's builds for platforms are versions of the same package.
    pub platform: &'static str,
    /// Version, range or tag that it always comes in; `None`: what was asked for, or `latest`.
    pub version: Option<&'static str>,
    /// Folder in the archive whose content is taken, without a slash at the end.
    pub from: &'static str,
    /// Folder in the image that it goes to, relative to the root.
    pub to: &'static str,
    /// What is taken of the content; a folder means everything in it.
    pub keep: &'static [&'static str],
    /// What is left out of that, as patterns of tar.
    pub omit: &'static [&'static str],
    /// Files that are programs, relative to [`Self::to`].
    pub executable: &'static [&'static str],
}

/// A program in `/usr/local/bin`.
#[derive(Debug)]
pub struct Program {
    /// File name.
    pub name: &'static str,
    /// What it is.
    pub body: Body,
}

/// What a [`Program`] is.
#[derive(Debug)]
pub enum Body {
    /// A symbolic link with this target.
    Link(&'static str),
    /// A script with this text.
    Script(&'static str),
}

/// An installation inside the sandbox.
#[derive(Debug)]
pub struct Recipe {
    /// Program whose presence means that it is installed.
    pub program: &'static str,
    /// Shell script that installs it for the user `agent`; run with `-e`.
    pub script: &'static str,
}
