//! Schedules as text, one line per event: to be shown, kept beside a failing seed, edited by hand and read back.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::fault::{Change, DiskOp, During, Fault, FaultKind, Links, Moment, Stored};
use super::{ClientPlan, ClientRole, Event, Schedule};
use crate::time::Time;

/// Why a text is not a schedule: the line, from 1, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// The line.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for ParseError {}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        writeln!(f, "nodes {}", list(&self.nodes))?;
        writeln!(f, "duration {}", Time::after(self.duration))?;
        writeln!(f, "heal {}", self.heal)?;
        for (name, value) in &self.knobs {
            writeln!(f, "knob {name} {value}")?;
        }
        for client in &self.clients {
            let ClientPlan {
                id,
                seed,
                user,
                node,
                role,
            } = client;
            writeln!(
                f,
                "client id={id} seed={seed} user={user} node={node} role={}",
                role.name()
            )?;
        }
        for event in &self.events {
            writeln!(f, "{event}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} for {} {}", self.at, Time::after(self.lasts), self.fault)
    }
}

/// The kind, then `name=value` for each field.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind().name())?;
        for (name, value) in fields(self) {
            write!(f, " {name}={value}")?;
        }
        Ok(())
    }
}

impl Schedule {
    /// Reads what [`fmt::Display`] writes; empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// [`ParseError`], with the line.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut schedule = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            parse_line(&mut schedule, line).map_err(|what| ParseError { line: number + 1, what })?;
        }
        Ok(schedule)
    }
}

fn parse_line(schedule: &mut Schedule, line: &str) -> Result<(), String> {
    let (word, rest) = line.split_once(' ').ok_or("no value")?;
    match word {
        "seed" => schedule.seed = number(rest)?,
        "nodes" => schedule.nodes = numbers(rest)?,
        "duration" => schedule.duration = duration(rest)?,
        "heal" => schedule.heal = Time::after(duration(rest)?),
        "knob" => {
            let (name, value) = rest.split_once(' ').ok_or("no value")?;
            schedule.knobs.insert(name.to_owned(), number(value)?);
        }
        "client" => {
            let fields = Fields::parse(rest)?;
            schedule.clients.push(ClientPlan {
                id: fields.number("id")?,
                seed: fields.number("seed")?,
                user: fields.number("user")?,
                node: fields.number("node")?,
                role: named(ClientRole::ALL, ClientRole::name, fields.text("role")?)?,
            });
        }
        "at" => {
            let mut words = rest.splitn(5, ' ');
            let at = Time::after(duration(words.next().unwrap_or_default())?);
            if words.next() != Some("for") {
                return Err("no \"for\" after the time".to_owned());
            }
            let lasts = duration(words.next().unwrap_or_default())?;
            let kind = named(FaultKind::ALL, FaultKind::name, words.next().unwrap_or_default())?;
            let fields = Fields::parse(words.next().unwrap_or_default())?;
            let fault = fault(kind, &fields)?;
            schedule.events.push(Event { at, lasts, fault });
        }
        _ => return Err(format!("unknown word \"{word}\"")),
    }
    Ok(())
}

fn fields(fault: &Fault) -> Vec<(&'static str, String)> {
    let node_of = |node: &u64| ("node", node.to_string());
    let time = |time: &Duration| Time::after(*time).to_string();
    match fault {
        Fault::Crash { nodes, power_loss } => {
            vec![("nodes", list(nodes)), ("power_loss", power_loss.to_string())]
        }
        Fault::PowerOffAfter { node, calls } => vec![node_of(node), ("calls", calls.to_string())],
        Fault::Restart { node }
        | Fault::Pause { node }
        | Fault::DiskFrozen { node }
        | Fault::DiskFull { node }
        | Fault::ShortRead { node }
        | Fault::ReplaceNode { node }
        | Fault::SnapshotNow { node } => vec![node_of(node)],
        Fault::Partition { groups } => {
            let groups: Vec<String> = groups.iter().map(|group| list(group)).collect();
            vec![("groups", groups.join("/"))]
        }
        Fault::OneWay { from, to } => vec![("from", list(from)), ("to", list(to))],
        Fault::Bridge { left, right } => vec![("left", list(left)), ("right", list(right))],
        Fault::Loss { links, permille } | Fault::Duplicate { links, permille } => {
            vec![("links", links_text(*links)), ("permille", permille.to_string())]
        }
        Fault::Reorder { links, permille, by } => vec![
            ("links", links_text(*links)),
            ("permille", permille.to_string()),
            ("by", time(by)),
        ],
        Fault::Delay { links, min, max } => {
            vec![("links", links_text(*links)), ("min", time(min)), ("max", time(max))]
        }
        Fault::SlowNode { node, by } => vec![node_of(node), ("by", time(by))],
        Fault::ClockJump { node, millis } => vec![node_of(node), ("millis", millis.to_string())],
        Fault::ClockDrift { node, ppm } => vec![node_of(node), ("ppm", ppm.to_string())],
        Fault::DiskSlow { node, max } => vec![node_of(node), ("max", time(max))],
        Fault::DiskEio { node, op, permille } => vec![
            node_of(node),
            ("op", op_name(*op).to_owned()),
            ("permille", permille.to_string()),
        ],
        Fault::BitFlip { node, what } | Fault::Misdirected { node, what } => {
            vec![node_of(node), ("what", stored_name(*what).to_owned())]
        }
        Fault::FileLost { node, what, cut } => vec![
            node_of(node),
            ("what", stored_name(*what).to_owned()),
            ("cut", cut.to_string()),
        ],
        Fault::IndexLost { node, broken } => vec![node_of(node), ("broken", broken.to_string())],
        Fault::RestoreImage { node, age } => vec![node_of(node), ("age", time(age))],
        Fault::Membership { change } => match change {
            Change::Add(node) => vec![("add", node.to_string())],
            Change::Drain(node) => vec![("drain", node.to_string())],
            Change::Remove(node) => vec![("remove", node.to_string())],
            Change::Move { group, from, to } => vec![
                ("group", group.to_string()),
                ("from", from.to_string()),
                ("to", to.to_string()),
            ],
        },
        Fault::LeaderTransfer { group, to } => vec![("group", group.to_string()), ("to", to.to_string())],
        Fault::ClientDies { client, during } => vec![
            ("client", client.to_string()),
            ("during", during_name(*during).to_owned()),
        ],
        Fault::ClientCut { clients, nodes } => vec![("clients", list(clients)), ("nodes", list(nodes))],
        Fault::PowerOffAt { node, what, op } => vec![
            node_of(node),
            ("what", stored_name(*what).to_owned()),
            ("op", op_name(*op).to_owned()),
        ],
        Fault::KillLeader {
            group,
            when,
            power_loss,
        } => vec![
            ("group", group.to_string()),
            ("when", moment_name(*when).to_owned()),
            ("power_loss", power_loss.to_string()),
        ],
    }
}

fn fault(kind: FaultKind, fields: &Fields<'_>) -> Result<Fault, String> {
    let node = || fields.number("node");
    let permille = || fields.number("permille");
    let links = || parse_links(fields.text("links")?);
    Ok(match kind {
        FaultKind::Crash => Fault::Crash {
            nodes: fields.numbers("nodes")?,
            power_loss: fields.number("power_loss")?,
        },
        FaultKind::PowerOffAfter => Fault::PowerOffAfter {
            node: node()?,
            calls: fields.number("calls")?,
        },
        FaultKind::Restart => Fault::Restart { node: node()? },
        FaultKind::Pause => Fault::Pause { node: node()? },
        FaultKind::Partition => Fault::Partition {
            groups: fields
                .text("groups")?
                .split('/')
                .map(numbers)
                .collect::<Result<_, _>>()?,
        },
        FaultKind::OneWay => Fault::OneWay {
            from: fields.numbers("from")?,
            to: fields.numbers("to")?,
        },
        FaultKind::Bridge => Fault::Bridge {
            left: fields.numbers("left")?,
            right: fields.numbers("right")?,
        },
        FaultKind::Loss => Fault::Loss {
            links: links()?,
            permille: permille()?,
        },
        FaultKind::Duplicate => Fault::Duplicate {
            links: links()?,
            permille: permille()?,
        },
        FaultKind::Reorder => Fault::Reorder {
            links: links()?,
            permille: permille()?,
            by: fields.duration("by")?,
        },
        FaultKind::Delay => Fault::Delay {
            links: links()?,
            min: fields.duration("min")?,
            max: fields.duration("max")?,
        },
        _ => return fault_of_a_node(kind, fields),
    })
}

fn fault_of_a_node(kind: FaultKind, fields: &Fields<'_>) -> Result<Fault, String> {
    let node = || fields.number("node");
    let permille = || fields.number("permille");
    let what = || named(STORED, stored_name, fields.text("what")?);
    Ok(match kind {
        FaultKind::SlowNode => Fault::SlowNode {
            node: node()?,
            by: fields.duration("by")?,
        },
        FaultKind::ClockJump => Fault::ClockJump {
            node: node()?,
            millis: fields.number("millis")?,
        },
        FaultKind::ClockDrift => Fault::ClockDrift {
            node: node()?,
            ppm: fields.number("ppm")?,
        },
        FaultKind::DiskSlow => Fault::DiskSlow {
            node: node()?,
            max: fields.duration("max")?,
        },
        FaultKind::DiskFrozen => Fault::DiskFrozen { node: node()? },
        FaultKind::DiskFull => Fault::DiskFull { node: node()? },
        FaultKind::DiskEio => Fault::DiskEio {
            node: node()?,
            op: named(OPS, op_name, fields.text("op")?)?,
            permille: permille()?,
        },
        FaultKind::ShortRead => Fault::ShortRead { node: node()? },
        FaultKind::BitFlip => Fault::BitFlip {
            node: node()?,
            what: what()?,
        },
        FaultKind::Misdirected => Fault::Misdirected {
            node: node()?,
            what: what()?,
        },
        FaultKind::FileLost => Fault::FileLost {
            node: node()?,
            what: what()?,
            cut: fields.number("cut")?,
        },
        FaultKind::IndexLost => Fault::IndexLost {
            node: node()?,
            broken: fields.number("broken")?,
        },
        FaultKind::RestoreImage => Fault::RestoreImage {
            node: node()?,
            age: fields.duration("age")?,
        },
        FaultKind::ReplaceNode => Fault::ReplaceNode { node: node()? },
        FaultKind::Membership => Fault::Membership {
            change: change(fields)?,
        },
        FaultKind::LeaderTransfer => Fault::LeaderTransfer {
            group: fields.number("group")?,
            to: fields.number("to")?,
        },
        FaultKind::SnapshotNow => Fault::SnapshotNow { node: node()? },
        FaultKind::ClientDies => Fault::ClientDies {
            client: fields.number("client")?,
            during: named(DURING, during_name, fields.text("during")?)?,
        },
        FaultKind::ClientCut => Fault::ClientCut {
            clients: fields.numbers("clients")?,
            nodes: fields.numbers("nodes")?,
        },
        FaultKind::PowerOffAt => Fault::PowerOffAt {
            node: node()?,
            what: what()?,
            op: named(OPS, op_name, fields.text("op")?)?,
        },
        FaultKind::KillLeader => Fault::KillLeader {
            group: fields.number("group")?,
            when: named(MOMENTS, moment_name, fields.text("when")?)?,
            power_loss: fields.number("power_loss")?,
        },
        _ => return Err(format!("{kind} is not read here")),
    })
}

fn change(fields: &Fields<'_>) -> Result<Change, String> {
    if fields.0.contains_key("group") {
        return Ok(Change::Move {
            group: fields.number("group")?,
            from: fields.number("from")?,
            to: fields.number("to")?,
        });
    }
    let added = fields.number("add").map(Change::Add);
    let drained = || fields.number("drain").map(Change::Drain);
    let removed = |_| fields.number("remove").map(Change::Remove);
    added.or_else(|_| drained()).or_else(removed)
}

struct Fields<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Fields<'a> {
    fn parse(text: &'a str) -> Result<Self, String> {
        let pair = |word: &'a str| {
            word.split_once('=')
                .ok_or_else(|| format!("\"{word}\" is not name=value"))
        };
        text.split_whitespace().map(pair).collect::<Result<_, _>>().map(Self)
    }

    fn text(&self, name: &str) -> Result<&'a str, String> {
        self.0.get(name).copied().ok_or_else(|| format!("no \"{name}\""))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T, String> {
        number(self.text(name)?)
    }

    fn numbers(&self, name: &str) -> Result<Vec<u64>, String> {
        numbers(self.text(name)?)
    }

    fn duration(&self, name: &str) -> Result<Duration, String> {
        duration(self.text(name)?)
    }
}

fn list(nodes: &[u64]) -> String {
    let nodes: Vec<String> = nodes.iter().map(u64::to_string).collect();
    nodes.join(",")
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("\"{text}\" is not a value"))
}

fn numbers(text: &str) -> Result<Vec<u64>, String> {
    text.split(',').filter(|word| !word.is_empty()).map(number).collect()
}

fn duration(text: &str) -> Result<Duration, String> {
    let time = Time::parse(text).ok_or_else(|| format!("\"{text}\" is not a time such as 1.500000"))?;
    Ok(time.since_start())
}

fn named<T: Copy>(all: &[T], name: fn(T) -> &'static str, text: &str) -> Result<T, String> {
    let found = all.iter().copied().find(|item| name(*item) == text);
    found.ok_or_else(|| format!("unknown word \"{text}\""))
}

fn links_text(links: Links) -> String {
    match links {
        Links::All => "all".to_owned(),
        Links::Of(node) => node.to_string(),
        Links::Between(from, to) => format!("{from}>{to}"),
    }
}

fn parse_links(text: &str) -> Result<Links, String> {
    if text == "all" {
        return Ok(Links::All);
    }
    match text.split_once('>') {
        Some((from, to)) => Ok(Links::Between(number(from)?, number(to)?)),
        None => Ok(Links::Of(number(text)?)),
    }
}

const STORED: &[Stored] = &[
    Stored::Log,
    Stored::Blob,
    Stored::BlobJournal,
    Stored::Snapshot,
    Stored::Manifest,
    Stored::Any,
];

fn stored_name(stored: Stored) -> &'static str {
    match stored {
        Stored::Log => "log",
        Stored::Blob => "blob",
        Stored::BlobJournal => "blob_journal",
        Stored::Snapshot => "snapshot",
        Stored::Manifest => "manifest",
        Stored::Any => "any",
    }
}

const OPS: &[DiskOp] = &[DiskOp::Read, DiskOp::Write, DiskOp::Sync];

fn op_name(op: DiskOp) -> &'static str {
    match op {
        DiskOp::Read => "read",
        DiskOp::Write => "write",
        DiskOp::Sync => "sync",
    }
}

const DURING: &[During] = &[During::Data, During::Append, During::Idle];

fn during_name(during: During) -> &'static str {
    match during {
        During::Data => "data",
        During::Append => "append",
        During::Idle => "idle",
    }
}

const MOMENTS: &[Moment] = &[Moment::Now, Moment::Receipts];

fn moment_name(moment: Moment) -> &'static str {
    match moment {
        Moment::Now => "now",
        Moment::Receipts => "receipts",
    }
}
