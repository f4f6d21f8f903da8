//! What goes to a client: gathered, bounded, and given up when the client does not read.

use std::io;

use core_types::limits::{OUTPUT_BUFFER_BYTES, WRITE_TIMEOUT};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Gathers small answers into large writes. Holds at most [`OUTPUT_BUFFER_BYTES`] and what is being added.
#[derive(Debug, Default)]
pub struct Output {
    buffer: Vec<u8>,
}

/// Why the client did not get an answer. The connection is to be closed.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The client did not read for [`WRITE_TIMEOUT`].
    #[error("the client does not read its answers")]
    Timeout,
}

impl Output {
    /// Adds bytes; writes to the stream what is more than the buffer may hold.
    ///
    /// # Errors
    /// [`OutputError`].
    pub async fn add(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin + ?Sized),
        bytes: &[u8],
    ) -> Result<(), OutputError> {
        if self.buffer.len() + bytes.len() > OUTPUT_BUFFER_BYTES {
            self.drain(stream).await?;
            if bytes.len() >= OUTPUT_BUFFER_BYTES {
                return write(stream, bytes).await;
            }
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes everything, and flushes the stream.
    ///
    /// # Errors
    /// [`OutputError`].
    pub async fn flush(&mut self, stream: &mut (impl AsyncWrite + Unpin + ?Sized)) -> Result<(), OutputError> {
        self.drain(stream).await?;
        match tokio::time::timeout(WRITE_TIMEOUT, stream.flush()).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(OutputError::Timeout),
        }
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    async fn drain(&mut self, stream: &mut (impl AsyncWrite + Unpin + ?Sized)) -> Result<(), OutputError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        write(stream, &self.buffer).await?;
        self.buffer.clear();
        // An idle session is not to keep the memory of one large answer.
        self.buffer.shrink_to(KEPT_BYTES);
        Ok(())
    }
}

async fn write(stream: &mut (impl AsyncWrite + Unpin + ?Sized), bytes: &[u8]) -> Result<(), OutputError> {
    for piece in bytes.chunks(OUTPUT_BUFFER_BYTES) {
        match tokio::time::timeout(WRITE_TIMEOUT, stream.write_all(piece)).await {
            Ok(result) => result?,
            Err(_) => return Err(OutputError::Timeout),
        }
    }
    Ok(())
}

/// What an empty buffer keeps.
const KEPT_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn answers_come_in_order_and_the_buffer_stays_small() {
        let (mut client, mut server) = tokio::io::duplex(1024);
        let sent: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            let mut output = Output::default();
            for piece in sent.chunks(70_001) {
                output.add(&mut server, piece).await.unwrap();
                output.add(&mut server, b"").await.unwrap();
                assert!(output.buffer.len() <= OUTPUT_BUFFER_BYTES);
            }
            output.flush(&mut server).await.unwrap();
        });
        let mut received = Vec::new();
        client.read_to_end(&mut received).await.unwrap();
        writer.await.unwrap();
        assert_eq!(received, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_given_up() {
        let (_client, mut server) = tokio::io::duplex(16);
        let mut output = Output::default();
        output.add(&mut server, &[0; 100]).await.unwrap();
        assert!(matches!(output.flush(&mut server).await, Err(OutputError::Timeout)));
    }
}
