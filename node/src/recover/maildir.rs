//! Maildir++ folders: names of folders and files, keywords, dates.
//!
//! `DIR/<account>/` is the INBOX, `DIR/<account>/.a.b/` the mailbox `a/b`, in modified UTF-7 and with `.` in a level as `\2e`;
//! `mailboxes.tsv` says which is which. A file is `cur/<seconds>.<guid>.everpost,S=<octets>:2,<flags>`; its time of change is
//! the internal date. Keywords are the letters a to z of the file `dovecot-keywords`; more than 26 of a mailbox are only
//! named in `keywords.tsv`.
//!
//! Invariant: a file in `cur` is whole; no name from outside leads out of the target.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use core_types::{AccountId, Flags, MailboxGuid, MessageGuid};
use state::manifest::Kept;

/// The target directory.
pub(super) struct Maildirs {
    root: PathBuf,
    accounts: BTreeMap<AccountId, Account>,
    names: BTreeSet<String>,
}

/// One account's folder.
pub(super) struct Account {
    id: AccountId,
    name: String,
    address: Option<String>,
    root: PathBuf,
    mailboxes: BTreeMap<MailboxGuid, Arc<Folder>>,
    names: BTreeSet<String>,
}

/// One mailbox's folder.
pub(super) struct Folder {
    mailbox: String,
    directory: String,
    root: PathBuf,
    /// Keywords by their letters, and the messages with keywords that have none.
    keywords: Mutex<(Vec<String>, Vec<String>)>,
}

/// One message's file.
pub(super) struct Message {
    temporary: PathBuf,
    path: PathBuf,
}

impl Maildirs {
    pub(super) fn create(root: &Path) -> io::Result<Self> {
        make_directory(root)?;
        Ok(Self {
            root: root.to_owned(),
            accounts: BTreeMap::new(),
            names: ["accounts.tsv", "report.txt"].map(str::to_owned).into(),
        })
    }

    pub(super) fn account(&mut self, id: AccountId, address: Option<&str>) -> io::Result<&mut Account> {
        use std::collections::btree_map::Entry;
        let free = match self.accounts.entry(id) {
            Entry::Occupied(known) => return Ok(known.into_mut()),
            Entry::Vacant(free) => free,
        };
        let id_text = id.to_string();
        let usable = address.filter(|address| is_plain(address) && !self.names.contains(*address));
        let name = usable.unwrap_or(&id_text).to_owned();
        self.names.insert(name.clone());
        let root = self.root.join(&name);
        make_maildir(&root)?;
        Ok(free.insert(Account {
            id,
            name,
            address: address.map(str::to_owned),
            root,
            mailboxes: BTreeMap::new(),
            names: BTreeSet::new(),
        }))
    }

    pub(super) fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.values()
    }

    /// Writes which folder is whose, and makes everything durable.
    pub(super) fn finish(&self) -> io::Result<()> {
        let mut text = String::from("# folder\taccount\taddress\n");
        for account in self.accounts() {
            let address = account.address.as_deref().unwrap_or("-");
            text.push_str(&format!("{}\t{}\t{}\n", account.name, account.id, visible(address)));
        }
        fs::write(self.root.join("accounts.tsv"), text)?;
        Ok(rustix::fs::syncfs(fs::File::open(&self.root)?)?)
    }
}

impl Account {
    pub(super) fn mailbox(&mut self, guid: MailboxGuid, name: &str) -> io::Result<Arc<Folder>> {
        if let Some(known) = self.mailboxes.get(&guid) {
            return Ok(Arc::clone(known));
        }
        let mut directory = folder_name(name);
        if directory.len() > NAME_BYTES_MAX || self.names.contains(&directory) {
            directory = format!(".{guid}");
        }
        self.names.insert(directory.clone());
        let root = self.root.join(&directory);
        if !directory.is_empty() {
            make_maildir(&root)?;
            // Maildir++: says that this is a folder of the Maildir above.
            fs::write(root.join("maildirfolder"), "")?;
        }
        let folder = Arc::new(Folder {
            mailbox: name.to_owned(),
            directory,
            root,
            keywords: Mutex::default(),
        });
        self.mailboxes.insert(guid, Arc::clone(&folder));
        Ok(folder)
    }

    /// Writes which folder is which mailbox, and the keywords.
    pub(super) fn finish(&self) -> io::Result<()> {
        let mut text = String::from("# folder\tmailbox\tid\n");
        for (guid, folder) in &self.mailboxes {
            let directory = if folder.directory.is_empty() {
                "."
            } else {
                &folder.directory
            };
            text.push_str(&format!("{directory}\t{}\t{guid}\n", visible(&folder.mailbox)));
            folder.finish()?;
        }
        fs::write(self.root.join("mailboxes.tsv"), text)
    }
}

impl Folder {
    pub(super) fn name(&self) -> String {
        visible(&self.mailbox)
    }

    pub(super) fn message(&self, guid: MessageGuid, kept: &Kept) -> Message {
        let base = format!("{}.{guid}.everpost,S={}", kept.internal_date.seconds(), kept.size);
        let letters = self.letters(&base, &kept.flags);
        Message {
            temporary: self.root.join("tmp").join(&base),
            path: self.root.join("cur").join(format!("{base}:2,{letters}")),
        }
    }

    fn letters(&self, base: &str, flags: &Flags) -> String {
        const LETTERS: [(u8, char); 5] = [
            (Flags::DRAFT, 'D'),
            (Flags::FLAGGED, 'F'),
            (Flags::ANSWERED, 'R'),
            (Flags::SEEN, 'S'),
            (Flags::DELETED, 'T'),
        ];
        let mut letters: String = LETTERS
            .iter()
            .filter(|(bit, _)| flags.has(*bit))
            .map(|(_, letter)| *letter)
            .collect();
        let mut found = Vec::new();
        let mut keywords = self.keywords.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, beyond) = &mut *keywords;
        for keyword in &flags.keywords {
            let keyword = keyword.as_str();
            let place = known
                .iter()
                .position(|word| word.eq_ignore_ascii_case(keyword))
                .unwrap_or_else(|| {
                    known.push(keyword.to_owned());
                    known.len() - 1
                });
            match ('a'..='z').nth(place) {
                Some(letter) => found.push(letter),
                None => beyond.push(format!("{base}\t{keyword}\n")),
            }
        }
        found.sort_unstable();
        letters.extend(found);
        letters
    }

    fn finish(&self) -> io::Result<()> {
        let keywords = self.keywords.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, beyond) = &*keywords;
        if !known.is_empty() {
            let lines = known.iter().take(26).enumerate();
            let lines: String = lines.map(|(number, word)| format!("{number} {word}\n")).collect();
            fs::write(self.root.join("dovecot-keywords"), lines)?;
        }
        if !beyond.is_empty() {
            fs::write(self.root.join("keywords.tsv"), beyond.concat())?;
        }
        Ok(())
    }
}

impl Message {
    pub(super) fn create(&self) -> io::Result<fs::File> {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        options.open(&self.temporary)
    }

    /// Gives the whole file its name and date.
    pub(super) fn keep(&self, file: fs::File, kept: &Kept) -> io::Result<()> {
        if let Some(date) = UNIX_EPOCH.checked_add(Duration::from_millis(kept.internal_date.0)) {
            // A date that the file system cannot hold is no reason to lose a message.
            let _ = file.set_modified(date);
        }
        drop(file);
        fs::rename(&self.temporary, &self.path)
    }

    pub(super) fn discard(&self) -> io::Result<()> {
        fs::remove_file(&self.temporary)
    }
}

/// Empty for the INBOX, which is the account's folder itself.
fn folder_name(mailbox: &str) -> String {
    if mailbox.eq_ignore_ascii_case("INBOX") {
        return String::new();
    }
    let mut name = String::new();
    for level in mailbox.split(core_types::MailboxName::SEPARATOR) {
        name.push('.');
        let level = level.replace('\\', "\\5c").replace('.', "\\2e");
        // Base64 of modified UTF-7 has a comma for the solidus, so no level brings one in.
        name.push_str(&imap_proto::mailbox_name::encode_utf7(&level));
    }
    name
}

/// Whether an address may be the name of a directory as it is.
fn is_plain(address: &str) -> bool {
    !address.starts_with(['.', '-'])
        && address.len() <= NAME_BYTES_MAX
        && address
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"@.-_+=".contains(&byte))
}

/// Without control characters, for a line of a text file.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn make_maildir(root: &Path) -> io::Result<()> {
    for directory in ["cur", "new", "tmp"] {
        make_directory(&root.join(directory))?;
    }
    Ok(())
}

fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Octets of a name in the target. Reason: file systems take 255, and a name may be written with a suffix.
const NAME_BYTES_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_folders_lead_nowhere_else() {
        for (mailbox, folder) in [
            ("INBOX", ""),
            ("INBOX/x", ".INBOX.x"),
            ("Sent", ".Sent"),
            ("a.b/..", ".a\\2eb.\\2e\\2e"),
            ("\u{e4}", ".&AOQ-"),
            ("a\\b", ".a\\5cb"),
        ] {
            assert_eq!(folder_name(mailbox), folder);
        }
        assert!(is_plain("ann.b+c@example.test") && !is_plain("a/../b@c") && !is_plain("..") && !is_plain("\u{e4}@x"));
    }
}
