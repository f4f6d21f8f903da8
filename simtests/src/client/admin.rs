//! The admin API, over HTTP/1.1.

use std::net::IpAddr;

use super::stream::Stream;
use super::{Answer, Failure};
use crate::host::port;

/// One request and the body of its answer.
///
/// # Errors
/// [`Failure::Refused`] for any status but 2xx.
pub async fn request(node: IpAddr, method: &str, path: &str, body: &str) -> Answer<String> {
    let mut stream = Stream::connect(node, port::ADMIN).await?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.send(head.as_bytes()).await?;
    let status = stream.text_line().await?;
    let mut length = None;
    loop {
        let line = stream.text_line().await?.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok();
        }
        if line.is_empty() {
            break;
        }
    }
    let body = match length {
        Some(length) => stream.octets(length).await?,
        None => stream.rest().await?,
    };
    let body = String::from_utf8_lossy(&body).into_owned();
    if status.split(' ').nth(1).is_some_and(|code| code.starts_with('2')) {
        Ok(body)
    } else {
        Err(Failure::Refused(format!("{status}: {body}")))
    }
}
