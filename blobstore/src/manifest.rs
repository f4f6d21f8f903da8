//! The plain-text manifest of each group: enough to rebuild mailboxes from blobs when everything else is gone.
//!
//! `manifest/<group>.tsv` grows by lines; when it is full it becomes `<group>.<number>.tsv` and a new one is begun. Each
//! line ends with a tab, `#` and the CRC-32C of what stands before as eight hexadecimal digits, so that a person can read
//! it and a program can tell a line that was cut. The first line of each file says the version. Lines wait in memory until
//! [`Manifest::sync`]: the manifest may lack the last moments, which the log has.
//!
//! Most lines are dead after a while: whoever writes them tells everything that still holds anew, behind [`Manifest::begin_file`],
//! and then removes the files from before ([`Manifest::remove_files`]). A crash in between leaves files too many, never too few.
//!
//! Not here: what a line says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use core_types::limits::{MANIFEST_FILE_BYTES_MAX, MANIFEST_LINE_BYTES_MAX};
use core_types::{BlockingPool, Disk, DiskErrorKind, File, GroupId, OpenMode};

use crate::error::BlobError;
use crate::files::lock;
use crate::format::malformed;
use crate::run::run;

/// The manifests of one node. Clones are the same.
#[derive(Clone)]
pub struct Manifest(Arc<Inner>);

struct Inner {
    disk: Arc<dyn Disk>,
    pool: Arc<dyn BlockingPool>,
    waiting: Mutex<BTreeMap<GroupId, Vec<u8>>>,
    /// One writer at a time.
    writing: tokio::sync::Mutex<()>,
    file_bytes_max: u64,
}

/// A line as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestLine {
    /// As it was given.
    Good(String),
    /// Cut or changed; what is left of it.
    Damaged(String),
}

/// Files of a group that are not written to any more, oldest first.
#[derive(Debug)]
#[must_use]
pub struct OldFiles(Vec<String>);

/// The lines of one group, oldest first.
pub struct ManifestLines {
    manifest: Manifest,
    files: Vec<String>,
    file: Option<(Arc<dyn File>, u64)>,
    rest: Vec<u8>,
}

impl Manifest {
    /// Opens or makes the directory.
    ///
    /// # Errors
    /// Errors of the disk.
    pub async fn open(disk: Arc<dyn Disk>, pool: Arc<dyn BlockingPool>) -> Result<Self, BlobError> {
        Self::open_with(disk, pool, MANIFEST_FILE_BYTES_MAX).await
    }

    pub(crate) async fn open_with(
        disk: Arc<dyn Disk>,
        pool: Arc<dyn BlockingPool>,
        file_bytes_max: u64,
    ) -> Result<Self, BlobError> {
        let directory = Arc::clone(&disk);
        run(&pool, move || directory.create_dir_all(MANIFEST_DIR)).await??;
        let (waiting, writing) = (Mutex::default(), tokio::sync::Mutex::new(()));
        Ok(Self(Arc::new(Inner {
            disk,
            pool,
            waiting,
            writing,
            file_bytes_max,
        })))
    }

    /// Adds a line, in memory; octets that wait now. Whoever adds many calls [`Manifest::sync`] by that.
    ///
    /// # Errors
    /// [`BlobError::Malformed`] for a line with a line end in it, or over the limit.
    pub fn append(&self, group: GroupId, line: &str) -> Result<usize, BlobError> {
        if line.len() > MANIFEST_LINE_BYTES_MAX || line.contains(['\n', '\r']) {
            return Err(malformed("not a line of a manifest"));
        }
        let mut waiting = lock(&self.0.waiting);
        let bytes = waiting.entry(group).or_default();
        bytes.extend_from_slice(encode_line(line).as_bytes());
        Ok(bytes.len())
    }

    /// Writes what waits, durably.
    ///
    /// # Errors
    /// Errors of the disk; the lines then wait on. After [`BlobError::SyncFailed`] the node has to stop.
    pub async fn sync(&self) -> Result<(), BlobError> {
        let _writing = self.0.writing.lock().await;
        let waiting = std::mem::take(&mut *lock(&self.0.waiting));
        let inner = Arc::clone(&self.0);
        run(&self.0.pool, move || {
            let mut result = Ok(());
            for (group, bytes) in waiting {
                let written = if result.is_ok() {
                    inner.write(group, &bytes)
                } else {
                    Err(BlobError::Closed)
                };
                if let Err(error) = written {
                    let mut waiting = lock(&inner.waiting);
                    let newer = waiting.remove(&group).unwrap_or_default();
                    waiting.insert(group, [bytes, newer].concat());
                    if result.is_ok() {
                        result = Err(error);
                    }
                }
            }
            result
        })
        .await?
    }

    /// Octets of a group's files.
    ///
    /// # Errors
    /// Errors of the disk.
    pub async fn size_bytes(&self, group: GroupId) -> Result<u64, BlobError> {
        let inner = Arc::clone(&self.0);
        run(&self.0.pool, move || {
            let mut bytes = 0;
            for path in inner.files(group)? {
                bytes += inner.disk.open(&path, OpenMode::Read)?.len()?;
            }
            Ok(bytes)
        })
        .await?
    }

    /// Octets that are free on the disk.
    ///
    /// # Errors
    /// Errors of the disk.
    pub async fn free_bytes(&self) -> Result<u64, BlobError> {
        let disk = Arc::clone(&self.0.disk);
        Ok(run(&self.0.pool, move || disk.free_bytes()).await??)
    }

    /// Octets that a line takes in the file.
    #[must_use]
    pub fn line_bytes(line: &str) -> u64 {
        encode_line(line).len() as u64
    }

    /// Writes what waits, and begins a new file for what a group's lines say from now on. Gives the files from before.
    ///
    /// # Errors
    /// As [`Manifest::sync`].
    pub async fn begin_file(&self, group: GroupId) -> Result<OldFiles, BlobError> {
        self.sync().await?;
        let _writing = self.0.writing.lock().await;
        let inner = Arc::clone(&self.0);
        run(&self.0.pool, move || {
            inner.set_current_aside(group)?;
            inner.files(group).map(OldFiles)
        })
        .await?
    }

    /// Removes a group's files from before [`Manifest::begin_file`], when what they say is told anew and synced. The oldest goes
    /// first, so that what a crash leaves is the end of what there was.
    ///
    /// # Errors
    /// Errors of the disk; some files may be left.
    pub async fn remove_files(&self, OldFiles(paths): OldFiles) -> Result<(), BlobError> {
        let _writing = self.0.writing.lock().await;
        let inner = Arc::clone(&self.0);
        run(&self.0.pool, move || {
            for path in paths {
                inner.disk.remove(&path)?;
            }
            Ok(inner.disk.sync_dir(MANIFEST_DIR)?)
        })
        .await?
    }

    /// Reads a group's lines.
    ///
    /// # Errors
    /// Errors of the disk.
    pub async fn lines(&self, group: GroupId) -> Result<ManifestLines, BlobError> {
        let inner = Arc::clone(&self.0);
        let mut files = run(&self.0.pool, move || inner.files(group)).await??;
        files.reverse();
        Ok(ManifestLines {
            manifest: self.clone(),
            files,
            file: None,
            rest: Vec::new(),
        })
    }

    /// The lines at the end of a group's newest file, oldest first: some thousand of them.
    ///
    /// # Errors
    /// Errors of the disk.
    pub async fn last_lines(&self, group: GroupId) -> Result<Vec<ManifestLine>, BlobError> {
        let inner = Arc::clone(&self.0);
        run(&self.0.pool, move || inner.last_lines(group)).await?
    }

    /// The groups that have a manifest.
    ///
    /// # Errors
    /// Errors of the disk.
    pub async fn groups(&self) -> Result<Vec<GroupId>, BlobError> {
        let inner = Arc::clone(&self.0);
        let names = run(&self.0.pool, move || inner.disk.list(MANIFEST_DIR)).await??;
        let group = |name: &String| name.strip_suffix(".tsv")?.split('.').next()?.parse().ok().map(GroupId);
        let mut groups: Vec<GroupId> = names.iter().filter_map(group).collect();
        groups.sort_unstable();
        groups.dedup();
        Ok(groups)
    }
}

impl Inner {
    fn write(&self, group: GroupId, bytes: &[u8]) -> Result<(), BlobError> {
        let path = current_path(group);
        let mut file = self.disk.open(&path, OpenMode::CreateOrOpen)?;
        let mut length = file.len()?;
        if length >= self.file_bytes_max {
            self.set_current_aside(group)?;
            file = self.disk.open(&path, OpenMode::CreateNew)?;
            length = 0;
        }
        let mut last = [b'\n'];
        if length > 0 {
            file.read_exact_at(length - 1, &mut last)?;
        }
        if last != [b'\n'] {
            // A line that was cut by a crash: the new ones begin on their own.
            file.write_at(length, b"\n")?;
            length += 1;
        }
        if length == 0 {
            let version = encode_line(VERSION_LINE);
            file.write_at(0, version.as_bytes())?;
            length = version.len() as u64;
        }
        file.write_at(length, bytes)?;
        file.sync_data()?;
        Ok(self.disk.sync_dir(MANIFEST_DIR)?)
    }

    /// Makes the current file, if there is one, the newest of the numbered ones.
    fn set_current_aside(&self, group: GroupId) -> Result<(), BlobError> {
        let path = current_path(group);
        let mut files = self.files(group)?;
        if files.pop_if(|newest| *newest == path).is_none() {
            return Ok(());
        }
        // Above every number in use: old files may be gone.
        let newest = files.last().and_then(|path| {
            let name = path.strip_suffix(".tsv")?;
            name.rsplit_once('.')?.1.parse::<u64>().ok()
        });
        let number = newest.map_or(1, |number| number + 1);
        self.disk
            .rename(&path, &format!("{MANIFEST_DIR}/{group}.{number:06}.tsv"))?;
        // Before the next file takes the name.
        Ok(self.disk.sync_dir(MANIFEST_DIR)?)
    }

    fn last_lines(&self, group: GroupId) -> Result<Vec<ManifestLine>, BlobError> {
        let Some(path) = self.files(group)?.pop() else {
            return Ok(Vec::new());
        };
        let file = self.disk.open(&path, OpenMode::Read)?;
        let start = file.len()?.saturating_sub(TAIL_BYTES);
        let mut bytes = vec![0; usize::try_from(file.len()? - start).unwrap_or(0)];
        file.read_exact_at(start, &mut bytes)?;
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        // The first is cut where the reading began.
        Ok(lines.skip(usize::from(start > 0)).map(parse_line).collect())
    }

    /// The paths of a group's files, oldest first.
    fn files(&self, group: GroupId) -> Result<Vec<String>, BlobError> {
        let old = format!("{group}.");
        let names = self.disk.list(MANIFEST_DIR)?;
        let numbered = |name: &&String| {
            let number = name.strip_prefix(&old).and_then(|rest| rest.strip_suffix(".tsv"));
            number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let mut files: Vec<String> = names
            .iter()
            .filter(numbered)
            .map(|name| format!("{MANIFEST_DIR}/{name}"))
            .collect();
        // By number: a seventh digit comes some day.
        files.sort_by_key(|path| (path.len(), path.clone()));
        if names.contains(&format!("{group}.tsv")) {
            files.push(current_path(group));
        }
        Ok(files)
    }
}

impl ManifestLines {
    /// The next lines, some hundred at a time; none at the end.
    ///
    /// # Errors
    /// Errors of the disk.
    pub async fn next_page(&mut self) -> Result<Vec<ManifestLine>, BlobError> {
        loop {
            let (file, offset) = match self.file.take() {
                Some(open) => open,
                None => {
                    let Some(path) = self.files.pop() else {
                        return Ok(Vec::new());
                    };
                    let inner = Arc::clone(&self.manifest.0);
                    match run(&self.manifest.0.pool, move || inner.disk.open(&path, OpenMode::Read)).await? {
                        Ok(file) => (file, 0),
                        Err(error) if error.kind == DiskErrorKind::NotFound => continue,
                        Err(error) => return Err(error.into()),
                    }
                }
            };
            let reader = Arc::clone(&file);
            let bytes = run(&self.manifest.0.pool, move || {
                let mut bytes = vec![0; READ_BYTES];
                let count = reader.read_at(offset, &mut bytes)?;
                bytes.truncate(count);
                Ok::<_, BlobError>(bytes)
            });
            let bytes = bytes.await??;
            if bytes.is_empty() {
                let rest = std::mem::take(&mut self.rest);
                if !rest.is_empty() {
                    return Ok(vec![parse_line(&rest)]);
                }
                continue;
            }
            self.file = Some((file, offset + bytes.len() as u64));
            let page = self.split(&bytes);
            if !page.is_empty() {
                return Ok(page);
            }
        }
    }

    fn split(&mut self, bytes: &[u8]) -> Vec<ManifestLine> {
        self.rest.extend_from_slice(bytes);
        let mut page = Vec::new();
        let mut lines = self.rest.split(|byte| *byte == b'\n').peekable();
        let mut rest = Vec::new();
        while let Some(line) = lines.next() {
            if lines.peek().is_none() {
                rest = line.to_vec();
            } else if !line.is_empty() {
                page.push(parse_line(line));
            }
        }
        self.rest = rest;
        page.retain(|line| !matches!(line, ManifestLine::Good(line) if line == VERSION_LINE));
        if self.rest.len() > 2 * MANIFEST_LINE_BYTES_MAX {
            // No line is that long: what follows is damage until the next line end.
            page.push(parse_line(&std::mem::take(&mut self.rest)));
        }
        page
    }
}

pub(crate) fn parse_line(line: &[u8]) -> ManifestLine {
    let text = String::from_utf8_lossy(line);
    if let Some((content, crc)) = text.rsplit_once("\t#")
        && crc.len() == 8
        && u32::from_str_radix(crc, 16) == Ok(crc32c::crc32c(content.as_bytes()))
    {
        return ManifestLine::Good(content.to_owned());
    }
    ManifestLine::Damaged(text.into_owned())
}

fn encode_line(line: &str) -> String {
    format!("{line}\t#{:08x}\n", crc32c::crc32c(line.as_bytes()))
}

fn current_path(group: GroupId) -> String {
    format!("{MANIFEST_DIR}/{group}.tsv")
}

/// The first line of each file: the version of what follows.
const VERSION_LINE: &str = "everpost-manifest\t1";
const MANIFEST_DIR: &str = "manifest";
const READ_BYTES: usize = 64 * 1024;
/// What is read of the end of a file.
const TAIL_BYTES: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use platform::{FaultyDisk, InlinePool};

    use super::*;

    async fn open(disk: &FaultyDisk) -> Manifest {
        Manifest::open_with(Arc::new(disk.clone()), Arc::new(InlinePool), 500)
            .await
            .unwrap()
    }

    async fn all(manifest: &Manifest, group: GroupId) -> Vec<ManifestLine> {
        let mut lines = manifest.lines(group).await.unwrap();
        let mut all = Vec::new();
        loop {
            let page = lines.next_page().await.unwrap();
            if page.is_empty() {
                return all;
            }
            all.extend(page);
        }
    }

    #[tokio::test]
    async fn lines_come_back_in_order_over_files_and_crashes() {
        let disk = FaultyDisk::new();
        let mut expected = Vec::new();
        for life in 0..5 {
            let manifest = open(&disk).await;
            for number in 0..20 {
                let line = format!("deliver\t{life}\t{number}");
                manifest.append(GroupId(1), &line).unwrap();
                expected.push(ManifestLine::Good(line));
                if number % 7 == 6 || number == 19 {
                    manifest.sync().await.unwrap();
                }
            }
            manifest.append(GroupId(1), "not synced").unwrap();
            manifest.append(GroupId(10), "another group").unwrap();
            drop(manifest);
            disk.crash_strictly();
        }
        let manifest = open(&disk).await;
        assert_eq!(all(&manifest, GroupId(1)).await, expected);
        assert!(disk.paths().len() > 2, "several files");
        assert_eq!(manifest.groups().await.unwrap(), [GroupId(1)]);
        assert!(all(&manifest, GroupId(2)).await.is_empty());
    }

    #[tokio::test]
    async fn damage_spoils_its_own_line_only() {
        let disk = FaultyDisk::new();
        let manifest = open(&disk).await;
        for line in ["one", "two", "three"] {
            manifest.append(GroupId(1), line).unwrap();
        }
        manifest.sync().await.unwrap();
        let start = encode_line(VERSION_LINE).len() as u64;
        disk.flip_bit("manifest/1.tsv", start + 15, 0);
        disk.open("manifest/1.tsv", OpenMode::Write)
            .unwrap()
            .set_len(start + 40)
            .unwrap();
        manifest.append(GroupId(1), "four").unwrap();
        manifest.sync().await.unwrap();
        let lines = all(&manifest, GroupId(1)).await;
        assert!(matches!(lines[0], ManifestLine::Good(ref line) if line == "one"));
        assert!(matches!(lines[1], ManifestLine::Damaged(_)) && matches!(lines[2], ManifestLine::Damaged(_)));
        assert!(matches!(lines[3], ManifestLine::Good(ref line) if line == "four"));
        let last = manifest.last_lines(GroupId(1)).await.unwrap();
        assert_eq!(last.last(), lines.last());
        assert!(manifest.last_lines(GroupId(2)).await.unwrap().is_empty());
        assert!(manifest.append(GroupId(1), "a\nb").is_err());
        for (length, fits) in [
            (MANIFEST_LINE_BYTES_MAX - 1, true),
            (MANIFEST_LINE_BYTES_MAX, true),
            (MANIFEST_LINE_BYTES_MAX + 1, false),
        ] {
            assert_eq!(manifest.append(GroupId(1), &"x".repeat(length)).is_ok(), fits);
        }
    }

    #[tokio::test]
    async fn lines_wait_on_when_the_disk_is_full() {
        let disk = FaultyDisk::new();
        let manifest = open(&disk).await;
        manifest.append(GroupId(1), "one").unwrap();
        disk.set_capacity(Some(0));
        assert!(matches!(manifest.sync().await, Err(BlobError::Full)));
        manifest.append(GroupId(1), "two").unwrap();
        disk.set_capacity(None);
        manifest.sync().await.unwrap();
        let good = |line: &str| ManifestLine::Good(line.to_owned());
        assert_eq!(all(&manifest, GroupId(1)).await, [good("one"), good("two")]);
    }

    #[tokio::test]
    async fn old_files_go_only_when_everything_is_told_anew_and_no_crash_leaves_too_little() {
        let good = |line: &str| ManifestLine::Good(line.to_owned());
        let anew = ["resync", "kept", "resync-end"].map(good);
        for (steps, seed) in (0..7).flat_map(|steps| (0..8).map(move |seed| (steps, seed))) {
            let disk = FaultyDisk::new();
            let manifest = open(&disk).await;
            let mut old: Vec<_> = (0..40).map(|number| good(&format!("old\t{number}"))).collect();
            for number in 0..40 {
                manifest.append(GroupId(1), &format!("old\t{number}")).unwrap();
                manifest.sync().await.unwrap();
            }
            manifest.append(GroupId(12), "another group").unwrap();
            assert!(manifest.size_bytes(GroupId(1)).await.unwrap() > 500);
            let mut files = None;
            for step in 0..steps {
                match step {
                    0 => {
                        manifest.append(GroupId(1), "last").unwrap();
                        old.push(good("last"));
                    }
                    1 => files = Some(manifest.begin_file(GroupId(1)).await.unwrap()),
                    2 => anew.iter().for_each(|line| {
                        let ManifestLine::Good(line) = line else { return };
                        manifest.append(GroupId(1), line).unwrap();
                    }),
                    3 => manifest.sync().await.unwrap(),
                    4 => manifest.remove_files(files.take().unwrap()).await.unwrap(),
                    _ => {
                        manifest.append(GroupId(1), "newer").unwrap();
                        manifest.sync().await.unwrap();
                    }
                }
            }
            drop(manifest);
            disk.crash(seed);
            let lines = all(&open(&disk).await, GroupId(1)).await;
            let context = format!("{steps} steps, seed {seed}: {lines:?}");
            match steps {
                // `last` was not synced.
                0..=1 => assert!(lines.starts_with(&old[..40]), "{context}"),
                2..=3 => assert!(lines.starts_with(&old), "{context}"),
                4 => assert_eq!(lines, [&old[..], &anew[..]].concat(), "{context}"),
                _ => assert!(lines.starts_with(&anew), "{context}"),
            }
        }
    }

    #[tokio::test]
    async fn numbers_of_files_go_on_when_old_ones_are_gone() {
        let disk = FaultyDisk::new();
        let manifest = open(&disk).await;
        let mut number = 0;
        for round in 0..4 {
            let old = manifest.begin_file(GroupId(1)).await.unwrap();
            let mut expected = Vec::new();
            for _ in 0..60 {
                number += 1;
                manifest.append(GroupId(1), &number.to_string()).unwrap();
                manifest.sync().await.unwrap();
                expected.push(ManifestLine::Good(number.to_string()));
            }
            manifest.remove_files(old).await.unwrap();
            assert_eq!(all(&manifest, GroupId(1)).await, expected, "round {round}");
        }
    }
}
