//! Calls whose answers are credentials.

use sbx_credentials::sigv4::{Endpoint, acts_in_body, issuing};

use super::Request;

fn found(
    method: &'static str,
    url: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<&'static str> {
    let request = Request::new(method, url, headers);
    let endpoint = Endpoint::of(&request.host).unwrap();
    issuing(&endpoint, &request.head(), body.as_bytes())
}

#[test]
fn forms_are_recognised_in_the_query_and_in_the_body() {
    let sts = "https://sts.us-east-1.amazonaws.com/";
    for (url, body, call) in [
        (
            sts,
            "Action=AssumeRole&Version=2011-06-15",
            Some("sts:AssumeRole"),
        ),
        (
            sts,
            "Version=2011-06-15&Action=GetSessionToken",
            Some("sts:GetSessionToken"),
        ),
        (
            sts,
            "Action=GetCallerIdentity&Action=GetFederationToken",
            Some("sts:GetFederationToken"),
        ),
        (sts, "%41ction=Assume%52ole", Some("sts:AssumeRole")),
        (sts, "action=assumerole", Some("sts:AssumeRole")),
        (
            sts,
            "Action=AssumeRoleWithWebIdentity",
            Some("sts:AssumeRoleWithWebIdentity"),
        ),
        (
            sts,
            "Action=AssumeRoleWithSAML",
            Some("sts:AssumeRoleWithSAML"),
        ),
        (sts, "Action=GetCallerIdentity", None),
        (
            "https://sts.amazonaws.com/?Action=AssumeRole",
            "",
            Some("sts:AssumeRole"),
        ),
        (
            "https://sts.amazonaws.com/?Action=GetCallerIdentity",
            "Action=AssumeRoot",
            Some("sts:AssumeRoot"),
        ),
        (
            "https://iam.amazonaws.com/",
            "Action=CreateAccessKey",
            Some("iam:CreateAccessKey"),
        ),
        (
            "https://ec2.us-east-1.amazonaws.com/",
            "Action=CreateKeyPair&KeyName=x&Version=2016-11-15",
            Some("ec2:CreateKeyPair"),
        ),
        (
            "https://ec2.us-east-1.amazonaws.com/",
            "Action=DescribeKeyPairs&Version=2016-11-15",
            None,
        ),
        ("https://iam.amazonaws.com/", "Action=ListUsers", None),
        (
            "https://redshift.us-east-1.amazonaws.com/",
            "Action=GetClusterCredentials",
            Some("redshift:GetClusterCredentials"),
        ),
    ] {
        assert_eq!(found("POST", url, &[], body), call, "{url} {body}");
        let request = Request::new("POST", url, &[]);
        let endpoint = Endpoint::of(&request.host).unwrap();
        assert!(acts_in_body(&endpoint, &request.head()));
    }
}

#[test]
fn targets_and_paths_are_recognised() {
    for (url, target, call) in [
        (
            "https://api.ecr.us-east-1.amazonaws.com/",
            "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken",
            Some("ecr:GetAuthorizationToken"),
        ),
        (
            "https://api.ecr.us-east-1.amazonaws.com/",
            "AmazonEC2ContainerRegistry_V20150921.DescribeImages",
            None,
        ),
        (
            "https://api.ecr-public.us-east-1.amazonaws.com/",
            "SpencerFrontendService.GetAuthorizationToken",
            Some("ecr-public:GetAuthorizationToken"),
        ),
        (
            "https://cognito-identity.us-east-1.amazonaws.com/",
            "AWSCognitoIdentityService.GetCredentialsForIdentity",
            Some("cognito-identity:GetCredentialsForIdentity"),
        ),
        (
            "https://codeartifact.us-east-1.amazonaws.com/v1/authorization-token?domain=d",
            "",
            Some("codeartifact:GetAuthorizationToken"),
        ),
        (
            "https://codeartifact.us-east-1.amazonaws.com//v1/x/../%61uthorization-token",
            "",
            Some("codeartifact:GetAuthorizationToken"),
        ),
        (
            "https://codeartifact.us-east-1.amazonaws.com/v1/domains",
            "",
            None,
        ),
        (
            "https://portal.sso.us-east-1.amazonaws.com/federation/credentials?role_name=r",
            "",
            Some("awsssoportal:GetRoleCredentials"),
        ),
        (
            "https://oidc.us-east-1.amazonaws.com/token",
            "",
            Some("sso-oauth:CreateToken"),
        ),
        (
            "https://eks-auth.us-east-1.api.aws/clusters/c/assume-role-for-pod-identity",
            "",
            Some("eks-auth:AssumeRoleForPodIdentity"),
        ),
        (
            "https://gamelift.us-east-1.amazonaws.com/service/GameLift/operation/RequestUploadCredentials",
            "",
            Some("gamelift:RequestUploadCredentials"),
        ),
        (
            "https://123456789012.s3-control.us-east-1.amazonaws.com/v20180820/accessgrantsinstance/dataaccess",
            "",
            Some("s3:GetDataAccess"),
        ),
        (
            "https://lightsail.us-east-1.amazonaws.com/",
            "Lightsail_20161128.DownloadDefaultKeyPair",
            Some("lightsail:DownloadDefaultKeyPair"),
        ),
        (
            "https://api.sagemaker.us-east-1.amazonaws.com/",
            "SageMaker.CreatePresignedDomainUrl",
            Some("sagemaker:CreatePresignedDomainUrl"),
        ),
        (
            "https://iot.us-east-1.amazonaws.com/keys-and-certificate?setAsActive=true",
            "",
            Some("iot:CreateKeysAndCertificate"),
        ),
        (
            "https://iot.us-east-1.amazonaws.com/provisioning-templates/t",
            "",
            None,
        ),
        (
            "https://bedrock-runtime.us-east-1.amazonaws.com/model/m/converse",
            "",
            None,
        ),
    ] {
        assert_eq!(
            found("POST", url, &[("x-amz-target", target)], ""),
            call,
            "{url}"
        );
    }
}

#[test]
fn a_key_of_a_bucket_may_be_called_like_a_call() {
    let url = "https://bucket.s3.us-east-1.amazonaws.com/AssumeRole?Action=CreateAccessKey";
    assert_eq!(found("GET", url, &[], "Action=AssumeRole"), None);
}

#[test]
fn a_store_of_somebody_s_own_is_asked_for_keys_at_its_own_host() {
    let store = Endpoint::own("s3", "us-east-1").unwrap();
    let form = [(
        "content-type",
        "application/x-www-form-urlencoded; charset=utf-8",
    )];
    let root = "https://store.test/";
    let bucket = "https://store.test/bucket/AssumeRole";
    for (method, url, headers, body, call) in [
        (
            "POST",
            root,
            &form[..],
            "Action=AssumeRole",
            Some("sts:AssumeRole"),
        ),
        (
            "POST",
            root,
            &[],
            "Action=CreateAccessKey",
            Some("iam:CreateAccessKey"),
        ),
        (
            "POST",
            "https://store.test/x/..//",
            &[],
            "Action=GetSessionToken",
            Some("sts:GetSessionToken"),
        ),
        // One that is asked anywhere, as long as it is a form.
        (
            "POST",
            "https://store.test/bucket",
            &form,
            "Action=AssumeRole",
            Some("sts:AssumeRole"),
        ),
        (
            "GET",
            "https://store.test/?Action=AssumeRole",
            &[],
            "",
            Some("sts:AssumeRole"),
        ),
        ("POST", root, &form, "Action=GetCallerIdentity", None),
        ("POST", "https://store.test/?delete", &[], "<Delete/>", None),
        ("PUT", bucket, &[], "Action=AssumeRole", None),
        ("GET", bucket, &[], "", None),
        (
            "POST",
            "https://store.test/bucket/AssumeRole?uploads",
            &[],
            "",
            None,
        ),
    ] {
        let request = Request::new(method, url, headers);
        let found = issuing(&store, &request.head(), body.as_bytes());
        assert_eq!(found, call, "{method} {url} {body}");
    }
    let head = Request::new("PUT", bucket, &form);
    assert!(!acts_in_body(&store, &head.head()));
    // Other services are what they are called.
    let other = Endpoint::own("execute-api", "us-east-1").unwrap();
    let request = Request::new("POST", root, &form);
    assert!(!acts_in_body(&other, &request.head()));
    assert_eq!(issuing(&other, &request.head(), b"Action=AssumeRole"), None);
}

#[test]
fn a_session_of_a_directory_bucket_is_a_key() {
    for host in [
        "bucket--use1-az4--x-s3.s3express-use1-az4.us-east-1.amazonaws.com",
        "bucket.s3.us-east-1.amazonaws.com",
    ] {
        let session = format!("https://{host}/?session");
        if Endpoint::of(host).is_err() {
            continue;
        }
        assert_eq!(
            found("GET", &session, &[], ""),
            Some("s3:CreateSession"),
            "{host}"
        );
        let object = format!("https://{host}/session?list-type=2");
        assert_eq!(found("GET", &object, &[], ""), None, "{host}");
    }
}

#[test]
fn a_form_is_looked_into_whatever_the_service_usually_takes() {
    let form = [(
        "content-type",
        "application/x-www-form-urlencoded; charset=utf-8",
    )];
    let body = "Version=1&Action=GetAuthorizationToken";
    let ecr = "https://api.ecr.us-east-1.amazonaws.com/";
    assert_eq!(
        found("POST", ecr, &form, body),
        Some("ecr:GetAuthorizationToken")
    );
    assert_eq!(found("POST", ecr, &[], body), None, "not a form");
    let s3 = "https://s3.us-east-1.amazonaws.com/b/o";
    assert_eq!(found("POST", s3, &form, "Action=AssumeRole"), None);
}
