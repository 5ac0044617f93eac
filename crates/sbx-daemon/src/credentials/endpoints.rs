//! Endpoints with names of their own that a key of AWS is bound to, in what a gateway is given.

use super::InForce;
use sbx_wire::api::AwsEndpoint;
use sbx_wire::gateway::{AwsScope, Credential};

fn all<'a>(found: &InForce<'a>) -> &'a [AwsEndpoint] {
    let mut secrets = found.services.values();
    let endpoints =
        secrets.find_map(|(service, secret)| service.signs().then(|| secret.kind.endpoints()));
    endpoints.unwrap_or_default()
}

/// Their hosts.
pub(super) fn hosts(found: &InForce<'_>) -> impl Iterator<Item = String> {
    all(found).iter().map(|one| one.host.clone())
}

/// One more credential for each service and region, otherwise as that of AWS's hosts, which is among these.
pub(super) fn credentials(found: &InForce<'_>, credentials: &[Credential]) -> Vec<Credential> {
    let mut signing = credentials.iter().filter(|one| one.aws.is_some());
    // Nobody said that bodies there quote what the agent has seen.
    let Some(base) = signing.find(|one| !one.conversation) else {
        return Vec::new();
    };
    let mut own: Vec<Credential> = Vec::new();
    for endpoint in all(found) {
        let scope = AwsScope {
            service: endpoint.service.clone(),
            region: endpoint.region.clone(),
        };
        let is_same = |one: &Credential| {
            let aws = one.aws.as_ref();
            aws.is_some_and(|aws| aws.scope.as_ref() == Some(&scope))
        };
        // The first that is given goes above the others, so only neighbours share one.
        if let Some(last) = own.last_mut().filter(|one| is_same(one)) {
            last.hosts.push(endpoint.host.clone());
            continue;
        }
        let mut one = base.clone();
        one.hosts = vec![endpoint.host.clone()];
        one.aws = one.aws.map(|aws| sbx_wire::gateway::Aws {
            scope: Some(scope),
            ..aws
        });
        own.push(one);
    }
    own
}
