//! Objects: put, get (also a range), head, delete, list, and in parts.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use hyper::http::request::Parts;
use hyper::{Method, StatusCode};

use super::State;
use crate::http::{self, Reply};

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Answers a request to a bucket's own host.
pub(super) fn answer(state: &State, bucket: &str, parts: &Parts, body: &Bytes) -> Reply {
    let query = parts.uri.query().unwrap_or_default();
    let parameter = |name: &str| {
        let mut pairs = query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value.to_owned())
    };
    let key = parts.uri.path().trim_start_matches('/');
    let name = format!("{bucket}/{key}");
    let mut objects = lock(&state.objects);
    let part = |number: &str| format!("{name}?part={number:0>5}");
    match (
        &parts.method,
        parameter("partNumber"),
        parameter("uploadId"),
    ) {
        (&Method::PUT, Some(number), _) => {
            objects.insert(part(&number), body.clone());
            empty(StatusCode::OK).with_header("etag", "\"part\"")
        }
        (&Method::PUT, None, _) => {
            objects.insert(name, body.clone());
            empty(StatusCode::OK).with_header("etag", "\"whole\"")
        }
        (&Method::POST, _, None) => xml(format!(
            "<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{key}</Key><UploadId>1</UploadId></InitiateMultipartUploadResult>"
        )),
        (&Method::POST, _, Some(_)) => {
            let prefix = format!("{name}?part=");
            let numbers: Vec<String> = objects
                .keys()
                .filter(|key| key.starts_with(&prefix))
                .cloned()
                .collect();
            let whole: Vec<u8> = numbers
                .iter()
                .filter_map(|key| objects.remove(key))
                .flatten()
                .collect();
            objects.insert(name, whole.into());
            xml(format!(
                "<CompleteMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{key}</Key><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>"
            ))
        }
        (&Method::DELETE, ..) => {
            objects.remove(&name);
            empty(StatusCode::NO_CONTENT)
        }
        (&Method::GET, ..) if key.is_empty() => {
            let prefix = format!("{bucket}/");
            let listed = objects.iter().filter_map(|(name, data)| {
                let key = name.strip_prefix(&prefix)?;
                Some(format!(
                    "<Contents><Key>{key}</Key><Size>{}</Size><ETag>\"whole\"</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>",
                    data.len()
                ))
            });
            let listed: String = listed.collect();
            xml(format!(
                "<ListBucketResult><Name>{bucket}</Name><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>"
            ))
        }
        _ => match objects.get(&name) {
            Some(data) => object(parts, data),
            None => {
                let text = "<Error><Code>NoSuchKey</Code><Message>none</Message></Error>";
                http::whole(StatusCode::NOT_FOUND, "application/xml", text)
            }
        },
    }
}

fn object(parts: &Parts, data: &Bytes) -> Reply {
    let range = parts
        .headers
        .get("range")
        .and_then(|value| value.to_str().ok());
    let range = range.and_then(|text| text.strip_prefix("bytes=")?.split_once('-'));
    let range = range.and_then(|(from, to)| {
        let from: usize = from.parse().ok()?;
        let to = to
            .parse()
            .map_or(data.len(), |to: usize| to + 1)
            .min(data.len());
        Some((from, to))
    });
    let kind = "binary/octet-stream";
    let reply = match range.filter(|(from, to)| from < to) {
        Some((from, to)) => {
            let range = format!("bytes {from}-{}/{}", to - 1, data.len());
            http::whole(StatusCode::PARTIAL_CONTENT, kind, data.slice(from..to))
                .with_header("content-range", &range)
        }
        None => http::whole(StatusCode::OK, kind, data.clone()),
    };
    reply
        .with_header("etag", "\"whole\"")
        .with_header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT")
}

fn xml(text: String) -> Reply {
    http::whole(StatusCode::OK, "application/xml", text)
}

fn empty(status: StatusCode) -> Reply {
    http::whole(status, "application/xml", "")
}
