//! Which seeds: those that a commit decides, and those that are kept since they failed once.

/// A seed that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fixed {
    /// It.
    pub seed: u64,
    /// Seconds of load and faults.
    pub seconds: u64,
}

/// The first of the seeds that belong to a commit: others for each, so that every change is tried with new ones, and always
/// the same for one.
#[must_use]
pub fn first_of_commit(commit: &str) -> u64 {
    let hash = blake3::hash(commit.trim().as_bytes());
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash.as_bytes()[..8]);
    // Short enough to be read out, and apart from the small ones that people type.
    1_000_000 + u64::from_le_bytes(bytes) % 1_000_000_000
}

/// Reads a list of seeds: `SEED SECONDS # why` on each line.
///
/// # Errors
/// The line that is not such.
pub fn fixed(text: &str) -> Result<Vec<Fixed>, String> {
    let mut seeds = Vec::new();
    for line in text.lines() {
        let numbers = line.split('#').next().unwrap_or_default();
        if numbers.trim().is_empty() {
            continue;
        }
        let mut numbers = numbers.split_whitespace().map(|word| word.parse().ok());
        match (numbers.next().flatten(), numbers.next().flatten(), numbers.next()) {
            (Some(seed), Some(seconds), None) => seeds.push(Fixed { seed, seconds }),
            _ => return Err(format!("\"{line}\" is not \"SEED SECONDS # why\"")),
        }
    }
    Ok(seeds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_decides_its_seeds() {
        assert_eq!(first_of_commit("abc"), first_of_commit("abc\n"));
        assert_ne!(first_of_commit("abc"), first_of_commit("abd"));
    }

    #[test]
    fn a_list_of_seeds_is_read_and_wrong_lines_are_named() {
        let kept = |seed, seconds| Fixed { seed, seconds };
        let text = "# why they are here\n\n6 30 # a disk put back\n103 60\n";
        assert_eq!(fixed(text), Ok(vec![kept(6, 30), kept(103, 60)]));
        assert!(fixed("6").unwrap_err().contains("SEED SECONDS"));
        assert!(fixed("6 30 9").is_err());
    }
}
