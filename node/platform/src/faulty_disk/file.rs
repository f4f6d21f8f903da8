//! An open file of the disk. It dies with the life in which it was opened.

use std::fmt;
use std::sync::{Mutex, PoisonError, Weak};

use core_types::{DiskError, DiskErrorKind, File};

use super::SECTOR_BYTES;
use super::call::{CallClass, DiskCall};
use super::faults::Effect;
use super::state::{Pending, Shared, Site};

pub(super) struct FaultyFile {
    pub(super) path: String,
    pub(super) inode: u64,
    pub(super) life: u64,
    pub(super) writable: bool,
    pub(super) shared: Weak<Mutex<Shared>>,
}

impl fmt::Debug for FaultyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyFile({})", self.path)
    }
}

impl Drop for FaultyFile {
    fn drop(&mut self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.life != self.life {
            return;
        }
        match shared.handles.get_mut(&self.inode) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                shared.handles.remove(&self.inode);
            }
        }
    }
}

impl FaultyFile {
    fn with<T>(&self, act: impl FnOnce(&mut Shared) -> Result<T, DiskError>) -> Result<T, DiskError> {
        let dead = || {
            DiskError::new(
                DiskErrorKind::Other,
                &self.path,
                "the disk crashed since this file was opened",
            )
        };
        let shared = self.shared.upgrade().ok_or_else(dead)?;
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.life != self.life {
            return Err(dead());
        }
        // A file that was removed while it was open lives on until its last handle is gone.
        shared.files.entry(self.inode).or_default();
        act(&mut shared)
    }

    fn writable(&self) -> Result<(), DiskError> {
        if self.writable {
            return Ok(());
        }
        Err(DiskError::new(DiskErrorKind::Other, &self.path, "opened to read"))
    }

    fn put(&self, shared: &mut Shared, offset: u64, bytes: &[u8]) {
        if let Some(bad) = shared.bad_ranges.get_mut(&self.inode) {
            // As disks do it: sectors that are written over are taken from elsewhere.
            bad.retain(|bad| bad.start < offset || offset + (bytes.len() as u64) < bad.end);
        }
        if let Some(inode) = shared.files.get_mut(&self.inode) {
            inode.current.write(offset, bytes);
            inode.pending.push(Pending::Write(offset, bytes.to_vec()));
        }
    }

    fn length(&self, shared: &Shared) -> u64 {
        shared.files.get(&self.inode).map_or(0, |inode| inode.current.len())
    }

    /// A write for which there is no room leaves the sectors that fit.
    fn put_what_fits(&self, shared: &mut Shared, offset: u64, bytes: &[u8]) {
        let room = shared.room().unwrap_or(0);
        let end = self.length(shared).saturating_add(room);
        let end = end - end % SECTOR_BYTES as u64;
        let fits = usize::try_from(end.saturating_sub(offset)).unwrap_or(0);
        if let Some(fitting) = bytes.get(..fits).filter(|fitting| !fitting.is_empty()) {
            self.put(shared, offset, fitting);
        }
    }

    /// Where a write that goes astray lands: some sectors off, within the file as it is.
    fn astray(&self, shared: &Shared, offset: u64, length: u64) -> u64 {
        let sector = SECTOR_BYTES as u64;
        let last = self.length(shared).saturating_sub(length);
        let off = sector * (1 + shared.faults.below(64));
        let below = offset.saturating_sub(off);
        let above = offset.saturating_add(off);
        if above <= last && shared.faults.below(2) == 0 {
            above
        } else {
            below
        }
    }
}

impl File for FaultyFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, DiskError> {
        self.with(|shared| {
            let site = Site::new(CallClass::Read, &self.path).at(offset, 0);
            shared.call(site, |shared, site, effect| {
                let is_bad = shared.is_bad(self.inode, offset, buffer.len() as u64);
                if is_bad || shared.unreadable.contains(&self.path) {
                    return Err(DiskError::new(
                        DiskErrorKind::Other,
                        &self.path,
                        "input/output error (injected)",
                    ));
                }
                let wanted = match effect {
                    Some(Effect::ShortRead) if buffer.len() > 1 => {
                        1 + usize::try_from(shared.faults.below(buffer.len() as u64 - 1)).unwrap_or(0)
                    }
                    _ => buffer.len(),
                };
                let Some(inode) = shared.files.get(&self.inode) else {
                    return Ok(0);
                };
                let buffer = buffer.get_mut(..wanted).unwrap_or_default();
                let count = inode.current.read(offset, buffer);
                let read = buffer.get_mut(..count).unwrap_or_default();
                if effect == Some(Effect::FlippedRead) {
                    flip_any(shared, read);
                }
                site.length = count as u64;
                site.digest = shared.digest(read);
                Ok(count)
            })
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.writable()?;
        self.with(|shared| {
            let mut site = Site::new(CallClass::Write, &self.path).at(offset, bytes.len() as u64);
            site.digest = shared.digest(bytes);
            shared.call(site, |shared, _, effect| {
                let more = (offset + bytes.len() as u64).saturating_sub(self.length(shared));
                if let Err(full) = shared.room_for(&self.path, more) {
                    self.put_what_fits(shared, offset, bytes);
                    return Err(full);
                }
                match effect {
                    Some(Effect::LostWrite) => {}
                    Some(Effect::Misdirected) => {
                        let elsewhere = self.astray(shared, offset, bytes.len() as u64);
                        self.put(shared, elsewhere, bytes);
                    }
                    Some(Effect::FlippedWrite) => {
                        let mut bytes = bytes.to_vec();
                        flip_any(shared, &mut bytes);
                        self.put(shared, offset, &bytes);
                    }
                    _ => self.put(shared, offset, bytes),
                }
                shared.record(|| DiskCall::Write(self.path.clone(), offset, bytes.len()));
                Ok(())
            })
        })
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.with(|shared| {
            let site = Site::new(CallClass::Sync, &self.path);
            shared.call(site, |shared, site, effect| shared.sync_file(self.inode, site, effect))
        })
    }

    fn set_len(&self, length: u64) -> Result<(), DiskError> {
        self.writable()?;
        self.with(|shared| {
            let site = Site::new(CallClass::SetLen, &self.path).at(0, length);
            shared.call(site, |shared, _, _| {
                shared.room_for(&self.path, length.saturating_sub(self.length(shared)))?;
                if let Some(inode) = shared.files.get_mut(&self.inode) {
                    inode.current.resize(length);
                    inode.pending.push(Pending::SetLen(length));
                }
                Ok(())
            })
        })
    }

    fn len(&self) -> Result<u64, DiskError> {
        self.with(|shared| Ok(self.length(shared)))
    }
}

fn flip_any(shared: &Shared, bytes: &mut [u8]) {
    let place = usize::try_from(shared.faults.below(bytes.len() as u64)).unwrap_or(0);
    let bit = shared.faults.below(8);
    if let Some(byte) = bytes.get_mut(place) {
        *byte ^= 1 << bit;
    }
}
