//! Which region and service a host is of.

use sbx_credentials::sigv4::{Endpoint, Refusal, is_of_aws};

/// Host, service, region.
const KNOWN: &[&str] = &[
    "dynamodb.eu-west-1.amazonaws.com dynamodb eu-west-1",
    "bedrock-runtime.us-east-1.amazonaws.com bedrock us-east-1",
    "bedrock-runtime-fips.us-gov-west-1.amazonaws.com bedrock us-gov-west-1",
    "bedrock.ap-southeast-2.amazonaws.com bedrock ap-southeast-2",
    "sts.amazonaws.com sts us-east-1",
    "sts.eu-central-1.amazonaws.com sts eu-central-1",
    "sts-fips.us-east-2.amazonaws.com sts us-east-2",
    "iam.amazonaws.com iam us-east-1",
    "iam.global.api.aws iam us-east-1",
    "iam.us-gov.amazonaws.com iam us-gov-west-1",
    "iam.cn-north-1.amazonaws.com.cn iam cn-north-1",
    "cloudfront.amazonaws.com cloudfront us-east-1",
    "route53.amazonaws.com.cn route53 cn-northwest-1",
    "organizations.us-east-1.amazonaws.com organizations us-east-1",
    "s3.amazonaws.com s3 us-east-1",
    "s3.eu-west-1.amazonaws.com s3 eu-west-1",
    "s3-eu-west-1.amazonaws.com s3 eu-west-1",
    "bucket.s3.amazonaws.com s3 us-east-1",
    "my.bucket.s3.us-west-2.amazonaws.com s3 us-west-2",
    "bucket.s3-us-west-2.amazonaws.com s3 us-west-2",
    "bucket.s3.dualstack.us-west-2.amazonaws.com s3 us-west-2",
    "bucket.s3-fips.dualstack.us-west-2.amazonaws.com s3 us-west-2",
    "bucket.s3.cn-north-1.amazonaws.com.cn s3 cn-north-1",
    "name-123456789012.s3-accesspoint.us-west-2.amazonaws.com s3 us-west-2",
    "123456789012.s3-control.us-west-2.amazonaws.com s3 us-west-2",
    "name-123456789012.op-1.s3-outposts.us-west-2.amazonaws.com s3-outposts us-west-2",
    "sqs.us-east-1.api.aws sqs us-east-1",
    "sqs.cn-north-1.api.amazonwebservices.com.cn sqs cn-north-1",
    "dynamodb.eusc-de-east-1.amazonaws.eu dynamodb eusc-de-east-1",
    "vpce-0a1b2c3d-e4f5.sqs.us-east-1.vpce.amazonaws.com sqs us-east-1",
    "bucket.vpce-0a1b2c3d.s3.us-east-1.vpce.amazonaws.com s3 us-east-1",
    "runtime.sagemaker.us-east-1.amazonaws.com sagemaker us-east-1",
    "api.ecr.us-east-1.amazonaws.com ecr us-east-1",
    "email.us-east-1.amazonaws.com ses us-east-1",
    "portal.sso.eu-west-1.amazonaws.com awsssoportal eu-west-1",
    "streams.dynamodb.us-east-1.amazonaws.com dynamodb us-east-1",
    "a1b2.execute-api.us-east-1.amazonaws.com execute-api us-east-1",
    "a1b2-ats.iot.us-east-1.amazonaws.com iotdata us-east-1",
    "search-x-1a2b.us-east-1.es.amazonaws.com es us-east-1",
    "abc.lambda-url.us-east-1.on.aws lambda us-east-1",
];

#[test]
fn hosts_name_their_service_and_region() {
    for row in KNOWN {
        let mut words = row.split(' ');
        let (host, service, region) = (words.next(), words.next(), words.next());
        let host = host.unwrap();
        let endpoint = Endpoint::of(host).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(
            (Some(endpoint.service()), Some(endpoint.region())),
            (service, region),
            "{host}"
        );
    }
}

#[test]
fn other_forms_are_of_no_service() {
    for host in [
        "",
        "amazonaws.com",
        ".amazonaws.com",
        "us-east-1.amazonaws.com",
        "sts.us-east-1.amazonaws.com.evil.test",
        "sts.us-east-1.notamazonaws.com",
        "sts.us-east-1.amazonaws.com.",
        "STS.us-east-1.amazonaws.com",
        "sts.us-east.amazonaws.com",
        "sts.cn-north-1.amazonaws.com",
        "sts.us-east-1.amazonaws.com.cn",
        "sts.us-east-1.amazonaws.eu",
        "sts.eusc-de-east-1.amazonaws.com",
        "sts.eusc-de-east-1.api.aws",
        "sts.us-iso-east-1.amazonaws.com",
        "evil.sts.us-east-1.amazonaws.com",
        "sts.evil.us-east-1.amazonaws.com",
        "bucket.s3-accelerate.amazonaws.com",
        "bucket--use1-az4--x-s3.s3express-use1-az4.us-east-1.amazonaws.com",
        "abc.accesspoint.s3-global.amazonaws.com",
        "bucket.s3-website-us-east-1.amazonaws.com",
        "123456789012.dkr.ecr.us-east-1.amazonaws.com",
        "AB12.gr7.us-east-1.eks.amazonaws.com",
        "ab12.gr7.us-east-1.eks.amazonaws.com",
        "db.cluster-ab12.us-east-1.rds.amazonaws.com",
        "-fips.us-east-1.amazonaws.com",
        ".execute-api.us-east-1.amazonaws.com",
        "sqs.us-east-1.vpce.amazonaws.com",
        "lambda-url.us-east-1.on.aws",
        "api.test",
    ] {
        let error = Endpoint::of(host).unwrap_err();
        assert_eq!(error, Refusal::UnknownHost(host.to_owned()));
    }
}

#[test]
fn a_host_says_which_part_of_aws_it_is_in() {
    for (host, partition) in [
        ("sts.us-east-1.amazonaws.com", "aws"),
        ("sts.us-gov-east-1.amazonaws.com", "aws-us-gov"),
        ("iam.cn-north-1.amazonaws.com.cn", "aws-cn"),
        ("sqs.eusc-de-east-1.api.amazonwebservices.eu", "aws-eusc"),
    ] {
        assert_eq!(Endpoint::of(host).unwrap().partition(), partition);
    }
}

#[test]
fn what_is_aws_s_is_known_by_its_domain_also_where_it_is_of_no_service() {
    let known = KNOWN.iter().filter_map(|row| row.split(' ').next());
    let more = [
        "amazonaws.com",
        "abc.s3-global.amazonaws.com",
        "amazonaws.com.cn",
        "x.on.aws",
        "aws",
    ];
    for host in known.chain(more) {
        assert!(is_of_aws(host), "{host}");
    }
    for host in [
        "",
        "store.test",
        "amazonaws.com.test",
        "notamazonaws.com",
        "draws",
        "s3.eu",
    ] {
        assert!(!is_of_aws(host), "{host}");
    }
}

#[test]
fn what_a_user_says_of_a_host_is_taken_where_it_can_be_signed_for() {
    let own = Endpoint::own("s3", "garage").unwrap();
    assert_eq!(
        (own.service(), own.region(), own.is_s3()),
        ("s3", "garage", true)
    );
    let long = "a".repeat(65);
    for (service, region) in [
        ("", "us-east-1"),
        ("s3", ""),
        ("s3/x", "a"),
        ("s3", "a b"),
        ("s3", long.as_str()),
    ] {
        assert_eq!(Endpoint::own(service, region), None, "{service} {region}");
    }
}
