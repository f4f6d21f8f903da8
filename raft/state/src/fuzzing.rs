//! What the fuzz targets and the seeded test drive: commands as a peer may send them, applied one after the other, and lines
//! of a manifest.

use core_types::{AccountId, KvEngine, MailboxGuid, NodeId, OpId, UnixMillis, codec};

use crate::command::{Command, MailboxOp, Op};
use crate::outcome::{Outcome, Refusal};
use crate::{ApplyError, MachineKind, MemoryEngine, apply, digest, manifest};

/// As in the log.
const VERSION: u8 = 1;
/// Far above what a fuzzer makes.
const BYTES_MAX: u64 = 1 << 20;

/// Applies the commands in `data`, each behind its length in two octets, to a group that has one account. The first octet says
/// which kind of group.
///
/// # Panics
/// When a promise is broken: a command damages the state, a repetition changes something, a refusal leaves more behind than its
/// memory, or the digest is not that of the rows.
pub fn commands(data: &[u8]) {
    let Some((first, mut rest)) = data.split_first() else {
        return;
    };
    let kind = if first % 4 == 0 {
        MachineKind::Directory
    } else {
        MachineKind::Mailbox
    };
    let engine = MemoryEngine::default();
    let mut count = 0;
    if kind == MachineKind::Mailbox {
        run(&engine, kind, &first_command());
    }
    while let Some((length, tail)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length)).min(tail.len());
        let (bytes, after) = tail.split_at(length);
        rest = after;
        if let Ok(command) = codec::decode::<Command>(VERSION, bytes, BYTES_MAX) {
            run(&engine, kind, &command);
            count += 1;
        }
        if count == COMMANDS_MAX {
            break;
        }
    }
    assert_eq!(
        digest::stored(&engine).ok(),
        digest::recomputed(&engine).ok(),
        "the digest is not that of the rows"
    );
}

/// So many of one input, so that each is quick.
const COMMANDS_MAX: usize = 50;

fn first_command() -> Command {
    Command {
        op_id: OpId {
            node: NodeId(1),
            boot: 1,
            seq: 1,
        },
        settled_below: 1,
        time: UnixMillis(1_700_000_000_000),
        op: Op::Mailbox(MailboxOp::CreateAccount {
            account: AccountId([1; 16]),
            inbox: MailboxGuid([1; 16]),
            mailboxes: Vec::new(),
            quota_bytes: None,
        }),
    }
}

fn run(engine: &MemoryEngine, kind: MachineKind, command: &Command) {
    let applied = match apply(engine, kind, command) {
        Ok(applied) => applied,
        // It is for a program of a later level.
        Err(ApplyError::UnknownOp(_)) => return,
        Err(error) => panic!("{command:?}: {error}"),
    };
    let is_refused = matches!(applied.outcome, Outcome::Refused(_));
    assert!(
        !is_refused || applied.effects.is_empty(),
        "{command:?} was refused and had effects"
    );
    assert!(engine.write(&applied.batch).is_ok(), "the engine in memory failed");
    let again = apply(engine, kind, command).ok();
    if !matches!(applied.outcome, Outcome::Refused(Refusal::Limit(_))) {
        let again = again.map(|again| (again.outcome, again.batch.is_empty()));
        assert_eq!(again, Some((applied.outcome, true)), "{command:?} was done twice");
    }
}

/// Reads a line of a manifest.
pub fn manifest_line(data: &[u8]) {
    let _ = manifest::parse(&String::from_utf8_lossy(data));
}

#[cfg(test)]
mod tests {
    use core_types::testing::Random;
    use core_types::{BlobId, EmailId, Flags, Keyword, MailboxName, MessageGuid, ModSeq};

    use super::*;
    use crate::command::{Delivery, DeliveryTarget, FlagChange, NewMessage, Receipts};

    fn seeds() -> Vec<MailboxOp> {
        let (account, inbox, other) = (AccountId([1; 16]), MailboxGuid([1; 16]), MailboxGuid([2; 16]));
        let name = |text: &str| MailboxName::parse(text).unwrap();
        let mut flags = Flags::system(Flags::SEEN);
        flags.keywords.extend(Keyword::parse("Work"));
        let deliver = |number: u8| {
            MailboxOp::Deliver(Delivery {
                message: NewMessage {
                    blob: BlobId::of(&[number]),
                    size: 100,
                    email_id: EmailId([number; 16]),
                    internal_date: UnixMillis(1),
                    structure: vec![number],
                },
                receipts: Receipts::default(),
                targets: vec![DeliveryTarget {
                    account,
                    guid: MessageGuid([number; 16]),
                    mailbox: None,
                    flags: Flags::default(),
                }],
                enforce_quota: true,
            })
        };
        let messages = vec![MessageGuid([1; 16]), MessageGuid([2; 16])];
        vec![
            deliver(1),
            deliver(2),
            MailboxOp::CreateMailbox {
                account,
                name: name("a/b"),
                guid: other,
                special_use: None,
            },
            MailboxOp::StoreFlags {
                account,
                mailbox: inbox,
                messages: messages.clone(),
                change: FlagChange::Add,
                flags,
                unchanged_since: Some(ModSeq(9)),
            },
            MailboxOp::Copy {
                account,
                from: inbox,
                to: other,
                messages: messages.clone(),
                seed: [7; 16],
            },
            MailboxOp::Move {
                account,
                from: inbox,
                to: other,
                messages: messages[..1].to_vec(),
            },
            MailboxOp::SetQuota {
                account,
                quota_bytes: Some(1000),
            },
            MailboxOp::Subscribe {
                account,
                name: name("x"),
                subscribed: true,
            },
            MailboxOp::RenameMailbox {
                account,
                mailbox: other,
                to: name("c"),
                new_guid: MailboxGuid([3; 16]),
            },
            MailboxOp::Expunge {
                account,
                mailbox: inbox,
                messages,
                only_deleted: false,
            },
            MailboxOp::DeleteMailbox {
                account,
                mailbox: other,
            },
            MailboxOp::Prune { limit: 10 },
            MailboxOp::RemoveAccount { account },
        ]
    }

    fn encoded(seq: u64, op: MailboxOp) -> Vec<u8> {
        let mut command = first_command();
        command.op_id.seq = seq;
        command.settled_below = seq.saturating_sub(3);
        command.op = Op::Mailbox(op);
        codec::encode(VERSION, &command, BYTES_MAX).unwrap()
    }

    #[test]
    fn no_command_damages_the_state() {
        let mut random = Random::new(5);
        for _ in 0..1500 {
            let ops = seeds();
            let mut data = vec![1];
            for seq in 2..30 {
                let mut bytes = encoded(seq, ops[random.below(ops.len())].clone());
                // Most of a command are GUIDs and lengths: a few octets are enough to make another one of it.
                for _ in 0..random.below(3) {
                    let at = random.below(bytes.len());
                    bytes[at] = [0, 1, 2, 3, 7, 0xff, 0x2f][random.below(7)];
                }
                data.extend_from_slice(&u16::try_from(bytes.len()).unwrap().to_le_bytes());
                data.extend_from_slice(&bytes);
            }
            commands(&data);
        }
    }

    #[test]
    fn no_line_of_a_manifest_is_too_much() {
        let mut random = Random::new(6);
        let seed = b"deliver\tx\t#00000000";
        for _ in 0..2000 {
            let mut line = seed.to_vec();
            for _ in 0..=random.below(4) {
                let at = random.below(line.len());
                line[at] = [b'\t', b'#', b'%', b'0', 0xff, b'\n'][random.below(6)];
            }
            manifest_line(&line);
        }
    }
}
