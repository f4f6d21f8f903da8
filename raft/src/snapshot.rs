//! Files of snapshots: `snapshots/<group>-<incarnation>-<term>-<index>.snap` in the data directory.
//!
//! ```text
//! "EVERSNAP" | header length (4) | header (codec) | { key length (4) | value length (4) | key | value }
//!            | FFFFFFFF | number of rows (8) | BLAKE3 of everything before it (32)
//! ```
//! Numbers are little-endian; rows are in ascending order of their logical keys. A file gets its name only when it is durable
//! under a temporary one; whoever made it then reads it back, and only a file that was read back may let the log be purged.
//!
//! Not here: where rows come from and go to; sending files to other nodes ([`crate::transfer`]).

use std::fmt;
use std::sync::Arc;

use core_types::codec;
use core_types::{Disk, DiskError, DiskErrorKind, File, GroupId, Incarnation, OpenMode};
use serde::{Deserialize, Serialize};

use crate::generation::Rows;
use crate::types::SnapshotMeta;

/// Where the files are.
pub(crate) const DIRECTORY: &str = "snapshots";
const MAGIC: &[u8; 8] = b"EVERSNAP";
const HEADER_VERSION: u8 = 1;
/// Octets of a header: a membership of all replicas there can be is far below.
const HEADER_BYTES_MAX: u32 = 64 * 1024;
/// Octets of one key or value.
const FIELD_BYTES_MAX: u32 = 16 * 1024 * 1024;
const END_OF_ROWS: u32 = u32::MAX;
const BUFFER_BYTES: usize = 256 * 1024;
const BEHIND_VERSION: u8 = 1;
/// Octets of a note.
const BEHIND_BYTES_MAX: u64 = 64;
/// Octets of the reason in a mark.
const REASON_BYTES_MAX: u64 = 4096;

/// Whose state a file holds, and as of when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) group: GroupId,
    pub(crate) incarnation: Incarnation,
    pub(crate) meta: SnapshotMeta,
}

/// A whole and verified snapshot. The open file keeps its bytes readable even after it is replaced.
#[derive(Clone)]
pub(crate) struct SnapshotFile {
    pub(crate) path: String,
    pub(crate) header: Header,
    /// Octets of the file.
    pub(crate) length: u64,
    /// The BLAKE3 at its end, which is also how a transfer of it is named.
    pub(crate) hash: [u8; 32],
    pub(crate) file: Arc<dyn File>,
}

impl fmt::Debug for SnapshotFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.path, self.length)
    }
}

/// The name of the snapshot at a log id.
pub(crate) fn path_of(header: &Header) -> String {
    let (term, index) = header
        .meta
        .last_log_id
        .as_ref()
        .map_or((0, 0), |id| (id.leader_id.term, id.index));
    format!(
        "{DIRECTORY}/{}-{}-{term}-{index}.snap",
        header.group, header.incarnation
    )
}

/// Writes a new snapshot under a temporary name.
pub(crate) struct Writer {
    disk: Arc<dyn Disk>,
    header: Header,
    temporary: String,
    file: Arc<dyn File>,
    buffer: Vec<u8>,
    written: u64,
    hasher: blake3::Hasher,
    rows: u64,
    is_published: bool,
}

impl Drop for Writer {
    /// A file that was given up, on a full disk above all, leaves nothing.
    fn drop(&mut self) {
        if !self.is_published && self.disk.remove(&self.temporary).is_err() {
            tracing::warn!(
                path = self.temporary,
                "an unfinished snapshot stays until the next start"
            );
        }
    }
}

impl Writer {
    pub(crate) fn create(disk: Arc<dyn Disk>, header: Header) -> Result<Self, DiskError> {
        disk.create_dir_all(DIRECTORY)?;
        let temporary = format!("{}.tmp", path_of(&header));
        let encoded = codec::encode(HEADER_VERSION, &header, u64::from(HEADER_BYTES_MAX) - 1)
            .map_err(|error| DiskError::new(DiskErrorKind::Other, &temporary, error.to_string()))?;
        let file = disk.open(&temporary, OpenMode::CreateOrOpen)?;
        let mut writer = Self {
            disk,
            header,
            temporary,
            file,
            buffer: MAGIC.to_vec(),
            written: 0,
            hasher: blake3::Hasher::new(),
            rows: 0,
            is_published: false,
        };
        // The limit above is far below 2^32.
        writer
            .buffer
            .extend_from_slice(&u32::try_from(encoded.len()).unwrap_or(END_OF_ROWS).to_le_bytes());
        writer.buffer.extend_from_slice(&encoded);
        writer.file.set_len(0)?;
        Ok(writer)
    }

    pub(crate) fn add(&mut self, rows: &[(Vec<u8>, Vec<u8>)]) -> Result<(), DiskError> {
        for (key, value) in rows {
            for part in [key, value] {
                let length = u32::try_from(part.len())
                    .ok()
                    .filter(|length| *length <= FIELD_BYTES_MAX)
                    .ok_or_else(|| DiskError::new(DiskErrorKind::Other, &self.temporary, "a row is too large"))?;
                self.buffer.extend_from_slice(&length.to_le_bytes());
            }
            self.buffer.extend_from_slice(key);
            self.buffer.extend_from_slice(value);
            self.rows += 1;
            if self.buffer.len() >= BUFFER_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Ends the file and makes it durable, not under its name yet.
    pub(crate) fn seal(&mut self) -> Result<(), DiskError> {
        self.buffer.extend_from_slice(&END_OF_ROWS.to_le_bytes());
        self.buffer.extend_from_slice(&self.rows.to_le_bytes());
        self.flush()?;
        let hash = *self.hasher.finalize().as_bytes();
        self.file.write_at(self.written, &hash)?;
        self.file.sync_data()
    }

    /// Gives a sealed file its name, durably; returns the name. It is to be verified before it is relied on.
    pub(crate) fn publish(mut self) -> Result<String, DiskError> {
        let path = path_of(&self.header);
        publish(&*self.disk, &self.temporary, &path)?;
        self.is_published = true;
        Ok(path)
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.hasher.update(&self.buffer);
        self.file.write_at(self.written, &self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

/// Gives a durable file its name, durably.
pub(crate) fn publish(disk: &dyn Disk, temporary: &str, path: &str) -> Result<(), DiskError> {
    disk.rename(temporary, path)?;
    disk.sync_dir(DIRECTORY)
}

/// Reads a whole file and checks its structure and its hash.
///
/// # Errors
/// `Other` for a file that is not a whole snapshot.
pub(crate) fn verify(disk: &dyn Disk, path: &str) -> Result<SnapshotFile, DiskError> {
    let file = disk.open(path, OpenMode::Read)?;
    let mut reader = RowReader::open(path, Arc::clone(&file))?;
    while !reader.next_rows(BUFFER_BYTES)?.is_empty() {}
    let Some(hash) = reader.verified else {
        return Err(reader.damaged("rows do not end"));
    };
    Ok(SnapshotFile {
        path: path.to_owned(),
        header: reader.header,
        length: reader.offset,
        hash,
        file,
    })
}

/// The newest whole snapshot of a group. Unfinished and damaged files and older snapshots are removed.
pub(crate) fn load_newest(
    disk: &dyn Disk,
    group: GroupId,
    incarnation: Incarnation,
) -> Result<Option<SnapshotFile>, DiskError> {
    let names = match disk.list(DIRECTORY) {
        Ok(names) => names,
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let prefix = format!("{group}-{incarnation}-");
    let mut found: Vec<((u64, u64), String)> = Vec::new();
    for name in names.into_iter().filter(|name| name.starts_with(&prefix)) {
        let path = format!("{DIRECTORY}/{name}");
        match name
            .strip_prefix(&prefix)
            .and_then(|rest| rest.strip_suffix(".snap"))
            .and_then(|rest| {
                let (term, index) = rest.split_once('-')?;
                Some((index.parse().ok()?, term.parse().ok()?))
            }) {
            Some(place) => found.push((place, path)),
            None => disk.remove(&path)?,
        }
    }
    found.sort();
    let mut newest: Option<SnapshotFile> = None;
    for (_, path) in found.into_iter().rev() {
        if newest.is_some() {
            disk.remove(&path)?;
            continue;
        }
        match verify(disk, &path) {
            Ok(file) if file.header.group == group && file.header.incarnation == incarnation => newest = Some(file),
            Ok(_) => disk.remove(&path)?,
            Err(error) => {
                tracing::error!(path, error = %error, "damaged snapshot removed");
                disk.remove(&path)?;
            }
        }
    }
    Ok(newest)
}

/// The mark of a replica that must not take part any more before it was taken out of its group.
pub(crate) fn mark_path(group: GroupId, incarnation: Incarnation) -> String {
    format!("{DIRECTORY}/{group}-{incarnation}.repair")
}

/// Sets that mark, durably, with the reason; the first reason stays.
pub(crate) fn mark(disk: &dyn Disk, group: GroupId, incarnation: Incarnation, reason: &str) -> Result<(), DiskError> {
    disk.create_dir_all(DIRECTORY)?;
    let file = disk.open(&mark_path(group, incarnation), OpenMode::CreateOrOpen)?;
    if file.is_empty()? {
        file.write_at(0, reason.as_bytes())?;
    }
    file.sync_data()?;
    disk.sync_dir(DIRECTORY)
}

/// The reason in that mark, if it is set.
pub(crate) fn marked(disk: &dyn Disk, group: GroupId, incarnation: Incarnation) -> Result<Option<String>, DiskError> {
    let file = match disk.open(&mark_path(group, incarnation), OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; usize::try_from(file.len()?.min(REASON_BYTES_MAX)).unwrap_or(0)];
    file.read_exact_at(0, &mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The note of a replica that begins anew: up to which entry it was taken out of the group.
fn behind_path(group: GroupId, incarnation: Incarnation) -> String {
    format!("{DIRECTORY}/{group}-{incarnation}.behind")
}

/// Notes, durably, that a replica is not to elect before it has applied the entry of this index.
pub(crate) fn note_behind(
    disk: &dyn Disk,
    group: GroupId,
    incarnation: Incarnation,
    index: u64,
) -> Result<(), DiskError> {
    let path = behind_path(group, incarnation);
    let temporary = format!("{path}.tmp");
    let bytes = codec::encode(BEHIND_VERSION, &index, BEHIND_BYTES_MAX)
        .map_err(|error| DiskError::new(DiskErrorKind::Other, &path, error.to_string()))?;
    disk.create_dir_all(DIRECTORY)?;
    let file = disk.open(&temporary, OpenMode::CreateOrOpen)?;
    file.set_len(0)?;
    file.write_at(0, &bytes)?;
    file.sync_data()?;
    publish(disk, &temporary, &path)
}

/// What that note says.
///
/// # Errors
/// `Other` for a note that does not decode.
pub(crate) fn noted_behind(
    disk: &dyn Disk,
    group: GroupId,
    incarnation: Incarnation,
) -> Result<Option<u64>, DiskError> {
    let path = behind_path(group, incarnation);
    let file = match disk.open(&path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; usize::try_from(file.len()?.min(BEHIND_BYTES_MAX)).unwrap_or(0)];
    file.read_exact_at(0, &mut bytes)?;
    codec::decode(BEHIND_VERSION, &bytes, BEHIND_BYTES_MAX)
        .map(Some)
        .map_err(|error| DiskError::new(DiskErrorKind::Other, &path, error.to_string()))
}

/// Removes that note, if there is one.
pub(crate) fn forget_behind(disk: &dyn Disk, group: GroupId, incarnation: Incarnation) -> Result<(), DiskError> {
    match disk.remove(&behind_path(group, incarnation)) {
        Ok(()) => disk.sync_dir(DIRECTORY),
        Err(error) if error.kind == DiskErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes the snapshots of a group, whole or not.
pub(crate) fn remove_all(disk: &dyn Disk, group: GroupId, incarnation: Incarnation) -> Result<(), DiskError> {
    let names = match disk.list(DIRECTORY) {
        Ok(names) => names,
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let prefix = format!("{group}-{incarnation}-");
    for name in names.into_iter().filter(|name| name.starts_with(&prefix)) {
        disk.remove(&format!("{DIRECTORY}/{name}"))?;
    }
    disk.sync_dir(DIRECTORY)
}

/// Removes the mark, if there is one. Nothing of the replica that it warns of is left.
pub(crate) fn unmark(disk: &dyn Disk, group: GroupId, incarnation: Incarnation) -> Result<(), DiskError> {
    match disk.remove(&mark_path(group, incarnation)) {
        Ok(()) => disk.sync_dir(DIRECTORY),
        Err(error) if error.kind == DiskErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads the rows of a file from its beginning.
pub(crate) struct RowReader {
    path: String,
    file: Arc<dyn File>,
    pub(crate) header: Header,
    /// Where the next bytes are read from the file.
    offset: u64,
    buffer: Vec<u8>,
    /// Up to where `buffer` is used.
    used: usize,
    hasher: blake3::Hasher,
    rows: u64,
    /// The file's hash, once its end was reached and everything agreed.
    verified: Option<[u8; 32]>,
}

impl RowReader {
    pub(crate) fn open(path: &str, file: Arc<dyn File>) -> Result<Self, DiskError> {
        let damaged = |what: &str| DiskError::new(DiskErrorKind::Other, path, format!("damaged snapshot: {what}"));
        let mut start = [0; 12];
        file.read_exact_at(0, &mut start)?;
        let (magic, length) = start.split_at(MAGIC.len());
        let length = length.try_into().map(u32::from_le_bytes).unwrap_or_default();
        if magic != MAGIC || length > HEADER_BYTES_MAX {
            return Err(damaged("header"));
        }
        let mut encoded = vec![0; length as usize];
        file.read_exact_at(start.len() as u64, &mut encoded)?;
        let header = codec::decode(HEADER_VERSION, &encoded, u64::from(HEADER_BYTES_MAX))
            .map_err(|error| damaged(&error.to_string()))?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(&start);
        hasher.update(&encoded);
        Ok(Self {
            path: path.to_owned(),
            file,
            header,
            offset: start.len() as u64 + u64::from(length),
            buffer: Vec::new(),
            used: 0,
            hasher,
            rows: 0,
            verified: None,
        })
    }

    /// The next rows, about `bytes` octets of them; none at the end, and only if the whole file agreed with its hash.
    pub(crate) fn next_rows(&mut self, bytes: usize) -> Result<Rows, DiskError> {
        let mut rows = Vec::new();
        let mut taken = 0;
        while taken < bytes && self.verified.is_none() {
            let key_length = self.number()?;
            if key_length == END_OF_ROWS {
                self.end()?;
                break;
            }
            let value_length = self.number()?;
            if key_length > FIELD_BYTES_MAX || value_length > FIELD_BYTES_MAX {
                return Err(self.damaged("length of a row"));
            }
            let key = self.take(key_length as usize)?;
            let value = self.take(value_length as usize)?;
            taken += key.len() + value.len() + 8;
            rows.push((key, value));
            self.rows += 1;
        }
        Ok(rows)
    }

    fn end(&mut self) -> Result<(), DiskError> {
        let count = self.take(8)?;
        if count != self.rows.to_le_bytes() {
            return Err(self.damaged("number of rows"));
        }
        let computed = *self.hasher.finalize().as_bytes();
        if self.take(32)? != computed {
            return Err(self.damaged("hash"));
        }
        if self.used != self.buffer.len() || self.file.len()? != self.offset {
            return Err(self.damaged("bytes behind the end"));
        }
        self.verified = Some(computed);
        Ok(())
    }

    fn number(&mut self) -> Result<u32, DiskError> {
        Ok(self.take(4)?.try_into().map(u32::from_le_bytes).unwrap_or_default())
    }

    fn take(&mut self, count: usize) -> Result<Vec<u8>, DiskError> {
        while self.buffer.len() - self.used < count {
            self.buffer.drain(..self.used);
            self.used = 0;
            let old = self.buffer.len();
            self.buffer.resize(old + BUFFER_BYTES, 0);
            let got = self
                .file
                .read_at(self.offset, self.buffer.get_mut(old..).unwrap_or_default())?;
            self.buffer.truncate(old + got);
            self.offset += got as u64;
            if got == 0 {
                return Err(self.damaged("file ends early"));
            }
        }
        let bytes = self
            .buffer
            .get(self.used..self.used + count)
            .unwrap_or_default()
            .to_vec();
        self.used += count;
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    fn damaged(&self, what: &str) -> DiskError {
        DiskError::new(DiskErrorKind::Other, &self.path, format!("damaged snapshot: {what}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use platform::FaultyDisk;

    fn header(index: u64) -> Header {
        let last_log_id = Some(crate::types::log_id(1, index));
        Header {
            group: GroupId(3),
            incarnation: Incarnation(1),
            meta: SnapshotMeta {
                last_log_id,
                ..SnapshotMeta::default()
            },
        }
    }

    fn rows(count: u32) -> Vec<(Vec<u8>, Vec<u8>)> {
        (0..count)
            .map(|row| (row.to_be_bytes().to_vec(), vec![7; (row % 3000) as usize]))
            .collect()
    }

    fn write(disk: &Arc<FaultyDisk>, index: u64, count: u32) -> SnapshotFile {
        let mut writer = Writer::create(disk.clone(), header(index)).unwrap();
        writer.add(&rows(count)).unwrap();
        writer.seal().unwrap();
        let path = writer.publish().unwrap();
        verify(&**disk, &path).unwrap()
    }

    #[test]
    fn a_snapshot_gives_back_its_rows_after_a_crash() {
        let disk = Arc::new(FaultyDisk::new());
        let written = write(&disk, 9, 2000);
        disk.crash_strictly();
        let loaded = load_newest(&*disk, GroupId(3), Incarnation(1)).unwrap().unwrap();
        assert_eq!(
            (loaded.length, loaded.hash, &loaded.header),
            (written.length, written.hash, &header(9))
        );
        let mut reader = RowReader::open(&loaded.path, loaded.file).unwrap();
        let mut seen = Vec::new();
        loop {
            let chunk = reader.next_rows(10_000).unwrap();
            if chunk.is_empty() {
                break;
            }
            seen.extend(chunk);
        }
        assert_eq!(seen, rows(2000));
        assert!(load_newest(&*disk, GroupId(3), Incarnation(2)).unwrap().is_none());
    }

    #[test]
    fn the_newest_whole_snapshot_counts_and_the_rest_goes() {
        let disk = Arc::new(FaultyDisk::new());
        write(&disk, 5, 3);
        write(&disk, 10, 3);
        write(&disk, 20, 3);
        std::mem::forget(Writer::create(disk.clone(), header(30)).unwrap());
        disk.flip_bit("snapshots/3-1-1-20.snap", 60, 2);
        let loaded = load_newest(&*disk, GroupId(3), Incarnation(1)).unwrap().unwrap();
        assert_eq!(loaded.path, "snapshots/3-1-1-10.snap");
        assert_eq!(disk.list(DIRECTORY).unwrap(), ["3-1-1-10.snap"]);
    }

    #[test]
    fn no_cut_or_changed_file_verifies() {
        let disk = Arc::new(FaultyDisk::new());
        let written = write(&disk, 5, 3);
        let file = disk.open(&written.path, OpenMode::Write).unwrap();
        let mut bytes = vec![0; usize::try_from(written.length).unwrap()];
        file.read_exact_at(0, &mut bytes).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0x10;
            file.write_at(0, &changed).unwrap();
            assert!(verify(&*disk, &written.path).is_err(), "byte {at} changed");
        }
        file.write_at(0, &bytes).unwrap();
        assert!(verify(&*disk, &written.path).is_ok());
        file.set_len(written.length + 1).unwrap();
        assert!(verify(&*disk, &written.path).is_err());
        for length in 0..written.length {
            file.set_len(length).unwrap();
            assert!(verify(&*disk, &written.path).is_err(), "cut at {length}");
        }
    }
}
