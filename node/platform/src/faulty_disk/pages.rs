//! A file's bytes as pages that copies share: a crash, an image and a preallocated segment cost what was written, not
//! what the file is long. A page that is missing is zeros.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a page; a multiple of a sector.
const PAGE_BYTES: usize = 4096;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages {
    length: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE_BYTES]>>,
}

impl Pages {
    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// Cuts or extends with zeros.
    pub(super) fn resize(&mut self, length: u64) {
        if length < self.length {
            self.pages.split_off(&length.div_ceil(PAGE_BYTES as u64));
            let rest = in_page(length);
            // What is cut off must not come back when the file grows again.
            if rest != 0
                && let Some(page) = self.pages.get_mut(&(length / PAGE_BYTES as u64))
                && let Some(tail) = Arc::make_mut(page).get_mut(rest..)
            {
                tail.fill(0);
            }
        }
        self.length = length;
    }

    /// Fills the buffer from `offset`; gives the number of bytes that are there.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let there = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let count = there.min(buffer.len());
        let mut done = 0;
        while done < count {
            let position = offset + done as u64;
            let start = in_page(position);
            let step = (PAGE_BYTES - start).min(count - done);
            let Some(target) = buffer.get_mut(done..done + step) else {
                break;
            };
            match self.pages.get(&(position / PAGE_BYTES as u64)) {
                Some(page) => target.copy_from_slice(page.get(start..start + step).unwrap_or_default()),
                None => target.fill(0),
            }
            done += step;
        }
        count
    }

    /// Writes all bytes, growing where needed.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.length = self.length.max(offset + bytes.len() as u64);
        let mut done = 0;
        while done < bytes.len() {
            let position = offset + done as u64;
            let start = in_page(position);
            let step = (PAGE_BYTES - start).min(bytes.len() - done);
            let page = self
                .pages
                .entry(position / PAGE_BYTES as u64)
                .or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            if let (Some(target), Some(source)) = (
                Arc::make_mut(page).get_mut(start..start + step),
                bytes.get(done..done + step),
            ) {
                target.copy_from_slice(source);
            }
            done += step;
        }
    }

    /// Flips a bit; whether there is such a byte.
    pub(super) fn flip(&mut self, offset: u64, bit: u8) -> bool {
        let mut byte = [0];
        if self.read(offset, &mut byte) == 0 {
            return false;
        }
        self.write(offset, &byte.map(|byte| byte ^ (1 << (bit % 8))));
        true
    }

    /// Whether the sector around `offset` holds anything but zeros.
    pub(super) fn is_used_around(&self, offset: u64) -> bool {
        let mut sector = [0; super::SECTOR_BYTES];
        self.read(offset - offset % super::SECTOR_BYTES as u64, &mut sector);
        sector.iter().any(|byte| *byte != 0)
    }
}

fn in_page(position: u64) -> usize {
    usize::try_from(position % PAGE_BYTES as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SeededEntropy;
    use core_types::Entropy;

    #[test]
    fn pages_are_as_good_as_one_array() {
        let entropy: &dyn Entropy = &SeededEntropy::new(7);
        let (mut pages, mut model) = (Pages::default(), Vec::<u8>::new());
        for _ in 0..500 {
            let offset = entropy.below(20_000) as usize;
            let length = entropy.below(9_000) as usize;
            match entropy.below(3) {
                0 => {
                    pages.resize(offset as u64);
                    model.resize(offset, 0);
                }
                1 => {
                    let bytes = vec![entropy.below(255) as u8 + 1; length];
                    pages.write(offset as u64, &bytes);
                    model.resize(model.len().max(offset + length), 0);
                    model[offset..offset + length].copy_from_slice(&bytes);
                }
                _ => {
                    let mut buffer = vec![9; length];
                    let count = pages.read(offset as u64, &mut buffer);
                    let expected = model.get(offset..).unwrap_or_default();
                    assert_eq!(buffer[..count], expected[..expected.len().min(length)]);
                }
            }
            assert_eq!(pages.len(), model.len() as u64);
        }
    }

    #[test]
    fn a_copy_is_not_touched_by_what_follows() {
        let mut pages = Pages::default();
        pages.write(4000, &[1; 200]);
        let copy = pages.clone();
        pages.write(4100, &[2; 4]);
        assert!(pages.flip(4000, 3) && !pages.flip(4200, 0));
        let mut byte = [0];
        copy.read(4100, &mut byte);
        assert_eq!(byte, [1]);
        assert!(copy.is_used_around(4199) && !copy.is_used_around(0));
    }
}
