//! Workspaces at their own absolute paths, owned by the agent inside and by the user outside.

use crate::setting::Setting;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

#[test]
fn the_owner_appears_as_uid_1000_and_its_files_are_its_own() {
    let setting = Setting::ordinary("deny-all");
    let workspace = setting.shell("mine");
    owner_is_agent(&setting, "mine", &workspace);
    assert_eq!(
        setting.inside("mine", "ls -A .."),
        "work-mine\n",
        "parents are empty scaffolds"
    );
    // A second, read-only workspace, enforced outside.
    let extra = setting.installation.folder("extra").unwrap();
    setting
        .installation
        .write(&extra.join("given"), b"given")
        .unwrap();
    let (work, extra_ro) = (
        workspace.display().to_string(),
        format!("{}:ro", extra.display()),
    );
    setting
        .installation
        .sbx([
            "create", "shell", &work, &extra_ro, "--name", "both", "--memory", "1g",
        ])
        .success()
        .unwrap();
    let dir = extra.display();
    assert_eq!(setting.inside("both", &format!("cat {dir}/given")), "given");
    let tried = setting.installation.inside(
        "both",
        &format!("sudo mount -o remount,rw {dir}; sudo touch {dir}/new; sudo rm {dir}/given"),
    );
    assert!(!tried.ok(), "{tried}");
    assert!(extra.join("given").exists() && !extra.join("new").exists());
}

#[test]
fn root_on_the_host_appears_as_uid_1000_too_below_root_tmp_and_home_agent() {
    let Some(setting) = Setting::as_root("deny-all") else {
        println!("not root: the share's own tests run as other users");
        return;
    };
    for (name, path) in [
        ("inroot", "/root/sbx-e2e-workspace"),
        ("intmp", "/tmp/sbx-e2e-workspace"),
        ("inhome", "/home/agent/sbx-e2e-workspace"),
    ] {
        let path = Path::new(path);
        let made_parent = !path.parent().unwrap().exists();
        std::fs::create_dir_all(path).unwrap();
        setting
            .installation
            .sbx([
                "create",
                "shell",
                &path.display().to_string(),
                "--name",
                name,
                "--memory",
                "1g",
            ])
            .success()
            .unwrap();
        owner_is_agent(&setting, name, path);
        setting
            .installation
            .sbx(["rm", "--force", name])
            .success()
            .unwrap();
        std::fs::remove_dir_all(path).unwrap();
        if made_parent {
            std::fs::remove_dir(path.parent().unwrap()).unwrap();
        }
    }
}

/// Create, append, chmod, rename, truncate and times work as the agent and as the guest's root; outside the
/// files belong to the user.
fn owner_is_agent(setting: &Setting, name: &str, workspace: &Path) {
    setting
        .installation
        .write(&workspace.join("host-made"), b"from outside\n")
        .unwrap();
    let line = "pwd; stat -c '%u %g' . host-made; echo more >> host-made; chmod 700 host-made; \
                echo new > new; mv new renamed; : > empty; truncate -s 10 empty; touch -d 2001-01-01 empty; \
                sudo sh -c 'echo by root > by-root'; stat -c %u by-root; git init -q . && git status --short | wc -l";
    let seen = setting.inside(name, line);
    let path = workspace.display();
    assert_eq!(
        seen,
        format!("{path}\n1000 1000\n1000 1000\n1000\n4\n"),
        "in {path}"
    );
    let uid = setting.installation.uid();
    for file in ["host-made", "renamed", "empty", "by-root"] {
        assert_eq!(
            std::fs::metadata(workspace.join(file)).unwrap().uid(),
            uid,
            "{file}"
        );
    }
    assert_eq!(
        std::fs::metadata(workspace.join("empty")).unwrap().len(),
        10
    );
    // What changes outside shows inside.
    setting
        .installation
        .write(&workspace.join("host-made"), b"changed outside\n")
        .unwrap();
    assert_eq!(
        setting.inside(name, "sleep 1.1; cat host-made"),
        "changed outside\n"
    );
}
