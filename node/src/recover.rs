//! `everpost recover mail --from-blobs`: mailboxes from a stopped node's blobs and manifests, when everything else is gone.
//!
//! Reads `manifest/` and `blobs/` (and the blob journal) of one data directory, and writes for each account a Maildir++
//! folder; every octet is verified against the hash in the manifest. Index and log are not looked at. What cannot be read is
//! listed in `report.txt`, and the rest is written.
//!
//! Not here: what a line says (`state::manifest`), how a Maildir looks (its own module).

mod maildir;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use blobstore::{BlobConfig, BlobError, BlobStore, Manifest, ManifestLine};
use core_types::{AccountId, BlockingPool, Disk, Entropy, GroupId};
use ctl::{Exit, Failure, output};
use platform::{LockError, RealDisk, SystemEntropy, TokioPool};
use state::manifest::{self, Kept, Replay};

use maildir::{Account, Maildirs};

/// Rebuilds the mailboxes of a stopped node.
///
/// # Errors
/// [`Exit::NoSuchObject`] without a data directory with manifests; [`Exit::Exists`] when the target is there and not empty;
/// [`Exit::TryAgain`] while a node holds the data directory; [`Exit::Failed`] when something could not be written, and, with
/// everything else written, when messages could not be read.
pub async fn mail(from_blobs: &Path, to: &Path) -> Result<(), Failure> {
    let lacking = |what: &str| {
        let text = format!("{}: {what}; name a node's data directory", from_blobs.display());
        Failure::new(Exit::NoSuchObject, text)
    };
    if !from_blobs.is_dir() {
        return Err(lacking("no such directory"));
    }
    if !from_blobs.join("manifest").is_dir() {
        return Err(lacking("there is no directory `manifest` in it"));
    }
    check_target(to)?;
    let disk = RealDisk::open(from_blobs).map_err(|error| match error {
        LockError::InUse(path) => Failure::new(
            Exit::TryAgain,
            format!("{} is in use: stop the node first", path.display()),
        ),
        error @ LockError::Io(..) => failed(&error),
    })?;
    let disk: Arc<dyn Disk> = Arc::new(disk);
    let pool: Arc<dyn BlockingPool> = Arc::new(TokioPool::new(tokio::runtime::Handle::current()));
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let manifest = Manifest::open(Arc::clone(&disk), Arc::clone(&pool))
        .await
        .map_err(|error| failed(&error))?;
    let blobs = BlobStore::open(BlobConfig::default(), disk, pool, entropy)
        .await
        .map_err(|error| failed(&error))?;
    let groups = manifest.groups().await.map_err(|error| failed(&error))?;
    if groups.is_empty() {
        return Err(lacking("there is no manifest in it"));
    }
    let mut recovery = Recovery {
        blobs,
        maildirs: Maildirs::create(to).map_err(|error| failed(&error))?,
        addresses: BTreeMap::new(),
        count: Count::default(),
        report: Vec::new(),
    };
    for group in groups {
        recovery.group(&manifest, group).await?;
    }
    recovery.finish(to)
}

fn check_target(to: &Path) -> Result<(), Failure> {
    let mut entries = match fs::read_dir(to) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Failure::new(Exit::Exists, format!("{}: {error}", to.display()))),
    };
    if entries.next().is_some() {
        let text = format!("{} is not empty: name a new directory", to.display());
        return Err(Failure::new(Exit::Exists, text));
    }
    Ok(())
}

struct Recovery {
    blobs: BlobStore,
    maildirs: Maildirs,
    addresses: BTreeMap<AccountId, String>,
    count: Count,
    /// What could not be read, as lines.
    report: Vec<String>,
}

#[derive(Default)]
struct Count {
    written: u64,
    unreadable: u64,
    damaged_lines: u64,
    unknown_lines: u64,
}

impl Recovery {
    async fn group(&mut self, manifest: &Manifest, group: GroupId) -> Result<(), Failure> {
        output::note(&format!("group {group}: reading the manifest"));
        let mut lines = manifest.lines(group).await.map_err(|error| failed(&error))?;
        let mut replay = Replay::default();
        loop {
            let page = lines.next_page().await.map_err(|error| failed(&error))?;
            if page.is_empty() {
                break;
            }
            for line in page {
                match line {
                    ManifestLine::Good(line) => match manifest::parse(&line) {
                        Some(line) => replay.take(line),
                        None => {
                            self.count.unknown_lines += 1;
                            replay.damage();
                        }
                    },
                    ManifestLine::Damaged(_) => {
                        self.count.damaged_lines += 1;
                        replay.damage();
                    }
                }
            }
        }
        // The directory group is the first: every address is known before the first mailbox.
        for (account, address) in replay.addresses() {
            self.addresses.insert(account, address.to_owned());
        }
        let total = replay.messages().count();
        if total > 0 {
            output::note(&format!("group {group}: {total} messages"));
        }
        self.write(&replay, total).await
    }

    async fn write(&mut self, replay: &Replay, total: usize) -> Result<(), Failure> {
        let mut mailboxes = BTreeMap::new();
        for (id, mailbox, name) in replay.mailboxes() {
            let address = self.addresses.get(&id).map(String::as_str);
            let account = self.maildirs.account(id, address).map_err(|error| failed(&error))?;
            let folder = account.mailbox(mailbox, name).map_err(|error| failed(&error))?;
            mailboxes.insert((id, mailbox), folder);
        }
        // By mailbox and UID, so that the order of the files is the mailbox's.
        let mut messages: Vec<_> = replay.messages().collect();
        messages.sort_unstable_by_key(|(account, _, kept)| (*account, kept.mailbox, kept.uid));
        for (done, (account, guid, kept)) in messages.into_iter().enumerate() {
            if done > 0 && done.is_multiple_of(PROGRESS_MESSAGES) {
                output::note(&format!("{done} of {total} messages"));
            }
            let Some(folder) = mailboxes.get(&(account, kept.mailbox)) else {
                continue;
            };
            let message = folder.message(guid, kept);
            let mut file = message.create().map_err(|error| failed(&error))?;
            match copy(&self.blobs, kept, &mut file).await? {
                None => {
                    message.keep(file, kept).map_err(|error| failed(&error))?;
                    self.count.written += 1;
                }
                Some(reason) => {
                    drop(file);
                    message.discard().map_err(|error| failed(&error))?;
                    self.count.unreadable += 1;
                    self.report.push(format!(
                        "unreadable\t{account}\t{}\t{guid}\tuid {}\tblob {}\t{reason}",
                        folder.name(),
                        kept.uid,
                        kept.blob
                    ));
                }
            }
        }
        Ok(())
    }

    fn finish(self, to: &Path) -> Result<(), Failure> {
        let accounts: Vec<&Account> = self.maildirs.accounts().collect();
        for account in &accounts {
            account.finish().map_err(|error| failed(&error))?;
        }
        let Count {
            written,
            unreadable,
            damaged_lines,
            unknown_lines,
        } = self.count;
        let mut report = format!(
            "{written} messages of {} accounts written, {unreadable} not readable\n{damaged_lines} damaged lines in the \
             manifests, {unknown_lines} of a kind not known\n",
            accounts.len()
        );
        for line in &self.report {
            report.push_str(line);
            report.push('\n');
        }
        fs::write(to.join("report.txt"), report).map_err(|error| failed(&error))?;
        self.maildirs.finish().map_err(|error| failed(&error))?;
        output::line(&format!(
            "{written} messages of {} accounts are in {}.",
            accounts.len(),
            to.display()
        ));
        if damaged_lines + unknown_lines > 0 {
            output::note(&format!(
                "{} lines of the manifests could not be used: what they said is missing or older than it was.",
                damaged_lines + unknown_lines
            ));
        }
        if unreadable > 0 {
            return Err(Failure::new(
                Exit::Failed,
                format!(
                    "{unreadable} messages could not be read; report.txt lists them. Try another node's data directory"
                ),
            ));
        }
        Ok(())
    }
}

/// Copies a blob, verified; why it cannot be read, if so.
async fn copy(blobs: &BlobStore, kept: &Kept, file: &mut fs::File) -> Result<Option<String>, Failure> {
    let unreadable = |error: BlobError| Ok(Some(error.to_string()));
    let reader = match blobs.open_blob(kept.blob).await {
        Ok(reader) => reader,
        Err(error) => return unreadable(error),
    };
    let mut chunks = reader.read_range(0..u64::MAX);
    // The reader verifies each octet against the blob's name.
    let mut copied = 0;
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(chunk) => {
                copied += chunk.len() as u64;
                file.write_all(&chunk).map_err(|error| failed(&error))?;
            }
            Err(error) => return unreadable(error),
        }
    }
    if copied != kept.size {
        return Ok(Some(format!("{copied} octets instead of {}", kept.size)));
    }
    Ok(None)
}

fn failed(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Exit::Failed, error.to_string())
}

/// Messages between two lines of progress.
const PROGRESS_MESSAGES: usize = 1000;

#[cfg(test)]
mod tests;
