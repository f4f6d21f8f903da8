//! The calls of a disk as a trace sees them.

use core_types::DiskErrorKind;

use super::faults::Effect;

/// A call that reached the disk and succeeded, as the trace keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskCall {
    /// `write_at`: path, offset, number of bytes.
    Write(String, u64, usize),
    /// `sync_data`
    Sync(String),
    /// `sync_dir`
    SyncDir(String),
    /// `rename`: from, to.
    Rename(String, String),
    /// `remove`
    Remove(String),
    /// A new file.
    Create(String),
    /// What a test noted with [`super::FaultyDisk::note`].
    Note(String),
}

/// What kind of call it is: faults and delays are set per class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallClass {
    /// `open` of a file that is there.
    Open,
    /// `open` that makes a file.
    Create,
    /// `list`
    List,
    /// `create_dir_all`
    CreateDir,
    /// `rename`
    Rename,
    /// `remove` and `remove_dir_all`
    Remove,
    /// `sync_dir`
    SyncDir,
    /// `read_at`
    Read,
    /// `write_at`
    Write,
    /// `set_len`, which is also how room is allocated.
    SetLen,
    /// `sync_data`
    Sync,
}

impl CallClass {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Open,
        Self::Create,
        Self::List,
        Self::CreateDir,
        Self::Rename,
        Self::Remove,
        Self::SyncDir,
        Self::Read,
        Self::Write,
        Self::SetLen,
        Self::Sync,
    ];

    /// A short name, for counters and traces.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Create => "create",
            Self::List => "list",
            Self::CreateDir => "create_dir",
            Self::Rename => "rename",
            Self::Remove => "remove",
            Self::SyncDir => "sync_dir",
            Self::Read => "read",
            Self::Write => "write",
            Self::SetLen => "set_len",
            Self::Sync => "sync",
        }
    }
}

/// One call, with what came of it; given to the hook of [`super::FaultyDisk::set_hook`].
#[derive(Clone, Debug)]
pub struct CallEvent<'a> {
    /// Its class.
    pub class: CallClass,
    /// The path of the file or directory.
    pub path: &'a str,
    /// The second path of a rename; empty otherwise.
    pub to: &'a str,
    /// The offset of a read or write.
    pub offset: u64,
    /// Bytes read or written; the new length for `set_len`.
    pub length: u64,
    /// BLAKE3 of the bytes read or written, or of the names listed (each followed by LF); zeros for the other classes.
    pub digest: [u8; 32],
    /// How it failed.
    pub failed: Option<DiskErrorKind>,
    /// The fault that hit it.
    pub effect: Option<Effect>,
}

impl CallEvent<'_> {
    /// The call as one line, the same for the same call, to be hashed or shown.
    #[must_use]
    pub fn line(&self) -> String {
        let digest: String = self.digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let mut line = format!(
            "{} {} {} {}+{} {digest}",
            self.class.name(),
            self.path,
            self.to,
            self.offset,
            self.length
        );
        if let Some(kind) = self.failed {
            line.push_str(&format!(" failed:{kind:?}"));
        }
        if let Some(effect) = self.effect {
            line.push_str(&format!(" fault:{}", effect.name()));
        }
        line
    }
}
