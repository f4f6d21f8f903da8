//! The client's end of a session: octets that wait to be read, answers that wait to be sent.
//!
//! Not here: what any of it means.

use std::time::Duration;

use core_types::limits::IMAP_READ_AHEAD_BYTES_MAX;
use core_types::{Flags, Uid};
use imap_proto::{Code, Encoder, FetchEncoder, Tag};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use wire::{BoxStream, Output, Shutdown};

use crate::errors::{Answer, End};

/// A connected client.
pub(crate) struct Client {
    stream: BoxStream,
    output: Output,
    shutdown: Shutdown,
    /// Read ahead while a long command ran.
    pending: Vec<u8>,
}

/// Why reading returned.
pub(crate) enum Read {
    /// These octets, at least one.
    Octets(Vec<u8>),
    /// The deadline passed.
    Late,
}

impl Client {
    pub(crate) fn new(stream: BoxStream, shutdown: Shutdown) -> Self {
        Self {
            stream,
            output: Output::default(),
            shutdown,
            pending: Vec::new(),
        }
    }

    /// What the client sends next, at most `size_max` octets or what was read ahead. Can be cancelled without loss.
    pub(crate) async fn read(&mut self, size_max: usize, deadline: Instant) -> Result<Read, End> {
        if !self.pending.is_empty() {
            return Ok(Read::Octets(std::mem::take(&mut self.pending)));
        }
        let mut octets = vec![0; size_max];
        tokio::select! {
            biased;
            () = self.shutdown.stopped() => Err(End::Bye("The server is going down")),
            count = self.stream.read(&mut octets) => match count {
                Ok(0) | Err(_) => Err(End::Gone),
                Ok(count) => {
                    octets.truncate(count);
                    Ok(Read::Octets(octets))
                }
            },
            () = tokio::time::sleep_until(deadline) => Ok(Read::Late),
        }
    }

    /// Lets others run, and finds out whether the client is still there, for commands that take long.
    pub(crate) async fn pause(&mut self) -> Result<(), End> {
        tokio::task::yield_now().await;
        if self.shutdown.is_stopped() {
            return Err(End::Bye("The server is going down"));
        }
        if self.pending.len() >= IMAP_READ_AHEAD_BYTES_MAX {
            return Ok(());
        }
        let mut octets = [0; 256];
        tokio::select! {
            biased;
            count = self.stream.read(&mut octets) => match count {
                Ok(0) | Err(_) => Err(End::Gone),
                Ok(count) => {
                    self.pending.extend_from_slice(octets.get(..count).unwrap_or(&[]));
                    Ok(())
                }
            },
            () = std::future::ready(()) => Ok(()),
        }
    }

    /// Writes responses.
    pub(crate) async fn say(&mut self, encode: impl FnOnce(&mut Encoder<'_>)) -> Result<(), End> {
        let mut octets = Vec::new();
        encode(&mut Encoder::new(&mut octets));
        self.send(&octets).await
    }

    /// Writes a message's flags.
    pub(crate) async fn say_flags(
        &mut self,
        sequence_number: u32,
        uid: Option<Uid>,
        flags: &Flags,
        recent: bool,
    ) -> Result<(), End> {
        let mut octets = Vec::new();
        let mut fetch = FetchEncoder::begin(&mut octets, sequence_number);
        if let Some(uid) = uid {
            fetch = fetch.uid(uid);
        }
        fetch.flags(flags, recent).finish();
        self.send(&octets).await
    }

    /// Writes octets that are responses, or a part of one.
    pub(crate) async fn send(&mut self, octets: &[u8]) -> Result<(), End> {
        Ok(self.output.add(&mut self.stream, octets).await?)
    }

    /// Writes a command's end.
    pub(crate) async fn answer(&mut self, tag: &Tag, answer: &Answer) -> Result<(), End> {
        self.say(|encoder| encoder.tagged(tag, answer.status, answer.code.as_ref(), answer.text))
            .await
    }

    /// Sends everything that was written.
    pub(crate) async fn flush(&mut self) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        Ok(self.output.flush(&mut self.stream).await?)
    }

    /// The last words, of BYE: not waited for as long as others.
    pub(crate) async fn close(&mut self, bye: Option<(Option<Code>, &str)>) {
        let last = async {
            if let Some((code, text)) = bye {
                self.say(|encoder| encoder.untagged(imap_proto::Status::Bye, code.as_ref(), text))
                    .await?;
            }
            self.flush().await
        };
        let _ = tokio::time::timeout(LAST_WORDS_TIME, last).await;
        // Boxed streams of TLS say goodbye on shutdown; whoever does not listen is not waited for.
        let shutdown = tokio::io::AsyncWriteExt::shutdown(&mut self.stream);
        let _ = tokio::time::timeout(LAST_WORDS_TIME, shutdown).await;
    }

    /// Puts another stream in the place of this one (STARTTLS). What was read ahead is dropped with it.
    pub(crate) fn take_stream(&mut self) -> BoxStream {
        self.pending.clear();
        std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()))
    }

    pub(crate) fn set_stream(&mut self, stream: BoxStream) {
        self.stream = stream;
    }

    /// Whether octets wait that were read ahead.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }
}

/// How long the last words may take.
const LAST_WORDS_TIME: Duration = Duration::from_secs(5);
