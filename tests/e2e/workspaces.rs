//! Workspaces at their own absolute paths, owned by the agent inside and by the user outside.

use crate::setting::{Setting, alive};
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
    // Each has a process of its own.
    let servers = ["share0", "share1"].map(|role| setting.process("both", role));
    assert!(servers[0] != servers[1] && servers.into_iter().all(alive));
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
        setting.inside(name, "sleep 1; cat host-made"),
        "changed outside\n"
    );
}

#[test]
fn workspaces_may_lie_in_one_another_be_files_and_be_shared_by_two_sandboxes() {
    let setting = Setting::ordinary("deny-all");
    let outer = setting.installation.folder("outer").unwrap();
    let write = |path: &Path, text: &[u8]| setting.installation.write(path, text).unwrap();
    std::fs::create_dir_all(outer.join("inner/kept")).unwrap();
    std::fs::create_dir_all(outer.join("open")).unwrap();
    write(&outer.join("inner/kept/f"), b"kept");
    let aside = setting.installation.folder("aside").unwrap();
    write(&aside.join("one.conf"), b"first");
    write(&aside.join("other.conf"), b"not shared");
    setting.installation.own_all(&outer).unwrap();
    let paths = [
        outer.display().to_string(),
        format!("{}:ro", outer.join("inner").display()),
        outer.join("open").display().to_string(),
        format!("{}:ro", aside.join("one.conf").display()),
    ];
    let mut create = vec!["create", "shell"];
    create.extend(paths.iter().map(String::as_str));
    create.extend(["--name", "nested", "--memory", "1g"]);
    setting.installation.sbx(create).success().unwrap();

    nested_stays_read_only(&setting, &outer);
    one_file_only(&setting, &aside);

    // A second sandbox on the same directory: both see each other's files.
    let again = [
        "create", "shell", &paths[0], "--name", "second", "--memory", "1g",
    ];
    setting.installation.sbx(again).success().unwrap();
    setting.inside("nested", "echo one > from-first");
    let seen = "for i in $(seq 50); do cat from-first 2>/dev/null && break; sleep 0.1; done; echo two > from-second";
    assert_eq!(setting.inside("second", seen), "one\n");
    let seen = "for i in $(seq 50); do cat from-second 2>/dev/null && break; sleep 0.1; done";
    assert_eq!(setting.inside("nested", seen), "two\n");
}

/// A read-only workspace in a writable one cannot be written through that one either.
fn nested_stays_read_only(setting: &Setting, outer: &Path) {
    assert_eq!(
        setting.inside("nested", "echo w > open/new; cat inner/kept/f"),
        "kept"
    );
    assert!(outer.join("open/new").exists());
    for line in [
        "echo evil > inner/kept/f",
        "sudo mount -o remount,rw $PWD/inner; sudo sh -c 'echo evil > inner/kept/f'",
        "sudo umount inner && echo evil > inner/kept/f",
        "sudo umount inner 2>/dev/null; rm inner/kept/f",
        "sudo umount inner 2>/dev/null; mv inner elsewhere",
        "sudo umount inner 2>/dev/null; mkdir inner/new",
    ] {
        let tried = setting.installation.inside("nested", line);
        assert!(!tried.ok(), "{line}: {tried}");
    }
    let kept = std::fs::read(outer.join("inner/kept/f")).unwrap();
    assert_eq!(kept, b"kept");
    assert!(!outer.join("elsewhere").exists() && !outer.join("inner/new").exists());
}

/// A file comes without its neighbours, is replaced when the host replaces it, and is not written.
fn one_file_only(setting: &Setting, aside: &Path) {
    let dir = aside.display();
    assert_eq!(
        setting.inside("nested", &format!("ls -A {dir}; cat {dir}/one.conf")),
        "one.conf\nfirst"
    );
    let new = aside.join("new");
    setting.installation.write(&new, b"second").unwrap();
    std::fs::rename(new, aside.join("one.conf")).unwrap();
    let seen = format!(
        "for i in $(seq 50); do grep -q second {dir}/one.conf && break; sleep 0.1; done; cat {dir}/one.conf"
    );
    assert_eq!(setting.inside("nested", &seen), "second");
    let tried = format!("sudo sh -c 'echo evil > {dir}/one.conf'");
    assert!(!setting.installation.inside("nested", &tried).ok());
    let neighbour = "sudo cat /run/sbx/files/*/other.conf";
    assert!(!setting.installation.inside("nested", neighbour).ok());
    let one = std::fs::read(aside.join("one.conf")).unwrap();
    assert_eq!(one, b"second");
}
