//! The calls whose answers are credentials of AWS: keys, tokens that are as good, passwords of its databases and
//! registries.
//!
//! Source: the published models of the services' interfaces, searched for answers with members such as
//! `secretAccessKey`, `accessToken`, `authorizationToken`, `servicePassword` and `dbPassword`. Left out are tokens that a
//! service gives to the users of somebody's own application (Cognito user pools) and to notebooks.

/// Services whose calls may be forms.
pub(super) const QUERY: &[&str] = &["iam", "redshift", "sts"];

/// Services that stores of others than AWS are besides, at the same host.
pub(super) const STORES: &[&str] = &["iam", "sts"];

/// By name.
pub(super) const ACTIONS: &[&str] = &[
    "codepipeline:GetJobDetails",
    "codepipeline:GetThirdPartyJobDetails",
    "codepipeline:PollForJobs",
    "cognito-identity:GetCredentialsForIdentity",
    "cognito-identity:GetOpenIdToken",
    "cognito-identity:GetOpenIdTokenForDeveloperIdentity",
    "ecr:GetAuthorizationToken",
    "ecr-public:GetAuthorizationToken",
    "gamelift:CreateBuild",
    "gamelift:GetComputeAccess",
    "gamelift:GetComputeAuthToken",
    "gamelift:RequestUploadCredentials",
    "iam:CreateAccessKey",
    "iam:CreateServiceSpecificCredential",
    "iam:CreateVirtualMFADevice",
    "iam:ResetServiceSpecificCredential",
    "lightsail:CreateBucketAccessKey",
    "lightsail:GetBucketAccessKeys",
    "redshift:GetClusterCredentials",
    "redshift:GetClusterCredentialsWithIAM",
    "redshift-serverless:GetCredentials",
    "ssm:GetAccessToken",
    "sts:AssumeRole",
    "sts:AssumeRoleWithSAML",
    "sts:AssumeRoleWithWebIdentity",
    "sts:AssumeRoot",
    "sts:GetDelegatedAccessToken",
    "sts:GetFederationToken",
    "sts:GetSessionToken",
    "sts:GetWebIdentityToken",
];

/// By path; `*` stands for one segment.
pub(super) const PATHS: &[(&str, &str)] = &[
    ("awsssoportal:GetRoleCredentials", "federation/credentials"),
    (
        "bedrock-agentcore:GetResourceOauth2Token",
        "identities/oauth2/token",
    ),
    (
        "codeartifact:GetAuthorizationToken",
        "v1/authorization-token",
    ),
    ("connect:GetFederationToken", "user/federate/*"),
    ("datazone:GetConnection", "v2/domains/*/connections/*"),
    (
        "datazone:GetEnvironmentCredentials",
        "v2/domains/*/environments/*/credentials",
    ),
    (
        "deadline:AssumeFleetRoleForRead",
        "*/farms/*/fleets/*/read-roles",
    ),
    (
        "deadline:AssumeFleetRoleForWorker",
        "*/farms/*/fleets/*/workers/*/fleet-roles",
    ),
    (
        "deadline:AssumeQueueRoleForRead",
        "*/farms/*/queues/*/read-roles",
    ),
    (
        "deadline:AssumeQueueRoleForUser",
        "*/farms/*/queues/*/user-roles",
    ),
    (
        "deadline:AssumeQueueRoleForWorker",
        "*/farms/*/fleets/*/workers/*/queue-roles",
    ),
    (
        "eks-auth:AssumeRoleForPodIdentity",
        "clusters/*/assume-role-for-pod-identity",
    ),
    (
        "finspace-api:GetExternalDataViewAccessDetails",
        "datasets/*/dataviewsv2/*/external-access-details",
    ),
    (
        "finspace-api:GetProgrammaticAccessCredentials",
        "credentials/programmatic",
    ),
    (
        "lakeformation:AssumeDecoratedRoleWithSAML",
        "AssumeDecoratedRoleWithSAML",
    ),
    (
        "lakeformation:GetTemporaryDataLocationCredentials",
        "GetTemporaryDataLocationCredentials",
    ),
    (
        "lakeformation:GetTemporaryGluePartitionCredentials",
        "GetTemporaryGluePartitionCredentials",
    ),
    (
        "lakeformation:GetTemporaryGlueTableCredentials",
        "GetTemporaryGlueTableCredentials",
    ),
    ("rolesanywhere:CreateSession", "sessions"),
    (
        "s3:GetDataAccess",
        "v20180820/accessgrantsinstance/dataaccess",
    ),
    ("signin:CreateOAuth2Token", "v1/token"),
    ("sso-oauth:CreateToken", "token"),
];
