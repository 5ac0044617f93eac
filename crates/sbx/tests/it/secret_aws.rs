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
