//! Two sandboxes side by side.

use crate::setting::Setting;

#[test]
fn two_sandboxes_have_engines_of_their_own_and_cannot_reach_each_other() {
    let setting = Setting::ordinary("allow-all");
    setting.shell("one");
    setting.shell("two");
    setting.inside("one", "docker volume create of-one");
    assert_eq!(setting.inside("one", "docker volume ls -q"), "of-one\n");
    assert_eq!(setting.inside("two", "docker volume ls -q"), "");
    assert_ne!(
        setting.inside("one", "cat /etc/machine-id"),
        setting.inside("two", "cat /etc/machine-id")
    );

    // A server in one; the other tries every address it can know, under a policy that allows everything.
    let serve = "nohup python3 -m http.server 8000 --bind 0.0.0.0 >/dev/null 2>&1 & \
                 for i in $(seq 100); do curl -s -o /dev/null http://127.0.0.1:8000 && break; sleep 0.1; done; \
                 ip -4 -o addr show eth0 | awk '{print $4}' | cut -d/ -f1";
    let address = setting.inside("one", serve).trim().to_owned();
    let try_line = format!(
        "for a in {address} 192.168.127.1 192.168.127.2 host.docker.internal one; do \
         curl -s --noproxy '*' -m 5 -o /dev/null http://$a:8000/ && echo reached $a; \
         curl -s -m 5 -o /dev/null -w '%{{http_code}}\\n' http://$a:8000/ | grep -q '^200' && echo proxied $a; done; true"
    );
    assert_eq!(setting.inside("two", &try_line), "");
    assert!(
        setting
            .inside("one", "curl -s http://127.0.0.1:8000/ | head -c 9")
            .starts_with("<!DOCTYPE")
    );
}
