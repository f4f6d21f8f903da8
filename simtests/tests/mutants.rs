//! The simulation is strong enough to find each bug of a list that is planted into the product: `docs/simulation.md`.

#![cfg(feature = "mutants")]

use std::path::Path;

use core_types::mutants::Mutant;
use simtests::hunt::Hunt;

fn is_found(mutant: Mutant) {
    let hunt = Hunt::with(Path::new(env!("CARGO_BIN_EXE_sim")));
    let found = hunt.hunt(mutant);
    assert!(
        found.is_some(),
        "{} is not found within {} seeds",
        mutant.name(),
        hunt.seeds
    );
}

#[test]
fn a_log_that_acknowledges_before_its_sync_is_found() {
    is_found(Mutant::AckBeforeSync);
}

#[test]
fn receipts_that_nobody_checked_are_found() {
    is_found(Mutant::ReceiptsNotChecked);
}

#[test]
fn a_read_that_asks_no_leader_is_found() {
    is_found(Mutant::SkipReadIndex);
}

#[test]
fn a_forgotten_delivery_is_found() {
    is_found(Mutant::ForgetIdempotency);
}

#[test]
fn a_uid_that_is_used_again_is_found() {
    is_found(Mutant::ReuseUid);
}

#[test]
fn a_blob_that_is_deleted_though_it_is_needed_is_found() {
    is_found(Mutant::DeleteReferredBlob);
}

#[test]
fn half_a_snapshot_is_found() {
    is_found(Mutant::HalfSnapshot);
}

#[test]
fn an_applied_index_apart_from_its_rows_is_found() {
    is_found(Mutant::AppliedApart);
}

#[test]
fn a_directory_that_was_not_synced_is_found() {
    is_found(Mutant::DirectoryNotSynced);
}

#[test]
fn damage_that_is_taken_for_a_torn_tail_is_found() {
    is_found(Mutant::DamageAsTornTail);
}
