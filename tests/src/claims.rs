//! What sbx claims, each shown with real parts: one function a claim, which returns what was observed, or how
//! the claim failed. The demo prints them, the end-to-end tests assert them.

use crate::canary::Canary;
use crate::{Installation, Outcome, project::Project};
use sbx_testkit::{AnthropicStandIn, Script};
use serde_json::Value;
use std::path::PathBuf;

/// The key that is stored on the host and must never be seen inside.
pub const REAL_KEY: &str = "sk-ant-api03-REAL-5f0c7c3e9d1b4a6f8e2d-known-to-the-host-only";
/// A host that the policy of the claims allows; a stand-in answers for it.
pub const ALLOWED_HOST: &str = "allowed.example";
/// A host that no rule allows.
pub const DENIED_HOST: &str = "denied.example";

/// What was observed, or why the claim failed.
pub type Claim = Result<String, String>;

/// Everything the claims are made on: one sandbox for the agent, on a project, with stand-ins for the
/// outside.
#[derive(Debug)]
pub struct Stage {
    /// The installation.
    pub installation: Installation,
    /// The model's API.
    pub model: AnthropicStandIn,
    /// The project.
    pub project: Project,
    /// Listeners that nothing may reach.
    pub canary: Canary,
    /// Name of the sandbox.
    pub sandbox: String,
    /// First creation of the sandbox, by `sbx run`.
    pub first_run: Option<Outcome>,
}

/// The model's script: write `content` to `file`, check it with a command.
pub fn script(project: &Project, file: &str, content: &str) -> Script {
    let path = project.path.join(file);
    let path = path.display().to_string();
    Script::write_and_run(
        REAL_KEY,
        &path,
        content,
        &format!("cat {path} && uname -r"),
        content,
    )
}

impl Stage {
    /// Starts the stand-ins and tells sbx about them: policy, overrides, trusted root, key.
    ///
    /// # Errors
    /// Which step failed.
    pub fn set(installation: Installation, sandbox: &str) -> Result<Self, String> {
        let project = Project::new(&installation, "project")?;
        let model = AnthropicStandIn::start(script(&project, "hello.txt", "written by the agent"))
            .map_err(|e| e.to_string())?;
        let root: PathBuf = installation.folder("trust")?.join("root.pem");
        installation.write(&root, model.root_pem().as_bytes())?;
        let overrides = serde_json::json!({ "api.anthropic.com:443": model.address().to_string() });
        let root = root.display().to_string();
        let steps: &[&[&str]] = &[
            &["policy", "init", "balanced"],
            &[
                "settings",
                "set",
                "upstream.overrides",
                &overrides.to_string(),
            ],
            &["settings", "set", "upstream.extraRoots", &root],
        ];
        for step in steps {
            installation.sbx(step.iter().copied()).success()?;
        }
        installation
            .sbx_in(
                &project.path,
                REAL_KEY.as_bytes(),
                ["secret", "set", "ANTHROPIC_API_KEY"],
            )
            .success()?;
        let canary = Canary::new()?;
        let sandbox = sandbox.to_owned();
        Ok(Self {
            installation,
            model,
            project,
            canary,
            sandbox,
            first_run: None,
        })
    }

    /// Lets the agent do its job with the present script.
    ///
    /// # Errors
    /// What the agent said when it failed.
    pub fn run_agent(&mut self) -> Result<Outcome, String> {
        let mut arguments = vec!["run", "claude", "--name", &self.sandbox];
        if self.first_run.is_none() {
            arguments.extend(["--memory", "2g"]);
        }
        arguments.extend(["--", "-p", "Write the file and check it."]);
        let outcome = self.installation.sbx_in(&self.project.path, b"", arguments);
        if self.first_run.is_none() {
            self.first_run = Some(outcome.clone());
        }
        if !outcome.ok() {
            return Err(format!("{outcome}\n{}", self.installation.logs()));
        }
        let failed = self.model.recorder().failed_assertions();
        if failed.is_empty() {
            Ok(outcome)
        } else {
            Err(failed.join("; "))
        }
    }

    fn inside(&self, line: &str) -> Outcome {
        self.installation.inside(&self.sandbox, line)
    }

    /// The guest runs a kernel of its own.
    pub fn own_kernel(&self) -> Claim {
        let guest = self
            .inside("uname -r; cat /proc/sys/kernel/random/boot_id")
            .success()?;
        let host_release = read("/proc/sys/kernel/osrelease")?;
        let host_boot = read("/proc/sys/kernel/random/boot_id")?;
        let mut lines = guest.lines();
        let release = lines.next().unwrap_or_default().to_owned();
        if lines.next() == Some(host_boot.trim()) {
            return Err("the guest has the host's boot id".to_owned());
        }
        Ok(format!(
            "guest kernel {release}, host kernel {}",
            host_release.trim()
        ))
    }

    /// The agent's edit is on the host, and another answer of the model gives another edit.
    pub fn edit_on_host(&mut self) -> Claim {
        self.run_agent()?;
        let first = self.project.read("hello.txt")?;
        let other = "a different answer, a different edit";
        let script = script(&self.project, "hello.txt", other);
        self.model.set_script(script).map_err(|e| e.to_string())?;
        self.run_agent()?;
        let second = self.project.read("hello.txt")?;
        if !first.contains("written by the agent") || !second.contains(other) {
            return Err(format!("first edit {first:?}, second edit {second:?}"));
        }
        Ok(format!(
            "hello.txt: {:?}, then {:?}",
            first.trim(),
            second.trim()
        ))
    }

    /// A file outside the workspace is out of reach, also through a link.
    pub fn outside_out_of_reach(&self) -> Claim {
        let outside = self.project.outside.display().to_string();
        let direct = self.inside(&format!("cat '{outside}'"));
        let linked = self.inside("cat link-out");
        let listed = self.inside("ls -A ..").success()?;
        if [&direct, &linked]
            .iter()
            .any(|o| o.ok() || o.stdout.contains(&self.project.outside_text))
        {
            return Err(format!("{direct}\n{linked}"));
        }
        if listed.contains("private") {
            return Err(format!("the parent folder shows {listed:?}"));
        }
        Ok(format!(
            "cat: {}; the parent folder shows only {:?}",
            last(&direct.stderr),
            listed.trim()
        ))
    }

    /// A container runs in the sandbox's own Docker Engine, from an image imported from a tar file.
    pub fn docker_runs(&self) -> Claim {
        let line = "tar -chf /tmp/tiny.tar -C / bin/sh bin/echo bin/uname \
             $(ldd /bin/echo | grep -o '/lib[^ ]*' | sed 's|^/||' | sort -u) 2>/dev/null; \
             docker import /tmp/tiny.tar tiny >/dev/null && \
             docker run --rm tiny /bin/sh -c '/bin/echo container says hello'; \
             docker info --format '{{.ID}} {{.ServerVersion}}'";
        let outcome = self.inside(line);
        if !outcome.stdout.contains("container says hello") {
            return Err(outcome.to_string());
        }
        let engine = last(&outcome.stdout);
        Ok(format!(
            "docker run in engine {engine}: container says hello"
        ))
    }

    /// An allowed host answers.
    pub fn allowed_host_answers(&self) -> Claim {
        let url = "https://api.anthropic.com/v1/models";
        let outcome = self.inside(&format!("curl -sS -o /dev/null -w '%{{http_code}}' {url}"));
        let code = outcome.success()?;
        if code.trim() == "403" || code.trim() == "000" {
            return Err(format!("{url} answered {code}"));
        }
        Ok(format!("{url}: HTTP {code}, answered by the upstream"))
    }

    /// A denied host gets a 403 with the reason, over HTTP and inside TLS, proxy variables or not.
    pub fn denied_host_403(&self) -> Claim {
        let mut seen = String::new();
        for line in [
            format!("curl -sS -w ' HTTP %{{http_code}}' https://{DENIED_HOST}/"),
            format!("curl -sS -w ' HTTP %{{http_code}}' http://{DENIED_HOST}/"),
        ] {
            let outcome = self.inside(&line);
            if !outcome.stdout.contains("HTTP 403")
                || !outcome.stdout.contains("Blocked by network policy")
            {
                return Err(outcome.to_string());
            }
            seen = first(&outcome.stdout);
        }
        let direct = self.inside(&format!(
            "curl -sS --noproxy '*' -m 20 --resolve {DENIED_HOST}:443:203.0.113.80 https://{DENIED_HOST}/"
        ));
        if direct.ok() && !direct.stdout.contains("Blocked by network policy") {
            return Err(direct.to_string());
        }
        Ok(format!("{seen:?}; the same without the proxy variables"))
    }

    /// Raw TCP, UDP and ICMP do not leave; the listeners on the host saw nothing.
    pub fn raw_traffic_stopped(&self) -> Claim {
        let (tcp, udp) = (self.canary.tcp(), self.canary.udp());
        let line = format!(
            "timeout 10 bash -c 'exec 3<>/dev/tcp/{}/{}' && echo tcp-open; \
             echo probe > /dev/udp/{}/{}; \
             timeout 10 bash -c 'exec 3<>/dev/tcp/203.0.113.9/22' && echo doc-open; \
             command -v ping || echo open-question; \
             sudo timeout 10 ping -c 1 -W 3 203.0.113.9 >/dev/null && echo icmp-answer; true",
            tcp.ip(),
            tcp.port(),
            udp.ip(),
            udp.port()
        );
        let outcome = self.inside(&line);
        let text = outcome.clone().success()?;
        if text.contains("open") || text.contains("answer") {
            return Err(outcome.to_string());
        }
        let visitors = self.canary.visitors();
        if visitors > 0 {
            return Err(format!(
                "{visitors} connections or datagrams reached the host's listeners"
            ));
        }
        Ok(format!(
            "TCP to {tcp} and UDP to {udp}: nothing arrived; ping: no answer"
        ))
    }

    /// The model's API saw the real key; the guest never holds it.
    pub fn key_stays_outside(&self) -> Claim {
        let requests = self.model.recorder().requests();
        let with_key = requests
            .iter()
            .filter(|request| request.header("x-api-key") == Some(REAL_KEY))
            .count();
        if with_key == 0 {
            return Err("the model's API never saw the real key".to_owned());
        }
        let secret = REAL_KEY.get(13..).unwrap_or(REAL_KEY);
        // The pattern is put together inside, so that the search does not find itself.
        let (head, tail) = secret.split_at(10);
        let line = format!(
            "p='{head}'; p=\"${{p}}{tail}\"; \
             env | grep -c \"$p\"; \
             sudo sh -c 'cat /proc/[0-9]*/environ 2>/dev/null' | tr '\\0' '\\n' | grep -c \"$p\"; \
             sudo cat /proc/cmdline | grep -c \"$p\"; \
             sudo grep -rl -e \"$p\" /home /root /etc /tmp /var/log /run --exclude-dir=proc 2>/dev/null | wc -l; \
             grep -rl -e \"$p\" . 2>/dev/null | wc -l; \
             q=$(printenv ANTHROPIC_API_KEY); \
             sudo sh -c 'cat /proc/[0-9]*/environ 2>/dev/null' | tr '\\0' '\\n' | grep -c -e \"$q\"; \
             echo $q"
        );
        let outcome = self.inside(&line);
        let numbers: Vec<&str> = outcome.stdout.lines().take(5).collect();
        if numbers != ["0", "0", "0", "0", "0"] {
            return Err(outcome.to_string());
        }
        // The same search finds what is there: the placeholder.
        let control = outcome
            .stdout
            .lines()
            .nth(5)
            .and_then(|line| line.parse::<u32>().ok());
        let placeholder = last(&outcome.stdout);
        if control.unwrap_or(0) == 0 || !placeholder.starts_with("sk-ant-") {
            return Err(format!(
                "the search does not find the placeholder: {outcome}"
            ));
        }
        Ok(format!(
            "the API saw the real key in {with_key} requests; inside: 0 hits in the environment, \
             /proc/*/environ, the kernel command line and files; it holds {placeholder}"
        ))
    }

    /// The policy log names what was blocked and what passed, with the reason.
    pub fn policy_log(&self) -> Claim {
        let log = self
            .installation
            .sbx(["policy", "log", &self.sandbox, "--json"])
            .json()?;
        let hosts = |key: &str| -> Vec<String> {
            let rows = log
                .get(key)
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            rows.iter()
                .filter_map(|row| row.get("host")?.as_str().map(str::to_owned))
                .collect()
        };
        let (blocked, allowed) = (hosts("blocked_hosts"), hosts("allowed_hosts"));
        let has = |rows: &[String], host: &str| rows.iter().any(|row| row.starts_with(host));
        if !has(&blocked, DENIED_HOST) || !has(&allowed, "api.anthropic.com") {
            return Err(format!("blocked {blocked:?}, allowed {allowed:?}"));
        }
        let text = log.to_string();
        for reason in ["default-deny", "udp-blocked", "icmp-blocked"] {
            if !text.contains(reason) {
                return Err(format!("no row with the reason {reason}: {log:#}"));
            }
        }
        Ok(format!(
            "blocked: {}; allowed: {}",
            blocked.join(" "),
            allowed.join(" ")
        ))
    }

    /// What the agent tells its model holds the note about its sandbox.
    pub fn note_arrived(&self) -> Claim {
        let requests = self.model.recorder().requests();
        let told = requests.iter().any(|request| {
            let body = request.body.as_ref().map(ToString::to_string);
            body.is_some_and(|body| body.contains("You are in a sandbox"))
        });
        if told {
            Ok("the first words of the note are in a request to the model".to_owned())
        } else {
            Err("no request to the model holds the note".to_owned())
        }
    }

    /// Boot and exec times, as reported by sbx.
    pub fn times(&self) -> Claim {
        let inspect = self
            .installation
            .sbx(["inspect", &self.sandbox, "--json"])
            .json()?;
        let ready = inspect
            .get("ready_ms")
            .and_then(Value::as_u64)
            .ok_or("no ready_ms")?;
        let exec = self.inside("true");
        let docker = inspect
            .get("docker")
            .and_then(Value::as_str)
            .unwrap_or("?")
            .to_owned();
        let accel = inspect
            .get("accel")
            .and_then(Value::as_str)
            .unwrap_or("?")
            .to_owned();
        Ok(format!(
            "machine start to first exec {ready} ms, an exec {} ms, docker {docker} ({accel})",
            exec.took.as_millis()
        ))
    }
}

fn read(path: &str) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))
}

fn last(text: &str) -> String {
    text.trim().lines().last().unwrap_or_default().to_owned()
}

fn first(text: &str) -> String {
    text.trim().lines().next().unwrap_or_default().to_owned()
}
