//! Installation inside the sandbox, for agents that no package registry carries.

use crate::Agent;
use crate::row::Install;
use sbx_wire::guest::GuestFile;

/// Folder of the launcher.
pub(crate) const BIN: &str = "/usr/local/bin";

/// What installs the agent if need be and then becomes it, under the name of its program. It is written anew at
/// every start of the machine. The agent's own program comes before it in `PATH`, or is found in it elsewhere.
pub(crate) fn launcher(agent: Agent) -> Option<GuestFile> {
    let Install::Inside(recipe) = &agent.install else {
        return None;
    };
    Some(GuestFile {
        path: format!("{BIN}/{}", recipe.program),
        content: script(agent, recipe.program, recipe.script).into_bytes(),
        mode: 0o755,
        owner: 0,
        only_if_missing: false,
    })
}

/// With `pipefail` a download that fails is not hidden by the shell that it is piped to.
fn script(agent: Agent, program: &str, recipe: &str) -> String {
    let (title, name, hosts) = (agent.title, agent.name, agent.network.join(" "));
    let rules = agent.network.join(",");
    format!(
        r#"#!/bin/bash
installed() {{ type -ap {program} | grep -vxF "$0" | head -n 1; }}
if [ -z "$(installed)" ]; then
    echo "sbx: installing {title} in this sandbox, from: {hosts}" >&2
    echo "sbx: this recipe was never run in the tests of sbx" >&2
    (
        set -e -o pipefail
        cd "$HOME"
        {recipe}
    ) </dev/null >&2
    done=$?
    if [ $done -ne 0 ] || [ -z "$(installed)" ]; then
        echo "error: {title} could not be installed" >&2
        echo "  try: on the host, sbx policy log shows what was blocked; to allow it:" >&2
        echo "       sbx policy allow network {rules}   and then sbx run --name $SANDBOX_NAME {name}" >&2
        exit 1
    fi
fi
exec "$(installed)" "$@"
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Output};

    /// Runs the launcher of a recipe with a program that it might install.
    fn run(recipe: &str, home: &std::path::Path) -> Output {
        let agent: Agent = "cursor".parse().unwrap();
        let text = script(agent, "cursor-agent", recipe);
        let (bin, system) = (home.join("bin"), home.join("system"));
        for dir in [&bin, &system] {
            std::fs::create_dir_all(dir).unwrap();
        }
        let launcher = system.join("cursor-agent");
        std::fs::write(&launcher, text).unwrap();
        std::fs::set_permissions(&launcher, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}:/usr/bin:/bin", system.display(), bin.display());
        Command::new("bash")
            .arg(&launcher)
            .arg("--yolo")
            .env_clear()
            .env("PATH", path)
            .env("HOME", home)
            .env("SANDBOX_NAME", "box")
            .output()
            .unwrap()
    }

    const INSTALLS: &str = "printf '#!/bin/sh\\necho started \"$@\"\\n' >bin/cursor-agent\n\
                            chmod 755 bin/cursor-agent; echo once >>log";

    #[test]
    fn recipe_runs_once_and_the_agent_is_started_with_its_flags() {
        let home = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let output = run(INSTALLS, home.path());
            assert_eq!(output.stdout, b"started --yolo\n", "{output:?}");
        }
        let log = std::fs::read_to_string(home.path().join("log")).unwrap();
        assert_eq!(log, "once\n");
    }

    #[test]
    fn recipe_that_fails_or_installs_nothing_says_what_helps() {
        for recipe in ["false | true", "true", "exit 3"] {
            let home = tempfile::tempdir().unwrap();
            let output = run(recipe, home.path());
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{recipe}: {said}");
            assert!(
                said.contains("sbx policy allow network cursor.com,")
                    && said.contains("sbx run --name box cursor"),
                "{recipe}: {said}"
            );
        }
    }
}
