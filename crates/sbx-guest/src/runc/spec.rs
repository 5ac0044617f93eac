//! Changes to the documents about a container (OCI runtime specification 1.0: `config.json`) and about a
//! program in it (`process.json`). Each says whether it changed anything; an odd document is not touched.

use sbx_wire::trust::{BUNDLE_VARIABLES, JAVA_OPTIONS, JAVA_PROPERTY, java_option};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Where a container finds its bundle, PEM.
const BUNDLE: &str = "/dev/sbx/roots.pem";
/// Where a container finds its roots as a Java key store.
const JAVA_STORE: &str = "/dev/sbx/roots.jks";

/// What to give to a container.
#[derive(Debug)]
pub(super) struct Roots {
    /// PEM file.
    pub(super) bundle: PathBuf,
    /// Java key store.
    pub(super) java: Option<PathBuf>,
}

/// The root file system, absolute or relative to the bundle's folder.
pub(super) fn rootfs(config: &Value) -> Option<&Path> {
    config.pointer("/root/path")?.as_str().map(Path::new)
}

fn text<'a>(mount: &'a Value, key: &str) -> Option<&'a Path> {
    mount.get(key)?.as_str().map(Path::new)
}

fn is_bind(mount: &Value) -> bool {
    mount.get("type").and_then(Value::as_str) == Some("bind")
}

/// Where something of the machine is mounted, and what, in order.
pub(super) fn binds(config: &Value) -> Vec<(PathBuf, PathBuf)> {
    let mounts = config.get("mounts").and_then(Value::as_array);
    let mounts = mounts.into_iter().flatten().filter(|mount| is_bind(mount));
    let binds = mounts.filter_map(|mount| {
        let source = text(mount, "source").filter(|source| source.is_absolute())?;
        Some((text(mount, "destination")?.to_owned(), source.to_owned()))
    });
    binds.collect()
}

/// Mounts the roots and points the container's first program to them.
pub(super) fn add_roots(config: &mut Value, roots: &Roots) -> bool {
    let java = roots.java.is_some();
    let mut changed = config.clone();
    let Some(mounts) = changed.get_mut("mounts").and_then(Value::as_array_mut) else {
        return false;
    };
    let at =
        |mount: &Value, known: fn(&Path) -> bool| text(mount, "destination").is_some_and(known);
    let dev = |path: &Path| path == Path::new("/dev");
    let mut devs = mounts.iter().filter(|mount| at(mount, dev)).peekable();
    // Anywhere else the mount point would be made in the image, or in a folder of the user's.
    if devs.peek().is_none()
        || !devs.all(|mount| mount.get("type").and_then(Value::as_str) == Some("tmpfs"))
        || mounts
            .iter()
            .any(|mount| at(mount, |path| path.starts_with("/dev/sbx")))
    {
        return false;
    }
    for (path, source) in [
        (BUNDLE, Some(&roots.bundle)),
        (JAVA_STORE, roots.java.as_ref()),
    ] {
        if let Some(source) = source {
            mounts.push(json!({
                "destination": path,
                "type": "bind",
                "source": source,
                "options": ["bind", "ro", "nosuid", "nodev", "noexec", "rprivate"],
            }));
        }
    }
    let pointed = changed
        .get_mut("process")
        .is_some_and(|process| add_variables(process, java));
    if pointed {
        *config = changed;
    }
    pointed
}

/// Lets what is mounted below a share later reach the container: directories of the sandbox's own that appear
/// ([`sbx_workspace::late_mask`]). Nothing goes the other way. Whoever asked for more than `rprivate`, which is Docker's
/// word for nothing, keeps it; and what is read-only stays so, which a directory that is mounted later would not be.
pub(super) fn follow_shares(config: &mut Value, shares: &[PathBuf]) -> bool {
    let Some(mounts) = config.get_mut("mounts").and_then(Value::as_array_mut) else {
        return false;
    };
    let mut changed = false;
    for mount in mounts {
        let source = text(mount, "source");
        let shared = |source: &Path| {
            let related = |share: &PathBuf| source.starts_with(share) || share.starts_with(source);
            source.is_absolute() && shares.iter().any(related)
        };
        if !is_bind(mount) || !source.is_some_and(shared) {
            continue;
        }
        let options = mount.get_mut("options").and_then(Value::as_array_mut);
        let Some(options) = options else { continue };
        if options
            .iter()
            .any(|option| option == "ro" || option == "rro")
        {
            continue;
        }
        for option in options {
            if option == "rprivate" {
                *option = "rslave".into();
                changed = true;
            }
        }
    }
    changed
}

/// Whether the container with this state has our roots, and then whether it has the Java key store.
pub(super) fn mounted(state: &Value) -> Option<bool> {
    let mounts = state.pointer("/config/mounts")?.as_array()?;
    let has = |path: &str| {
        mounts
            .iter()
            .any(|mount| mount.get("destination").and_then(Value::as_str) == Some(path))
    };
    has(BUNDLE).then(|| has(JAVA_STORE))
}

/// Points a program to the roots. What the container sets itself stays.
pub(super) fn add_variables(process: &mut Value, java: bool) -> bool {
    let Some(process) = process.as_object_mut() else {
        return false;
    };
    let env = process.entry("env").or_insert_with(|| json!([]));
    if env.is_null() {
        *env = json!([]);
    }
    let Some(env) = env.as_array_mut() else {
        return false;
    };
    if !env.iter().all(Value::is_string) {
        return false;
    }
    // Python's requests looks at curl's variable where its own is not set.
    let curl = position(env, "CURL_CA_BUNDLE").is_some();
    for name in BUNDLE_VARIABLES {
        let instead = curl && name == "REQUESTS_CA_BUNDLE";
        if position(env, name).is_none() && !instead {
            env.push(format!("{name}={BUNDLE}").into());
        }
    }
    if java {
        let option = java_option(JAVA_STORE);
        match position(env, JAVA_OPTIONS) {
            None => env.push(format!("{JAVA_OPTIONS}={option}").into()),
            // Options of the container stay in front of ours, unless they name a store.
            Some(at) => {
                let own = env[at].as_str().unwrap_or_default();
                if !own.contains(JAVA_PROPERTY) {
                    env[at] = format!("{own} {option}").into();
                }
            }
        }
    }
    true
}

/// The entry that counts: of several with one name, programs read the first or the last.
fn position(env: &[Value], name: &str) -> Option<usize> {
    env.iter().rposition(|entry| {
        let entry = entry.as_str().unwrap_or_default();
        entry
            .strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('='))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots() -> Roots {
        Roots {
            bundle: "/run/sbx/b.pem".into(),
            java: Some("/run/sbx/roots.jks".into()),
        }
    }

    fn config(env: &Value) -> Value {
        json!({
            "ociVersion": "1.2.0",
            "process": { "args": ["/bin/true"], "env": env, "rlimits": [{ "hard": u64::MAX }] },
            "root": { "path": "rootfs" },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
            ],
        })
    }

    fn variable<'a>(document: &'a Value, name: &str) -> Vec<&'a str> {
        let env = document.pointer("/process/env").or(document.get("env"));
        let entries = env.unwrap().as_array().unwrap().iter();
        let entries = entries.filter_map(|entry| entry.as_str()?.split_once('='));
        entries
            .filter(|(found, _)| *found == name)
            .map(|(_, value)| value)
            .collect()
    }

    #[test]
    fn mounts_of_shares_follow_what_is_mounted_later_and_others_do_not() {
        let mount = |source: &str, options: &[&str]| json!({ "destination": "/d", "type": "bind", "source": source, "options": options });
        let shares = ["/w/project".into(), "/x".into()];
        let mut document = config(&json!([]));
        let mounts = |document: &Value| document["mounts"].as_array().unwrap().clone();
        let before = mounts(&document).len();
        for source in [
            "/w/project",
            "/w/project/sub",
            "/w",
            "/w/projects",
            "/var/lib/docker/v",
        ] {
            let list = document["mounts"].as_array_mut().unwrap();
            list.push(mount(source, &["rbind", "rprivate"]));
        }
        let list = document["mounts"].as_array_mut().unwrap();
        list.push(mount("/x", &["rbind", "rshared"]));
        list.push(mount("/x", &["rbind", "rprivate", "ro"]));
        assert!(follow_shares(&mut document, &shares));
        let words: Vec<_> = mounts(&document)
            .iter()
            .skip(before)
            .map(|mount| mount["options"][1].as_str().unwrap().to_owned())
            .collect();
        let [slave, own] = ["rslave", "rprivate"];
        assert_eq!(words, [slave, slave, slave, own, own, "rshared", own]);
        assert!(!follow_shares(&mut document, &shares), "once is enough");
        assert!(!follow_shares(&mut json!({ "mounts": 1 }), &shares));
    }

    #[test]
    fn container_gets_both_files_and_the_variables_and_nothing_else_changes() {
        let before = config(&json!(["PATH=/bin"]));
        let mut after = before.clone();
        assert!(add_roots(&mut after, &roots()));
        let mounts = after["mounts"].as_array().unwrap();
        assert_eq!(mounts[2]["destination"], "/dev/sbx/roots.pem");
        assert_eq!(mounts[2]["source"], "/run/sbx/b.pem");
        assert_eq!(mounts[3]["destination"], "/dev/sbx/roots.jks");
        assert!(
            mounts[2]["options"]
                .as_array()
                .unwrap()
                .contains(&"ro".into())
        );
        assert_eq!(variable(&after, "SSL_CERT_FILE"), ["/dev/sbx/roots.pem"]);
        let java = "-Djavax.net.ssl.trustStore=/dev/sbx/roots.jks";
        assert_eq!(variable(&after, "JAVA_TOOL_OPTIONS"), [java]);
        assert_eq!(variable(&after, "PATH"), ["/bin"]);
        after["mounts"].as_array_mut().unwrap().truncate(2);
        after["process"]["env"].as_array_mut().unwrap().truncate(1);
        assert_eq!(after, before);
    }

    #[test]
    fn variables_of_the_container_stay() {
        let own = json!([
            "SSL_CERT_FILE=/own.pem",
            "REQUESTS_CA_BUNDLE=",
            "JAVA_TOOL_OPTIONS=-Xmx1g",
        ]);
        let mut document = config(&own);
        assert!(add_roots(&mut document, &roots()));
        assert_eq!(variable(&document, "SSL_CERT_FILE"), ["/own.pem"]);
        assert_eq!(variable(&document, "REQUESTS_CA_BUNDLE"), [""]);
        let mut document = config(&json!(["CURL_CA_BUNDLE=/own.pem"]));
        assert!(add_roots(&mut document, &roots()));
        assert_eq!(variable(&document, "CURL_CA_BUNDLE"), ["/own.pem"]);
        assert_eq!(variable(&document, "REQUESTS_CA_BUNDLE"), [""; 0]);
        let mut document = config(&own);
        assert!(add_roots(&mut document, &roots()));
        let both = "-Xmx1g -Djavax.net.ssl.trustStore=/dev/sbx/roots.jks";
        assert_eq!(variable(&document, "JAVA_TOOL_OPTIONS"), [both]);
        let store = "-Djavax.net.ssl.trustStore=/own.jks";
        let mut document = config(&json!([format!("JAVA_TOOL_OPTIONS={store}")]));
        assert!(add_roots(&mut document, &roots()));
        assert_eq!(variable(&document, "JAVA_TOOL_OPTIONS"), [store]);
    }

    #[test]
    fn odd_documents_are_not_touched() {
        let mut no_dev = config(&json!([]));
        no_dev["mounts"].as_array_mut().unwrap().truncate(1);
        let mut taken = config(&json!([]));
        let mount = json!({ "destination": "/dev/sbx", "type": "bind", "source": "/x" });
        taken["mounts"].as_array_mut().unwrap().push(mount);
        let mut users = config(&json!([]));
        let mount = json!({ "destination": "/dev/", "type": "bind", "source": "/w/dev" });
        users["mounts"].as_array_mut().unwrap().push(mount);
        let mut users_alone = users.clone();
        users_alone["mounts"].as_array_mut().unwrap().remove(1);
        let mut no_process = config(&json!([]));
        no_process.as_object_mut().unwrap().remove("process");
        let odd = [
            no_dev,
            taken,
            users,
            users_alone,
            no_process,
            config(&json!([1])),
            config(&json!("PATH=/bin")),
            json!({ "mounts": {} }),
            json!([]),
            json!(null),
        ];
        for before in odd {
            let mut after = before.clone();
            assert!(!add_roots(&mut after, &roots()), "{before}");
            assert_eq!(after, before);
        }
    }

    #[test]
    fn program_in_a_container_is_pointed_to_the_roots_only_if_they_are_mounted() {
        let state = |paths: &[&str]| {
            let mounts: Vec<Value> = paths
                .iter()
                .map(|path| json!({ "destination": path }))
                .collect();
            json!({ "config": { "mounts": mounts } })
        };
        assert_eq!(mounted(&state(&["/dev"])), None);
        assert_eq!(mounted(&json!({})), None);
        assert_eq!(mounted(&state(&["/dev", BUNDLE])), Some(false));
        assert_eq!(mounted(&state(&[BUNDLE, JAVA_STORE])), Some(true));
        let mut process = json!({ "args": ["env"], "env": null });
        assert!(add_variables(&mut process, false));
        assert_eq!(variable(&process, "PIP_CERT"), ["/dev/sbx/roots.pem"]);
        assert_eq!(variable(&process, "JAVA_TOOL_OPTIONS"), [""; 0]);
    }
}
