//! Sessions at two nodes of a site that want the same: the log decides, and both nodes show the same afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, missing_docs)]
#![allow(dead_code, reason = "of the site's helpers the most are for losses of power")]

#[path = "support/disk.rs"]
mod disk;
#[path = "support/site.rs"]
mod site;

use std::collections::BTreeMap;
use std::time::Duration;

use site::Site;
use state::DirectoryOp;
use state::rows::Credential;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream};
use wire::{Connection, Limiter, Shutdown};

struct Client {
    stream: BufReader<DuplexStream>,
    tag: u32,
}

impl Client {
    /// A session of user 1 at this node.
    async fn login(site: &Site, node: u64) -> Self {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        let peer = "127.0.0.1:1000".parse().unwrap();
        let limiter = Limiter::new(10, 10);
        let connection = Connection {
            stream: Box::new(theirs),
            peer,
            secure: false,
            tls: None,
            plain_login: true,
            shutdown: Shutdown::never(),
            permit: limiter.admit(peer.ip()).unwrap(),
        };
        let context = imap::Context::new(site.running[&node].store.clone());
        tokio::spawn(imap::serve(connection, context));
        let mut client = Self {
            stream: BufReader::new(ours),
            tag: 0,
        };
        assert!(client.line().await.starts_with("* OK"));
        client.ok("LOGIN user1@example.test secret").await;
        client
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    }

    /// The untagged answers, and the tagged one without its tag.
    async fn command(&mut self, command: &str) -> (Vec<String>, String) {
        self.tag += 1;
        let tag = format!("a{} ", self.tag);
        self.stream
            .write_all(format!("{tag}{command}\r\n").as_bytes())
            .await
            .unwrap();
        let mut untagged = Vec::new();
        loop {
            let line = self.line().await;
            assert!(!line.is_empty(), "closed: {command}: {untagged:?}");
            match line.strip_prefix(&tag) {
                Some(answer) => return (untagged, answer.to_owned()),
                None => untagged.push(line),
            }
        }
    }

    async fn ok(&mut self, command: &str) -> Vec<String> {
        let (untagged, answer) = self.command(command).await;
        assert!(answer.starts_with("OK"), "{command}: {answer}");
        untagged
    }

    /// Each mailbox's name and UIDVALIDITY, which tells it from any other.
    async fn mailboxes(&mut self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for line in self.ok("LIST \"\" *").await {
            let name = line.rsplit_once(' ').unwrap().1.to_owned();
            let status = self.ok(&format!("STATUS {name} (UIDVALIDITY)")).await;
            found.insert(name, status[0].clone());
        }
        found
    }

    async fn logout(mut self) {
        self.stream.write_all(b"z LOGOUT\r\n").await.unwrap();
        let mut rest = String::new();
        self.stream.read_to_string(&mut rest).await.unwrap();
    }
}

async fn site_with_a_password(seed: u64) -> Site {
    let site = Site::start(seed, Duration::from_millis(1), None).await;
    let directory = site.running[&1].store.directory();
    let phc = directory.hash_password(b"secret").await.unwrap();
    let account = site.accounts[0].id;
    let credential = Credential::Password(phc);
    directory
        .propose(DirectoryOp::SetCredential { account, credential })
        .await
        .unwrap();
    site
}

/// What one of two commands came to that cannot both succeed: which of them did.
fn winner(answers: [&str; 2], refusal: &str) -> usize {
    let winners: Vec<usize> = (0..2).filter(|&at| answers[at].starts_with("OK")).collect();
    assert_eq!(winners.len(), 1, "{answers:?}");
    assert!(answers[1 - winners[0]].starts_with(refusal), "{answers:?}");
    winners[0]
}

#[tokio::test(start_paused = true)]
async fn imap_rename_race() {
    let site = site_with_a_password(1).await;
    let (mut one, mut two) = (Client::login(&site, 1).await, Client::login(&site, 3).await);
    let mut won = [0, 0];
    for round in 0..16 {
        let from = [format!("x{round}"), format!("y{round}")];
        one.ok(&format!("CREATE {}/below", from[0])).await;
        one.ok(&format!("CREATE {}", from[1])).await;
        let before = two.mailboxes().await;
        let renames = from.clone().map(|from| format!("RENAME {from} z{round}"));
        // Now this one is a little late, now that one.
        let late = Duration::from_micros(500 * (round / 2));
        let late = if round % 2 == 0 {
            [Duration::ZERO, late]
        } else {
            [late, Duration::ZERO]
        };
        let (first, second) = tokio::join!(
            async {
                tokio::time::sleep(late[0]).await;
                one.command(&renames[0]).await
            },
            async {
                tokio::time::sleep(late[1]).await;
                two.command(&renames[1]).await
            }
        );
        let winner = winner([&first.1, &second.1], "NO [ALREADYEXISTS]");
        won[winner] += 1;
        // Both show the same: one mailbox has the new name, the other its old one, and no message's home is lost.
        let (here, there) = (one.mailboxes().await, two.mailboxes().await);
        assert_eq!(here, there);
        let mut expected = before;
        let prefix = format!("\"{}", from[winner]);
        let renamed: Vec<String> = expected
            .keys()
            .filter(|name| name.starts_with(&prefix))
            .cloned()
            .collect();
        for old in renamed {
            let status = expected.remove(&old).unwrap();
            let new = old.replacen(&from[winner], &format!("z{round}"), 1);
            expected.insert(new.clone(), status.replace(&old, &new));
        }
        assert_eq!(here, expected);
        for name in here.keys().filter(|name| !name.contains("INBOX")).rev() {
            one.ok(&format!("DELETE {name}")).await;
        }
    }
    // It is a race: both can win it.
    assert!(won.iter().all(|&count| count > 0), "{won:?}");
    one.logout().await;
    two.logout().await;
}

#[tokio::test(start_paused = true)]
async fn one_name_is_created_once_by_sessions_at_two_nodes() {
    let site = site_with_a_password(2).await;
    let (mut one, mut two) = (Client::login(&site, 1).await, Client::login(&site, 2).await);
    for round in 0..4 {
        let create = format!("CREATE name{round}");
        let (first, second) = tokio::join!(one.command(&create), two.command(&create));
        winner([&first.1, &second.1], "NO [ALREADYEXISTS]");
        assert_eq!(one.mailboxes().await, two.mailboxes().await);
    }
}
