//! Names that the trust in an installation's root certificate hangs on: daemon (which issues it), image and
//! guest have to agree about them.

/// Common name and organisation of every installation's root, in this order.
pub const ROOT_NAME: (&str, &str) = ("sbx root of this machine", "sbx");
/// OpenSSL's hash of [`ROOT_NAME`] (`X509_NAME_hash(3)`): the name under which a folder of certificates is
/// searched for it.
pub const ROOT_HASH: &str = "674d35c8";
/// The machine's bundle of roots, PEM: the image's and ours.
pub const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The machine's roots as a Java key store.
pub const JAVA_STORE: &str = "/run/sbx/roots.jks";
/// The variable by which a Java virtual machine is given options.
pub const JAVA_OPTIONS: &str = "JAVA_TOOL_OPTIONS";
/// The property that names a Java trust store.
pub const JAVA_PROPERTY: &str = "javax.net.ssl.trustStore";

/// Variables that hold the path of a PEM bundle, and who reads them.
pub const BUNDLE_VARIABLES: [&str; 12] = [
    "SSL_CERT_FILE",       // OpenSSL and what links it, Go, .NET, rustls-native-certs
    "CURL_CA_BUNDLE",      // curl, and Python requests as its second choice
    "REQUESTS_CA_BUNDLE",  // Python requests
    "NODE_EXTRA_CA_CERTS", // Node.js, in addition to its own
    "GIT_SSL_CAINFO",      // git, whatever it is linked with
    "PIP_CERT",            // pip
    "CARGO_HTTP_CAINFO",   // cargo
    "AWS_CA_BUNDLE",       // the AWS command and SDKs
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", // gRPC's C core: Python, Ruby, PHP, C++
    "DENO_CERT",           // Deno, in addition to its own
    "NIX_SSL_CERT_FILE",   // Nix
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", // gcloud
];

/// The option that makes a Java virtual machine use the key store at `path`.
pub fn java_option(path: &str) -> String {
    format!("-D{JAVA_PROPERTY}={path}")
}
