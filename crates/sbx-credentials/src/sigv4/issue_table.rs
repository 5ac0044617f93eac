//! The calls whose answers are credentials of AWS: keys, tokens that are as good, passwords of its databases and
//! registries, private keys that open its machines and devices, links that sign in whoever opens them.
//!
//! A key that a call makes anew counts like one that there was before, as `iam:CreateAccessKey` does: what is issued stays
//! outside. Whoever may make one may often bring a public key of his own instead (`ec2:ImportKeyPair`), which is answered with
//! no secret; what the key of AWS may do is for IAM to say.
//!
//! Source: the published models of the services' interfaces, searched for answers with members such as
//! `secretAccessKey`, `accessToken`, `authorizationToken`, `servicePassword`, `dbPassword`, `privateKey`, `KeyMaterial`,
//! `AuthorizedUrl` and `PresignedURL`. Left out are tokens and links that a service gives to the users of somebody's own
//! application (Cognito user pools, embedded pages), and to notebooks, keys that encrypt data (KMS), and certificates (ACM).

/// Services whose calls may be forms.
pub(super) const QUERY: &[&str] = &["ec2", "iam", "redshift", "sts"];

/// Services that stores of others than AWS are besides, at the same host.
pub(super) const STORES: &[&str] = &["iam", "sts"];

/// By name.
pub(super) const ACTIONS: &[&str] = &[
    "athena:CreatePresignedNotebookUrl",
    "athena:GetSessionEndpoint",
    "cloudwatch:GetSpaceCredentialsForOrganization",
    "cloudwatch:GetSpaceDataAccess",
    "codepipeline:GetJobDetails",
    "codepipeline:GetThirdPartyJobDetails",
    "codepipeline:PollForJobs",
    "cognito-identity:GetCredentialsForIdentity",
    "cognito-identity:GetOpenIdToken",
    "cognito-identity:GetOpenIdTokenForDeveloperIdentity",
    "ec2:CreateKeyPair",
    "ecr:GetAuthorizationToken",
    "ecr-public:GetAuthorizationToken",
    "elasticmapreduce:GetClusterSessionCredentials",
    "elasticmapreduce:GetOnClusterAppUIPresignedURL",
    "elasticmapreduce:GetPersistentAppUIPresignedURL",
    "elasticmapreduce:GetSessionEndpoint",
    "gamelift:CreateBuild",
    "gamelift:GetComputeAccess",
    "gamelift:GetComputeAuthToken",
    "gamelift:GetInstanceAccess",
    "gamelift:RequestUploadCredentials",
    "glue:GetSessionEndpoint",
    "iam:CreateAccessKey",
    "iam:CreateServiceSpecificCredential",
    "iam:CreateVirtualMFADevice",
    "iam:ResetServiceSpecificCredential",
    "IoTSecuredTunneling:OpenTunnel",
    "IoTSecuredTunneling:RotateTunnelAccessToken",
    "kinesisanalytics:CreateApplicationPresignedUrl",
    "license-manager:GetAccessToken",
    "lightsail:CreateBucketAccessKey",
    "lightsail:CreateContainerServiceRegistryLogin",
    "lightsail:CreateKeyPair",
    "lightsail:DownloadDefaultKeyPair",
    "lightsail:GetBucketAccessKeys",
    "lightsail:GetInstanceAccessDetails",
    "lightsail:GetRelationalDatabaseMasterUserPassword",
    "redshift:GetClusterCredentials",
    "redshift:GetClusterCredentialsWithIAM",
    "redshift:GetIdentityCenterAuthToken",
    "redshift-serverless:GetCredentials",
    "redshift-serverless:GetIdentityCenterAuthToken",
    "sagemaker:CreatePartnerAppPresignedUrl",
    "sagemaker:CreatePresignedDomainUrl",
    "sagemaker:CreatePresignedMlflowAppUrl",
    "sagemaker:CreatePresignedMlflowTrackingServerUrl",
    "sagemaker:CreatePresignedNotebookInstanceUrl",
    "ssm:GetAccessToken",
    "sts:AssumeRole",
    "sts:AssumeRoleWithSAML",
    "sts:AssumeRoleWithWebIdentity",
    "sts:AssumeRoot",
    "sts:GetDelegatedAccessToken",
    "sts:GetFederationToken",
    "sts:GetScopedCredentials",
    "sts:GetSessionToken",
    "sts:GetWebIdentityToken",
];

/// By path; `*` stands for one segment.
pub(super) const PATHS: &[(&str, &str)] = &[
    ("account-access:GetRoleCredentials", "access/credentials"),
    ("airflow:CreateCliToken", "clitoken/*"),
    ("airflow:CreateWebLoginToken", "webtoken/*"),
    ("amplifyuibuilder:ExchangeCodeForToken", "tokens/*"),
    ("amplifyuibuilder:RefreshToken", "tokens/*/refresh"),
    ("awsssoportal:GetRoleCredentials", "federation/credentials"),
    ("bedrock-agentcore:GetResourceApiKey", "identities/api-key"),
    (
        "bedrock-agentcore:GetResourceOauth2Token",
        "identities/oauth2/token",
    ),
    (
        "bedrock-agentcore:GetResourcePaymentToken",
        "identities/payment/token",
    ),
    (
        "bedrock-agentcore:GetWorkloadAccessToken",
        "identities/GetWorkloadAccessToken",
    ),
    (
        "bedrock-agentcore:GetWorkloadAccessTokenForJWT",
        "identities/GetWorkloadAccessTokenForJWT",
    ),
    (
        "bedrock-agentcore:GetWorkloadAccessTokenForUserId",
        "identities/GetWorkloadAccessTokenForUserId",
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
        "datazone:GetIamPortalLoginUrl",
        "v2/domains/*/get-portal-login-url",
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
        "emr-containers:GetManagedEndpointSessionCredentials",
        "virtualclusters/*/endpoints/*/credentials",
    ),
    (
        "emr-serverless:GetSessionEndpoint",
        "applications/*/sessions/*/endpoint",
    ),
    (
        "finspace-api:GetExternalDataViewAccessDetails",
        "datasets/*/dataviewsv2/*/external-access-details",
    ),
    (
        "finspace-api:GetProgrammaticAccessCredentials",
        "credentials/programmatic",
    ),
    ("iot:CreateKeysAndCertificate", "keys-and-certificate"),
    (
        "iot:CreateProvisioningClaim",
        "provisioning-templates/*/provisioning-claim",
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
        "lakeformation:GetTemporaryGlueFunctionCredentials",
        "GetTemporaryGlueFunctionCredentials",
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
