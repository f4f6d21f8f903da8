//! What a person sees: tables for people, JSON for programs.
//!
//! A reader that has gone (`everpost status | head`) is no error.

use std::io::Write;

use serde::Serialize;

use crate::{Exit, Failure};

/// Prints a value as JSON, indented.
///
/// # Errors
/// [`Exit::Failed`] when it cannot be encoded.
pub fn json(value: &(impl Serialize + ?Sized)) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    line(&text);
    Ok(())
}

/// Prints a line.
pub fn line(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// Prints a line to standard error: progress, warnings.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints rows under their headings, aligned. Nothing but `empty` when there are no rows.
pub fn table(headings: &[&str], rows: &[Vec<String>], empty: &str) {
    if rows.is_empty() {
        line(empty);
        return;
    }
    for text in table_lines(headings, rows) {
        line(&text);
    }
}

/// The lines of a table.
#[must_use]
pub fn table_lines(headings: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut headings.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines
}

/// Octets as people say them.
#[must_use]
pub fn octets(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" {
                format!("{count} B")
            } else {
                format!("{value:.1} {unit}")
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let lines = table_lines(&["A", "LONG"], &[vec!["xyz".into(), "1".into()]]);
        assert_eq!(lines, ["A    LONG", "xyz  1"]);
    }

    #[test]
    fn octets_read_well() {
        assert_eq!(octets(1023), "1023 B");
        assert_eq!(octets(1536), "1.5 KiB");
        assert_eq!(octets(5 << 30), "5.0 GiB");
    }
}
