//! Requests and signatures that AWS has published: its test suite for version 4 (the key of which it also uses for IAM),
//! and the examples of the S3 API Reference.

use super::{DATE, ID, Request, SECRET, Trial, keys, placeholder};
use sbx_credentials::sigv4::{Chunks, Signed};

/// A request of the test suite with the signature that it names.
fn suite(
    method: &'static str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
    signature: &str,
) -> Request {
    let url = format!("https://example.amazonaws.com{path}");
    let mut request = Request::new(method, &url, headers);
    request.set("x-amz-date", DATE);
    request.body = body.as_bytes().to_vec();
    let mut names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    names.extend(["host", "x-amz-date"]);
    names.sort_unstable();
    names.dedup();
    let text = format!(
        "AWS4-HMAC-SHA256 Credential={ID}/20150830/us-east-1/service/aws4_request, SignedHeaders={}, Signature={signature}",
        names.join(";")
    );
    request.set("authorization", &text);
    request
}

#[test]
fn requests_of_the_test_suite_verify() {
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for (name, request) in [
        (
            "get-vanilla",
            suite(
                "GET",
                "/",
                &[],
                "",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
        ),
        (
            "get-vanilla-query-order-key-case",
            suite(
                "GET",
                "/?Param2=value2&Param1=value1",
                &[],
                "",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
        ),
        (
            "post-vanilla",
            suite(
                "POST",
                "/",
                &[],
                "",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
        ),
        (
            "get-utf8",
            suite(
                "GET",
                "/\u{1234}",
                &[],
                "",
                "8318018e0b0f223aa2bbf98705b62bb787dc9c0e678f255a891fd03141be5d85",
            ),
        ),
        (
            "get-relative",
            suite(
                "GET",
                "/example/..",
                &[],
                "",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
        ),
        (
            "get-slashes",
            suite(
                "GET",
                "//example//",
                &[],
                "",
                "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84",
            ),
        ),
        (
            "get-space",
            suite(
                "GET",
                "/example space/",
                &[],
                "",
                "652487583200325589f1fba4c7e578f72c47cb61beeca81406b39ddec1366741",
            ),
        ),
        (
            "get-header-value-trim",
            suite(
                "GET",
                "/",
                &[("my-header1", " value1"), ("my-header2", " \"a   b   c\"")],
                "",
                "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
            ),
        ),
        (
            "post-x-www-form-urlencoded",
            suite(
                "POST",
                "/",
                &form,
                "Param1=value1",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
        ),
    ] {
        let trial = Trial::at("service.us-east-1.amazonaws.com", DATE);
        request
            .verify(&trial)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn the_example_of_iam_verifies_and_is_signed_anew_as_by_its_own_key() {
    let mut request = Request::new(
        "GET",
        "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08",
        &[
            (
                "content-type",
                "application/x-www-form-urlencoded; charset=utf-8",
            ),
            ("x-amz-date", DATE),
        ],
    );
    let signature = "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7";
    let text = format!(
        "AWS4-HMAC-SHA256 Credential={ID}/20150830/us-east-1/iam/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature={signature}"
    );
    request.set("authorization", &text);
    let mut trial = Trial::at("iam.amazonaws.com", DATE);
    trial.keys = keys(ID, SECRET, None);
    request.sign_anew(&trial).unwrap();
    assert_eq!(request.authorization(), text);
}

const S3_ID: &str = "AKIAIOSFODNN7EXAMPLE";
const S3_SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const S3_DATE: &str = "20130524T000000Z";
const BUCKET: &str = "examplebucket.s3.amazonaws.com";
const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn s3_trial(host: &str) -> Trial {
    let mut trial = Trial::at(host, S3_DATE);
    trial.placeholder = placeholder(S3_ID, S3_SECRET);
    trial.keys = keys(S3_ID, S3_SECRET, None);
    trial
}

fn s3(
    method: &'static str,
    url: &str,
    headers: &[(&str, &str)],
    signed: &str,
    signature: &str,
) -> Request {
    let mut request = Request::new(method, url, headers);
    request.set("x-amz-date", S3_DATE);
    let text = format!(
        "AWS4-HMAC-SHA256 Credential={S3_ID}/20130524/us-east-1/s3/aws4_request,SignedHeaders={signed},Signature={signature}"
    );
    request.set("authorization", &text);
    request
}

#[test]
fn the_examples_of_s3_verify_and_get_the_same_signature_again() {
    let url = |rest: &str| format!("https://{BUCKET}{rest}");
    let empty = ("x-amz-content-sha256", NOTHING);
    let plain = "host;x-amz-content-sha256;x-amz-date";
    let body = "Welcome to Amazon S3.";
    let digest = "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072";
    let mut put = s3(
        "PUT",
        &url("/test%24file.text"),
        &[
            ("date", "Fri, 24 May 2013 00:00:00 GMT"),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
            ("x-amz-content-sha256", digest),
        ],
        "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    );
    put.body = body.as_bytes().to_vec();
    let requests = [
        s3(
            "GET",
            &url("/test.txt"),
            &[("range", "bytes=0-9"), empty],
            "host;range;x-amz-content-sha256;x-amz-date",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        put,
        s3(
            "GET",
            &url("/?lifecycle"),
            &[empty],
            plain,
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        s3(
            "GET",
            &url("/?max-keys=2&prefix=J"),
            &[empty],
            plain,
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ];
    for mut request in requests {
        let before = request.signature().to_owned();
        request.sign_anew(&s3_trial(BUCKET)).unwrap();
        assert_eq!(request.signature(), before, "{}", request.path);
    }
}

#[test]
fn the_presigned_example_of_s3_verifies_until_it_ends() {
    let query = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
    let mut request = Request::new("GET", &format!("https://{BUCKET}/test.txt?{query}"), &[]);
    let mut trial = s3_trial(BUCKET);
    trial.now += 86_400;
    request.sign_anew(&trial).unwrap();
    assert_eq!(request.query.as_deref(), Some(query));
    trial.now += 1;
    let error = request.verify(&trial).unwrap_err();
    assert_eq!(error.to_string(), "The presigned URL has ended");
}

/// The body of the two examples in chunks: 65 KiB of `a`, in chunks of 64 KiB.
fn in_chunks(signatures: [&str; 3], trailer: &str) -> Vec<u8> {
    let mut body = Vec::new();
    for (size, signature) in [65_536, 1024, 0].into_iter().zip(signatures) {
        body.extend_from_slice(format!("{size:x};chunk-signature={signature}\r\n").as_bytes());
        body.extend(std::iter::repeat_n(b'a', size));
        if size > 0 || trailer.is_empty() {
            body.extend_from_slice(b"\r\n");
        }
    }
    body.extend_from_slice(trailer.as_bytes());
    body
}

fn passed(mut chunks: Chunks, body: &[u8], piece: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in body.chunks(piece) {
        out.extend_from_slice(&chunks.push(piece).unwrap());
    }
    chunks.finish().unwrap();
    out
}

#[test]
fn the_examples_in_chunks_verify_and_get_the_same_signatures_again() {
    let common = [
        ("content-encoding", "aws-chunked"),
        ("content-length", "66824"),
        ("x-amz-decoded-content-length", "66560"),
        ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
    ];
    let plain = [
        &common[..],
        &[("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")],
    ]
    .concat();
    let trailing = [
        &common[..],
        &[
            (
                "x-amz-content-sha256",
                "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
            ),
            ("x-amz-trailer", "x-amz-checksum-crc32c"),
        ],
    ]
    .concat();
    let trailing: Vec<_> = trailing
        .into_iter()
        .filter(|(name, _)| *name != "content-length")
        .collect();
    let url = "https://s3.amazonaws.com/examplebucket/chunkObject.txt";
    let names = "content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class";
    let with_trailer = "content-encoding;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class;x-amz-trailer";
    let trailer = "x-amz-checksum-crc32c:sOO8/Q==\r\nx-amz-trailer-signature:d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435\r\n\r\n";
    for (headers, names, seed, signatures, trailer) in [
        (
            plain,
            names,
            "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
            [
                "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
                "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
                "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
            ],
            "",
        ),
        (
            trailing,
            with_trailer,
            "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
            [
                "b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
                "1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
                "2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
            ],
            trailer,
        ),
    ] {
        let request = s3("PUT", url, &headers, names, seed);
        let body = in_chunks(signatures, trailer);
        for piece in [1, 7, 1000, 70_000, 1_000_000] {
            let mut request = request.clone();
            let Signed { chunks, query } =
                request.sign_anew(&s3_trial("s3.amazonaws.com")).unwrap();
            assert_eq!((request.signature(), query), (seed, None));
            assert_eq!(passed(chunks.unwrap(), &body, piece), body, "{piece}");
        }
    }
}
