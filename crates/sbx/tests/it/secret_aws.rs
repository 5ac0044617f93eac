//! `sbx secret set aws` at the command line: what only a key of AWS has.

use crate::world::World;

const KEY: &str = "AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

#[test]
fn endpoints_with_names_of_their_own_are_stored_with_a_key_of_aws_and_listed() {
    let world = World::with_policy();
    let set = |endpoints: &[&str]| {
        let mut arguments = vec!["secret", "set", "aws", "-f"];
        for endpoint in endpoints {
            arguments.extend(["--endpoint", endpoint]);
        }
        world.sbx_with_input(&arguments, KEY)
    };
    set(&["s3.eu-west-1.amazonaws.com=s3/eu-west-1"]).refused("is a name of AWS");
    set(&["**.com=s3/eu-west-1"]).refused("**.com");
    assert!(world.sbx(&["secret", "ls"]).ok().starts_with("No secrets"));
    set(&["store.test:9000=s3/us-east-1", "*.store.test=s3/garage"]).ok();
    let listed = world.sbx(&["secret", "ls"]).ok();
    let also = "(also for store.test:9000=s3/us-east-1, *.store.test=s3/garage)";
    assert!(listed.contains(also), "{listed}");
    assert!(!listed.contains("wJalr"), "{listed}");
    set(&[]).ok();
    let listed = world.sbx(&["secret", "ls"]).ok();
    assert!(!listed.contains("store.test"), "{listed}");
}

#[test]
fn keys_that_end_soon_are_asked_for_with_a_role_and_a_region_and_said_to_be_inside() {
    let world = World::with_policy();
    let set = |arguments: &[&str]| {
        let all = [&["secret", "set", "aws", "-f"], arguments].concat();
        world.sbx_with_input(&all, KEY)
    };
    let china = "arn:aws-cn:iam::123456789012:role/agents";
    for (arguments, why) in [
        (
            &["--short-lived", "--role", "agents"][..],
            "is no ARN of a role",
        ),
        (
            &["--short-lived", "--sts-region", "nowhere"],
            "is no region that has an STS",
        ),
        // Both are heard: the role is of another part of AWS than the region, the usual one or the named one.
        (&["--short-lived", "--role", china], "us-east-1 is in"),
        (
            &[
                "--short-lived",
                "--role",
                china,
                "--sts-region",
                "eu-west-1",
            ],
            "eu-west-1 is in",
        ),
    ] {
        set(arguments).refused(why);
    }
    assert!(world.sbx(&["secret", "ls"]).ok().starts_with("No secrets"));
    let done = set(&[
        "--short-lived",
        "--role",
        china,
        "--sts-region",
        "cn-north-1",
    ]);
    let warned = done.stderr.contains("programs there can read them");
    assert!(done.code == 0 && warned, "{done:?}");
    assert!(!done.stdout.contains("wJalr"), "{done:?}");
    let listed = world.sbx(&["secret", "ls"]).ok();
    assert!(listed.contains("(keys of 15 minutes inside)"), "{listed}");
    // Stored again without it, none are handed in.
    let done = set(&[]);
    assert!(
        done.code == 0 && !done.stderr.contains("15 minutes"),
        "{done:?}"
    );
    let listed = world.sbx(&["secret", "ls"]).ok();
    assert!(!listed.contains("15 minutes"), "{listed}");
}

#[test]
fn keys_that_end_soon_are_of_aws_alone_and_their_flags_need_each_other() {
    let world = World::with_policy();
    world
        .sbx_with_input(
            &["secret", "set", "github", "--short-lived"],
            "ghp_0123456789",
        )
        .refused("github has no keys that end soon");
    let login = ["--registry", "a.test", "--username", "u", "--short-lived"];
    for arguments in [
        &["aws", "--role", "arn:aws:iam::123456789012:role/agents"][..],
        &["aws", "--sts-region", "eu-west-1"],
        &["openai", "--oauth", "--short-lived"],
        &login,
    ] {
        let done = world.sbx(&[&["secret", "set"], arguments].concat());
        assert_eq!(done.code, 2, "{arguments:?} {done:?}");
    }
    assert!(world.sbx(&["secret", "ls"]).ok().starts_with("No secrets"));
}
