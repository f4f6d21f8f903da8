//! One seed in a process of its own: one that panics in the middle of a simulated world takes only itself down.

use std::path::Path;
use std::process::Command;

use crate::run::Report;

/// Runs `cargo sim`'s program with these arguments, which name one seed, and reads its report.
///
/// # Errors
/// How the process ended, where it gave no report.
pub fn report_of(program: &Path, arguments: &[String]) -> Result<Report, String> {
    let mut command = Command::new(program);
    command.arg("--child").args(arguments);
    let output = command.output().map_err(|error| error.to_string())?;
    Report::parse(&String::from_utf8_lossy(&output.stdout)).ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let mut lines = said.lines().skip_while(|line| !line.contains("panicked at"));
        let panic: Vec<&str> = lines.by_ref().take(2).collect();
        format!("the run ended with {}: {}", output.status, panic.join(" "))
    })
}
