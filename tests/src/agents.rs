//! Agents at work: the real command line of each in a machine of its own, against a stand-in of its provider's API.

use crate::{Installation, Outcome, project::Project};
use sbx_testkit::ModelStandIn;
use sbx_testkit::model::{HOSTS, job};
use serde_json::json;
use std::hash::{BuildHasher, RandomState};

/// An agent and what its job takes.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name.
    pub agent: &'static str,
    /// Service whose secret it works with.
    pub service: &'static str,
    /// Variable that the agent finds its placeholder in.
    pub variable: &'static str,
    /// Beginning of a real key.
    pub prefix: &'static str,
    /// Hosts that it may reach; everything else is blocked, telemetry above all.
    pub hosts: &'static [&'static str],
    /// Hosts that it asks for all the same, and must live without.
    pub blocked: &'static [&'static str],
    /// Arguments behind `--`.
    pub arguments: &'static [&'static str],
}

/// Every agent whose package the registry carries, but Claude Code, whose job is the demo's.
pub const CASES: [Case; 4] = [
    Case {
        agent: "codex",
        service: "openai",
        variable: "OPENAI_API_KEY",
        prefix: "sk-proj-",
        hosts: &["api.openai.com"],
        blocked: &[],
        arguments: &["exec", "--skip-git-repo-check", PROMPT],
    },
    Case {
        agent: "gemini",
        service: "google",
        variable: "GEMINI_API_KEY",
        prefix: "AIza",
        hosts: &["generativelanguage.googleapis.com"],
        blocked: &[],
        arguments: &["-p", PROMPT],
    },
    Case {
        agent: "opencode",
        service: "openai",
        variable: "OPENAI_API_KEY",
        prefix: "sk-proj-",
        hosts: &["api.openai.com"],
        blocked: &[],
        arguments: &["run", PROMPT],
    },
    Case {
        agent: "copilot",
        service: "github",
        variable: "GH_TOKEN",
        prefix: "gho_",
        hosts: &["api.github.com", "api.githubcopilot.com"],
        blocked: &["copilot-telemetry.githubusercontent.com"],
        arguments: &["-p", PROMPT],
    },
];

const PROMPT: &str = "Write the file and look at it.";
/// First words of the note about the sandbox.
const NOTE: &str = "You are in a sandbox";

/// An agent with its project and its model.
struct Stage<'a> {
    installation: &'a Installation,
    case: Case,
    model: ModelStandIn,
    project: Project,
    sandbox: String,
    key: String,
}

/// Has an agent do its job twice, with another answer of the model the second time, and looks at everything that has to
/// hold. Returns what was seen.
///
/// # Errors
/// What did not hold.
pub fn does_its_job(installation: &Installation, case: Case) -> Result<String, String> {
    let stage = Stage::set(installation, case)?;
    let first = stage.edit("the first answer")?;
    let second = stage.edit("another answer, another edit")?;
    stage.note_arrived()?;
    stage.key_stayed_outside()?;
    let blocked = stage.blocked()?;
    let inspect = installation
        .sbx(["inspect", &stage.sandbox, "--json"])
        .json()?;
    let ready = inspect["ready_ms"].as_u64().unwrap_or_default();
    installation
        .sbx(["rm", "--force", &stage.sandbox])
        .success()?;
    // OpenCode takes the first provider that it finds a key for.
    installation
        .sbx(["secret", "rm", case.service, "--force"])
        .success()?;
    Ok(format!(
        "{}: two edits, {} s with the machine's start ({ready} ms), then {} s; blocked: {}",
        case.agent,
        first.took.as_secs(),
        second.took.as_secs(),
        blocked.join(", ")
    ))
}

/// Has OpenCode do its job with a model server that listens on the host's loopback, which a rule lets it reach as
/// `host.docker.internal`. Returns what was seen.
///
/// # Errors
/// What did not hold.
pub fn works_with_a_local_model(installation: &Installation) -> Result<String, String> {
    let project = Project::new(installation, "project-local")?;
    let path = project.path.join("hello.txt").display().to_string();
    let script = job("opencode-local", "", &path, "by a model of one's own").ok_or("no job")?;
    let model = ModelStandIn::start_local(script).map_err(|e| e.to_string())?;
    let port = model.address().port();
    let provider = json!({
        "npm": "@ai-sdk/openai-compatible", "name": "On this machine",
        "options": { "baseURL": format!("http://host.docker.internal:{port}/v1") },
        "models": { "local-model": { "name": "local-model" } },
    });
    let config = json!({ "model": "local/local-model", "provider": { "local": provider } });
    installation.write(
        &project.path.join("opencode.json"),
        config.to_string().as_bytes(),
    )?;
    let run = |arguments: &[&str]| installation.sbx_in(&project.path, b"", arguments.to_vec());
    run(&[
        "create", "opencode", ".", "--name", "local", "--memory", "2g",
    ])
    .success()?;
    let ask = format!("curl -sS -m 60 http://host.docker.internal:{port}/v1/models");
    let denied = installation.inside("local", &ask);
    if !denied.stdout.contains("Blocked by network policy")
        || !model.recorder().requests().is_empty()
    {
        return Err(format!("without a rule: {denied}"));
    }
    let rule = format!("localhost:{port}");
    installation
        .sbx(["policy", "allow", "network", &rule])
        .success()?;
    let outcome = run(&["run", "opencode", "--name", "local", "--", "run", PROMPT]);
    let failed = model.recorder().failed_assertions().join("; ");
    if !outcome.ok() || !model.recorder().script_completed() {
        return Err(format!("{outcome}\n{failed}\n{}", installation.logs()));
    }
    let written = project.read("hello.txt")?;
    if written.trim() != "by a model of one's own" {
        return Err(format!("it wrote {written:?}"));
    }
    installation.sbx(["rm", "--force", "local"]).success()?;
    Ok(format!(
        "opencode with a model on the host: blocked without a rule; one edit with it, {} s",
        outcome.took.as_secs()
    ))
}

impl<'a> Stage<'a> {
    fn set(installation: &'a Installation, case: Case) -> Result<Self, String> {
        let project = Project::new(installation, &format!("project-{}", case.agent))?;
        let path = project.path.join("hello.txt").display().to_string();
        let key = format!("{}{:016x}REAL{:016x}", case.prefix, random(), random());
        let script = job(case.agent, &key, &path, "nothing yet").ok_or("no job for this agent")?;
        let model = ModelStandIn::start(script).map_err(|e| e.to_string())?;
        let root = installation.folder("trust")?.join("model.pem");
        installation.write(&root, model.root_pem().as_bytes())?;
        let overrides: serde_json::Map<_, _> = HOSTS
            .into_iter()
            .map(|host| (format!("{host}:443"), model.address().to_string().into()))
            .collect();
        let overrides = serde_json::Value::from(overrides).to_string();
        let root = root.display().to_string();
        installation
            .sbx(["settings", "set", "upstream.overrides", &overrides])
            .success()?;
        installation
            .sbx(["settings", "set", "upstream.extraRoots", &root])
            .success()?;
        let hosts = case.hosts.join(",");
        installation
            .sbx(["policy", "allow", "network", &hosts])
            .success()?;
        installation
            .sbx_in(
                &project.path,
                key.as_bytes(),
                ["secret", "set", case.service],
            )
            .success()?;
        Ok(Self {
            installation,
            case,
            model,
            project,
            sandbox: format!("job-{}", case.agent),
            key,
        })
    }

    /// The agent edits the file, and the model gets the results of its tools.
    fn edit(&self, content: &str) -> Result<Outcome, String> {
        let path = self.project.path.join("hello.txt").display().to_string();
        let script = job(self.case.agent, &self.key, &path, content).ok_or("no job")?;
        self.model.set_script(script).map_err(|e| e.to_string())?;
        let mut arguments = vec!["run", self.case.agent, "--name", &self.sandbox];
        let listed = self.installation.sbx(["ls", "--json"]).json()?.to_string();
        if !listed.contains(&self.sandbox) {
            arguments.extend(["--memory", "2g"]);
        }
        arguments.push("--");
        arguments.extend(self.case.arguments);
        let outcome = self.installation.sbx_in(&self.project.path, b"", arguments);
        let failed = self.model.recorder().failed_assertions();
        if !outcome.ok() || !failed.is_empty() {
            let failed = failed.join("; ");
            return Err(format!(
                "{outcome}\n{failed}\n{}\n{}",
                self.requests(),
                self.installation.logs()
            ));
        }
        let written = self.project.read("hello.txt")?;
        if written.trim() != content || !self.model.recorder().script_completed() {
            return Err(format!(
                "it wrote {written:?}\n{outcome}\n{}",
                self.requests()
            ));
        }
        Ok(outcome)
    }

    fn requests(&self) -> String {
        let requests = self.model.recorder().requests();
        let lines = requests
            .iter()
            .map(|r| format!("{} {} {}", r.method, r.uri, r.note));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// What the agent tells its model holds the note.
    fn note_arrived(&self) -> Result<(), String> {
        let requests = self.model.recorder().requests();
        let told = requests.iter().any(|request| {
            let body = request.body.as_ref().map(ToString::to_string);
            body.is_some_and(|body| body.contains(NOTE) && body.contains(&self.sandbox))
        });
        told.then_some(())
            .ok_or_else(|| format!("no request of {} holds the note", self.case.agent))
    }

    /// Hosts that were refused to it, among which are those that it is known to ask for.
    fn blocked(&self) -> Result<Vec<String>, String> {
        let log = ["policy", "log", &self.sandbox, "--json"];
        let log = self.installation.sbx(log).json()?;
        let rows = log["blocked_hosts"].as_array().into_iter().flatten();
        let mut hosts: Vec<String> = rows
            .filter_map(|row| row["host"].as_str().map(str::to_owned))
            .collect();
        hosts.sort();
        hosts.dedup();
        let asked = |host: &&&str| hosts.iter().any(|blocked| blocked.starts_with(**host));
        match self.case.blocked.iter().find(|host| !asked(host)) {
            Some(host) => Err(format!(
                "{host} is not among what was blocked: {hosts:?}\n{log:#}"
            )),
            None => Ok(hosts),
        }
    }

    /// The stand-in answers nobody without the real key, so it was there. Inside there is a placeholder of the same shape.
    fn key_stayed_outside(&self) -> Result<(), String> {
        let (head, tail) = self.key.split_at(self.key.len() - 12);
        // The pattern is put together inside, so that the search does not find itself.
        let line = format!(
            "p='{}'; p=\"${{p}}{tail}\"; q=$(printenv {}); \
             sudo sh -c 'cat /proc/[0-9]*/environ 2>/dev/null' | tr '\\0' '\\n' | grep -c -e \"$p\"; \
             sudo grep -rlF -e \"$p\" /home /root /etc /tmp /var/log /run /dev/shm . 2>/dev/null | wc -l; \
             sudo sh -c 'cat /proc/[0-9]*/environ 2>/dev/null' | tr '\\0' '\\n' | grep -c -e \"$q\"; \
             echo \"$q\"; env | grep -E '^(IS_SANDBOX|SANDBOX_NAME|WORKSPACE_DIR)=' | sort",
            &head[head.len() - 8..],
            self.case.variable
        );
        let outcome = self.installation.inside(&self.sandbox, &line);
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        let workspace = format!("WORKSPACE_DIR={}", self.project.path.display());
        let name = format!("SANDBOX_NAME={}", self.sandbox);
        match lines.as_slice() {
            [
                "0",
                "0",
                found,
                placeholder,
                "IS_SANDBOX=1",
                own_name,
                own_workspace,
            ] if *found != "0"
                && placeholder.starts_with(self.case.prefix)
                && *placeholder != self.key
                && *own_name == name
                && *own_workspace == workspace =>
            {
                Ok(())
            }
            _ => Err(outcome.to_string()),
        }
    }
}

/// A number that nobody has seen before: the standard library seeds each of these at random.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}
