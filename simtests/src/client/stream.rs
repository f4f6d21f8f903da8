//! Lines and counted octets.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;
use turmoil::net::TcpStream;

use super::{Answer, Failure};

/// How long a client waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

pub(crate) struct Stream(BufReader<TcpStream>);

async fn limited<T>(step: &str, patience: Duration, work: impl Future<Output = std::io::Result<T>>) -> Answer<T> {
    match timeout(patience, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(Failure::Unknown(format!("{step}: {error}"))),
        Err(_) => Err(Failure::Unknown(format!("{step}: no answer"))),
    }
}

impl Stream {
    pub(crate) async fn connect(address: IpAddr, port: u16) -> Answer<Self> {
        let stream = limited(
            "connecting",
            CONNECT_PATIENCE,
            TcpStream::connect(SocketAddr::new(address, port)),
        )
        .await?;
        Ok(Self(BufReader::new(stream)))
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Answer<()> {
        limited("sending", PATIENCE, async {
            self.0.write_all(bytes).await?;
            self.0.flush().await
        })
        .await
    }

    /// The next line without its end.
    pub(crate) async fn line(&mut self) -> Answer<Vec<u8>> {
        limited("waiting", PATIENCE, async {
            let mut line = Vec::new();
            self.0.read_until(b'\n', &mut line).await?;
            if !line.ends_with(b"\r\n") {
                return Err(std::io::Error::other("the connection was closed"));
            }
            line.truncate(line.len() - 2);
            Ok(line)
        })
        .await
    }

    /// Whether there is something to read, or the end, within so long. Nothing is taken.
    pub(crate) async fn ready_within(&mut self, patience: Duration) -> bool {
        timeout(patience, self.0.fill_buf()).await.is_ok()
    }

    pub(crate) async fn text_line(&mut self) -> Answer<String> {
        Ok(String::from_utf8_lossy(&self.line().await?).into_owned())
    }

    pub(crate) async fn octets(&mut self, count: usize) -> Answer<Vec<u8>> {
        limited("reading", PATIENCE, async {
            let mut bytes = vec![0; count];
            self.0.read_exact(&mut bytes).await?;
            Ok(bytes)
        })
        .await
    }

    pub(crate) async fn rest(&mut self) -> Answer<Vec<u8>> {
        limited("reading", PATIENCE, async {
            let mut bytes = Vec::new();
            self.0.read_to_end(&mut bytes).await?;
            Ok(bytes)
        })
        .await
    }
}
