//! Endpoints with names of their own that take a key of AWS: stores with the interface of S3, endpoints inside of a VPC.

use crate::{custom, services};
use sbx_credentials::sigv4::{Endpoint, is_of_aws};
use sbx_policy::Port;
use sbx_wire::api::AwsEndpoint;
use sbx_wire::report::Report;

/// Most endpoints of a key.
const MAX_ENDPOINTS: usize = 64;

fn refused(message: String, hint: &str) -> Report {
    Report::user("endpoint-unusable", message, hint)
}

/// Reads those of a request, in canonical form, with what the user should know of them. A host is of one service and region.
pub(crate) fn of_request(
    service: &str,
    wanted: &[AwsEndpoint],
) -> Result<(Vec<AwsEndpoint>, Vec<String>), Report> {
    let mut endpoints: Vec<AwsEndpoint> = Vec::new();
    let mut notices = Vec::new();
    if !wanted.is_empty() && !services::signs(service) {
        let message = format!("{service} signs no requests, so it has no endpoints to sign for");
        return Err(refused(
            message,
            "sbx secret set aws --endpoint HOST=SERVICE/REGION",
        ));
    }
    if wanted.len() > MAX_ENDPOINTS {
        let message = format!("a key has at most {MAX_ENDPOINTS} endpoints");
        return Err(refused(
            message,
            "--endpoint with a pattern such as **.example.com",
        ));
    }
    for one in wanted {
        let (endpoint, notice) = read(one)?;
        let same = endpoints.iter().find(|known| known.host == endpoint.host);
        if same.is_some_and(|same| *same != endpoint) {
            let message = format!("{} is given two services or regions", endpoint.host);
            return Err(refused(message, "--endpoint once for each host"));
        }
        if same.is_none() {
            endpoints.push(endpoint);
            notices.extend(notice);
        }
    }
    Ok((endpoints, notices))
}

fn read(one: &AwsEndpoint) -> Result<(AwsEndpoint, Option<String>), Report> {
    let example = "--endpoint minio.example.com=s3/us-east-1";
    let mut pattern = custom::names(&one.host).map_err(|problem| refused(problem, example))?;
    pattern.port = pattern.port.filter(|port| *port != Port::HTTPS);
    // Else anybody's host is sent requests that are signed with the key.
    let caution = pattern.review();
    let caution = caution.map_err(|error| refused(error.to_string(), example))?;
    let host = pattern.to_string();
    // What is shorter than a domain of AWS, and takes it in, is too broad.
    let end = pattern.host.open_suffix();
    if is_of_aws(&end.unwrap_or_else(|| pattern.host.to_string())) {
        return Err(refused(
            format!("{host} is a name of AWS, which says itself what a request is signed for"),
            "the same command without this --endpoint: the key is good there already",
        ));
    }
    if Endpoint::own(&one.service, &one.region).is_none() {
        return Err(refused(
            format!(
                "{host} is given no service and region that can be signed for: letters, digits and '-', at most 64"
            ),
            example,
        ));
    }
    let endpoint = AwsEndpoint {
        host,
        ..one.clone()
    };
    Ok((endpoint, caution.map(|caution| caution.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(texts: &[&str]) -> Result<Vec<String>, String> {
        let wanted: Vec<AwsEndpoint> = texts.iter().map(|text| text.parse().unwrap()).collect();
        let read = of_request("aws", &wanted).map_err(|report| report.message)?;
        Ok(read.0.iter().map(AwsEndpoint::to_string).collect())
    }

    #[test]
    fn endpoints_are_names_in_canonical_form_with_a_service_and_a_region() {
        assert_eq!(
            read_all(&[
                "Store.test=s3/garage",
                "store.test:443=s3/garage",
                "**.store.test:9000=s3/us-east-1",
                "sqs.vpc.corp=sqs/eu-west-1",
            ])
            .unwrap(),
            [
                "store.test=s3/garage",
                "**.store.test:9000=s3/us-east-1",
                "sqs.vpc.corp=sqs/eu-west-1",
            ]
        );
        for (text, why) in [
            ("=s3/us-east-1", "is no host"),
            ("https://store.test=s3/us-east-1", "is no host"),
            ("192.0.2.1=s3/us-east-1", "bound to names of hosts"),
            ("localhost:9000=s3/us-east-1", "bound to names of hosts"),
            ("store.test=s3/", "service and region"),
            ("store.test=s3/us/east", "service and region"),
        ] {
            let refused = read_all(&[text]).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
        let two = read_all(&["a.test=s3/x", "A.test:443=s3/y"]).unwrap_err();
        assert!(two.contains("two services or regions"), "{two}");
        let many = vec!["a.test=s3/x"; MAX_ENDPOINTS + 1];
        assert!(read_all(&many).unwrap_err().contains("at most 64"));
    }

    #[test]
    fn names_of_aws_and_patterns_that_take_in_strangers_are_refused() {
        for text in [
            "s3.eu-west-1.amazonaws.com",
            "*.eu-west-1.amazonaws.com",
            "**.amazonaws.com",
            "amazonaws.com",
            "s3*.*.amazonaws.com",
            "sts.cn-north-1.amazonaws.com.cn",
            "**.amazonaws.eu",
            "sqs.us-east-1.api.aws",
            "**.api.amazonwebservices.eu",
            "abc.lambda-url.us-east-1.on.aws:8443",
        ] {
            let refused = read_all(&[&format!("{text}=s3/us-east-1")]).unwrap_err();
            assert!(refused.contains("is a name of AWS"), "{text}: {refused}");
        }
        for text in [
            "**", "**:443", "**.com", ".com.cn", "*.aws", "*.eu", "*.co.uk", "a*.com",
        ] {
            assert!(
                read_all(&[&format!("{text}=s3/us-east-1")]).is_err(),
                "{text}"
            );
        }
        let shared = ["**.github.io=s3/us-east-1".parse().unwrap()];
        let (_, notices) = of_request("aws", &shared).unwrap();
        assert!(notices[0].contains("names of strangers"), "{notices:?}");
    }
}
