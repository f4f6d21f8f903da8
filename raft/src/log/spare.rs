//! The next segment, written with zeros in the background once half of the present one is used, so that nothing waits for it
//! in the pipeline when it is needed.
//!
//! It is `next.tmp` until it gets its header and its name: a crash leaves a file that the next start removes. The zeroing is
//! done in steps, each with a sync of its own, so that no job is long and no sync of the log waits behind much. Whoever needs
//! the segment takes it as far as it is and does the rest; on a disk that is nearly full nothing is made ahead.
//!
//! Not here: headers and names (`writer`).

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use core_types::{Disk, DiskErrorKind, File, OpenMode};

use super::{Inner, LogConfig, LogError};

/// Octets that are zeroed and synced in one step.
const STEP_BYTES: u64 = 4 * 1024 * 1024;
/// Segments' worth of free disk below which none is made ahead.
const FREE_SEGMENTS: u64 = 4;

/// A file of zeros on its way to be a segment.
pub(crate) struct Spare {
    pub(crate) file: Arc<dyn File>,
    /// Zeroed up to here, durably but for the last step.
    pub(crate) zeroed: u64,
    /// Octets that it is to have.
    pub(crate) capacity: u64,
}

#[derive(Default)]
enum State {
    #[default]
    None,
    /// Waits for its next step, or is complete.
    Here(Spare),
    /// A step is under way.
    Busy,
}

#[derive(Default)]
pub(crate) struct Spares {
    state: Mutex<State>,
    changed: Condvar,
    /// The segment for whose successor one was begun: not again if it came to nothing.
    begun_for: Mutex<u64>,
}

pub(crate) fn path_of(config: &LogConfig) -> String {
    format!("{}/next.tmp", config.directory)
}

impl Spares {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is, once no step is under way. Blocks no longer than a step.
    pub(crate) fn take(&self) -> Option<Spare> {
        let mut state = self.lock();
        while matches!(*state, State::Busy) {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        match std::mem::take(&mut *state) {
            State::Here(spare) => Some(spare),
            State::None | State::Busy => None,
        }
    }

    fn put(&self, state: State) {
        *self.lock() = state;
        self.changed.notify_all();
    }

    /// Whether one is to be begun for the segment after this one.
    fn is_wanted(&self, number: u64) -> bool {
        let mut begun = self.begun_for.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = *begun != number;
        *begun = number;
        is_new
    }
}

/// Begins the segment after `number`, in the background, unless that was done.
pub(crate) fn begin(inner: &Arc<Inner>, number: u64) {
    if !inner.spares.is_wanted(number) {
        return;
    }
    let capacity = inner.config.segment_bytes;
    let is_roomy = inner
        .disk
        .free_bytes()
        .is_ok_and(|free| free >= capacity.saturating_mul(FREE_SEGMENTS));
    if !is_roomy {
        return;
    }
    let path = path_of(&inner.config);
    match create(&*inner.disk, &path) {
        Ok(file) => {
            let spare = Spare {
                file,
                zeroed: 0,
                capacity,
            };
            inner.spares.put(State::Here(spare));
            step_later(inner);
        }
        // It is made when it is needed, and what is wrong told then.
        Err(error) => tracing::warn!(%error, "no segment of the log is made ahead"),
    }
}

fn step_later(inner: &Arc<Inner>) {
    let inner_of_job = Arc::clone(inner);
    inner.pool.execute(Box::new(move || step(&inner_of_job)));
}

fn step(inner: &Arc<Inner>) {
    let mut spare = {
        let mut state = inner.spares.lock();
        match std::mem::take(&mut *state) {
            State::Here(spare) if spare.zeroed < spare.capacity => {
                *state = State::Busy;
                spare
            }
            // It was taken meanwhile, and may be another one now.
            other => {
                *state = other;
                return;
            }
        }
    };
    match spare.zero(STEP_BYTES) {
        Ok(()) => {
            let is_done = spare.zeroed >= spare.capacity;
            inner.spares.put(State::Here(spare));
            if !is_done {
                step_later(inner);
            }
        }
        Err(LogError::Full(error)) => {
            tracing::warn!(%error, "no room to make a segment of the log ahead");
            drop(spare);
            let _removed = inner.disk.remove(&path_of(&inner.config));
            inner.spares.put(State::None);
        }
        Err(error) => {
            inner.spares.put(State::None);
            // A failed sync says of the whole disk that it cannot be believed.
            super::writer::fail(inner, &error, Vec::new());
        }
    }
}

impl Spare {
    /// Zeroes so many octets more, durably.
    pub(crate) fn zero(&mut self, most: u64) -> Result<(), LogError> {
        let end = self.capacity.min(self.zeroed.saturating_add(most));
        let zeros = vec![0; 1 << 20];
        while self.zeroed < end {
            let count = (end - self.zeroed).min(zeros.len() as u64);
            let chunk = zeros.get(..usize::try_from(count).unwrap_or(0)).unwrap_or_default();
            self.file.write_at(self.zeroed, chunk).map_err(LogError::of_write)?;
            self.zeroed += count;
        }
        self.file.sync_data().map_err(LogError::SyncFailed)
    }
}

/// A new file of that name, in place of what had it.
pub(crate) fn create(disk: &dyn Disk, path: &str) -> Result<Arc<dyn File>, LogError> {
    match disk.remove(path) {
        Err(error) if error.kind != DiskErrorKind::NotFound => return Err(LogError::of_write(error)),
        _ => {}
    }
    disk.open(path, OpenMode::CreateNew).map_err(LogError::of_write)
}
