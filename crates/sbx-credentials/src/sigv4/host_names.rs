//! Names of hosts that do not follow the rule `SERVICE.REGION.SUFFIX`.
//!
//! Source: `endpointPrefix` and `signingName` in the published models of the services' interfaces, and AWS, "AWS service
//! endpoints" (General Reference).

use super::host::Kind;

/// A part of AWS with accounts and keys of its own. GovCloud has the hosts of the standard one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Partition {
    /// Also GovCloud.
    Standard,
    China,
    /// The European Sovereign Cloud.
    Europe,
}

/// What names end in; longer ones before those that they end in.
pub(super) const SUFFIXES: &[(&str, Partition, Kind)] = &[
    ("vpce.amazonaws.com.cn", Partition::China, Kind::Vpc),
    ("amazonaws.com.cn", Partition::China, Kind::Plain),
    (
        "api.amazonwebservices.com.cn",
        Partition::China,
        Kind::Plain,
    ),
    ("vpce.amazonaws.com", Partition::Standard, Kind::Vpc),
    ("amazonaws.com", Partition::Standard, Kind::Plain),
    ("api.aws", Partition::Standard, Kind::Plain),
    ("on.aws", Partition::Standard, Kind::Function),
    ("amazonaws.eu", Partition::Europe, Kind::Plain),
    ("api.amazonwebservices.eu", Partition::Europe, Kind::Plain),
];

/// Domains of AWS with everything that is below them, also what is of no service.
pub(super) const DOMAINS: &[&str] = &[
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "amazonwebservices.com.cn",
    "amazonwebservices.eu",
    "aws",
];

/// Hosts without a region in them, or with one that says something else: name, partition, service, region.
pub(super) const GLOBAL: &[(&str, Partition, &str, &str)] = &[
    ("budgets", Partition::Standard, "budgets", "us-east-1"),
    ("budgets", Partition::China, "budgets", "cn-northwest-1"),
    ("budgets-fips", Partition::Standard, "budgets", "us-east-1"),
    ("cloudfront", Partition::Standard, "cloudfront", "us-east-1"),
    (
        "cloudfront-fips",
        Partition::Standard,
        "cloudfront",
        "us-east-1",
    ),
    (
        "cloudfront-fips.global",
        Partition::Standard,
        "cloudfront",
        "us-east-1",
    ),
    (
        "cloudfront.global",
        Partition::Standard,
        "cloudfront",
        "us-east-1",
    ),
    ("global.health", Partition::Standard, "health", "us-east-1"),
    (
        "global.health",
        Partition::China,
        "health",
        "cn-northwest-1",
    ),
    (
        "global.health.us-gov",
        Partition::Standard,
        "health",
        "us-gov-west-1",
    ),
    ("iam", Partition::Standard, "iam", "us-east-1"),
    ("iam-fips", Partition::Standard, "iam", "us-east-1"),
    ("iam-fips.global", Partition::Standard, "iam", "us-east-1"),
    ("iam.global", Partition::Standard, "iam", "us-east-1"),
    ("iam.global", Partition::China, "iam", "cn-north-1"),
    ("iam.us-gov", Partition::Standard, "iam", "us-gov-west-1"),
    ("route53", Partition::Standard, "route53", "us-east-1"),
    ("route53", Partition::China, "route53", "cn-northwest-1"),
    ("route53", Partition::Europe, "route53", "eusc-de-east-1"),
    ("route53-fips", Partition::Standard, "route53", "us-east-1"),
    (
        "route53-fips.global",
        Partition::Standard,
        "route53",
        "us-east-1",
    ),
    (
        "route53.global",
        Partition::Standard,
        "route53",
        "us-east-1",
    ),
    (
        "route53.global",
        Partition::China,
        "route53",
        "cn-northwest-1",
    ),
    (
        "route53.us-gov",
        Partition::Standard,
        "route53",
        "us-gov-west-1",
    ),
    (
        "savingsplans",
        Partition::Standard,
        "savingsplans",
        "us-east-1",
    ),
    (
        "savingsplans.global",
        Partition::Standard,
        "savingsplans",
        "us-east-1",
    ),
    ("sdb", Partition::Standard, "sdb", "us-east-1"),
    ("sts", Partition::Standard, "sts", "us-east-1"),
    ("waf", Partition::Standard, "waf", "us-east-1"),
    ("waf-fips", Partition::Standard, "waf", "us-east-1"),
];

/// Hosts with something of the user's in front: what stands between it and the region, and the service.
pub(super) const OF_RESOURCES: &[(&str, &str)] = &[
    ("-ats.iot", "iotdata"),
    (".appsync-api", "appsync"),
    (".data.mediastore", "mediastore"),
    (".ddb", "dynamodb"),
    (".execute-api", "execute-api"),
    (".kinesisvideo", "kinesisvideo"),
];

/// Services whose hosts are `RESOURCE.REGION.SERVICE`.
pub(super) const BEHIND: &[&str] = &["aoss", "cloudsearch", "es"];

/// Hosts whose service is signed for by another name: what stands in front of the region, and the name.
pub(super) const NAMES: &[(&str, &str)] = &[
    ("a2i-runtime.sagemaker", "sagemaker"),
    ("admin.wickr", "wickr"),
    ("agreement-marketplace", "aws-marketplace"),
    ("api.detective", "detective"),
    ("api.ecr", "ecr"),
    ("api.ecr-public", "ecr-public"),
    ("api.iotdeviceadvisor", "iotdeviceadvisor"),
    ("api.iotmanagedintegrations", "iotmanagedintegrations"),
    ("api.iotwireless", "iotwireless"),
    ("api.mediatailor", "mediatailor"),
    ("api.pricing", "pricing"),
    ("api.sagemaker", "sagemaker"),
    ("api.tunneling.iot", "IoTSecuredTunneling"),
    ("appconfigdata", "appconfig"),
    ("appstream2", "appstream"),
    ("bedrock-agent", "bedrock"),
    ("bedrock-agent-runtime", "bedrock"),
    ("bedrock-agentcore-control", "bedrock-agentcore"),
    ("bedrock-data-automation", "bedrock"),
    ("bedrock-data-automation-runtime", "bedrock"),
    ("bedrock-runtime", "bedrock"),
    ("cassandra-streams", "cassandra"),
    ("catalog.marketplace", "aws-marketplace"),
    ("cloudhsmv2", "cloudhsm"),
    ("contact-lens", "connect"),
    ("controlplane.payment-cryptography", "payment-cryptography"),
    ("data-ats.iot", "iotdata"),
    ("data-signer", "signer"),
    ("data.jobs.iot", "iot-jobs-data"),
    ("data.mediastore", "mediastore"),
    ("data.qapps", "qapps"),
    ("dataplane.payment-cryptography", "payment-cryptography"),
    ("deployment-marketplace", "aws-marketplace"),
    ("discovery-marketplace", "aws-marketplace"),
    ("edge.sagemaker", "sagemaker"),
    ("email", "ses"),
    ("entitlement.marketplace", "aws-marketplace"),
    ("featurestore-runtime.sagemaker", "sagemaker"),
    ("forecastquery", "forecast"),
    ("identity-chime", "chime"),
    ("ingest.timestream", "timestream"),
    ("ivsrealtime", "ivs"),
    ("job-runtime.sagemaker", "sagemaker"),
    ("mail-manager", "ses"),
    ("media-pipelines-chime", "chime"),
    ("management.deadline", "deadline"),
    ("meetings-chime", "chime"),
    ("memory-db", "memorydb"),
    ("messaging-chime", "chime"),
    ("metering.marketplace", "aws-marketplace"),
    ("metrics.sagemaker", "sagemaker"),
    ("migrationhub-config", "mgh"),
    ("models-v2-lex", "lex"),
    ("models.lex", "lex"),
    ("oidc", "sso-oauth"),
    ("participant.connect", "execute-api"),
    ("partnercentral-prm", "partnercentral"),
    ("personalize-events", "personalize"),
    ("personalize-runtime", "personalize"),
    ("pinpoint", "mobiletargeting"),
    ("portal.sso", "awsssoportal"),
    ("query.timestream", "timestream"),
    ("reporting-marketplace", "aws-marketplace"),
    ("runtime-v2-lex", "lex"),
    ("runtime.lex", "lex"),
    ("runtime.sagemaker", "sagemaker"),
    ("scheduling.deadline", "deadline"),
    ("servicecatalog-appregistry", "servicecatalog"),
    ("sms-voice.pinpoint", "sms-voice"),
    ("streams.dynamodb", "dynamodb"),
    ("voice-chime", "chime"),
];
