//! A client's model of its mailbox, kept by what it is told alone, stays what the server says.

use crate::client::{Client, Server};

/// What one client knows.
struct Model {
    client: Client,
    /// UIDs by sequence number; 0 for one that was announced and not asked for.
    uids: Vec<u32>,
}

impl Model {
    async fn new(server: &Server) -> Self {
        let mut client = server.login().await;
        let answer = client.ok("SELECT INBOX").await;
        let mut this = Self {
            client,
            uids: Vec::new(),
        };
        this.take(&answer, true);
        this
    }

    fn take(&mut self, answer: &str, may_expunge: bool) {
        for line in answer.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words.as_slice() {
                ["*", count, "EXISTS"] => {
                    let count: usize = count.parse().unwrap();
                    assert!(count >= self.uids.len(), "EXISTS takes nothing away: {answer}");
                    self.uids.resize(count, 0);
                }
                ["*", number, "EXPUNGE"] => {
                    assert!(may_expunge, "{answer}");
                    self.uids.remove(number.parse::<usize>().unwrap() - 1);
                }
                ["*", number, "FETCH", rest @ ..] => {
                    let number: usize = number.parse().unwrap();
                    let known = self.uids.get_mut(number - 1).expect("a number that was announced");
                    let rest = rest.join(" ");
                    if let Some((_, uid)) = rest.split_once("UID ") {
                        let digits: String = uid.chars().take_while(char::is_ascii_digit).collect();
                        let uid: u32 = digits.parse().unwrap();
                        assert!(*known == 0 || *known == uid, "{number} was {known}: {answer}");
                        *known = uid;
                    }
                }
                _ => {}
            }
        }
    }

    async fn run(&mut self, command: &str) {
        let plain = ["FETCH", "STORE", "SEARCH"]
            .iter()
            .any(|word| command.starts_with(word));
        let answer = self.client.command(command).await;
        assert!(!answer.contains("TAG BAD"), "{command}: {answer}");
        self.take(&answer, !plain);
    }
}

fn next(state: &mut u64) -> u32 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    u32::try_from(*state >> 40).unwrap()
}

#[tokio::test]
async fn sequence_numbers_stay_what_the_client_was_told() {
    for seed in 1..=2_u64 {
        let server = Server::new().await;
        let mut models = [Model::new(&server).await, Model::new(&server).await];
        let mut state = seed;
        for _ in 0..150 {
            let who = usize::from(next(&mut state).is_multiple_of(2));
            let model = &mut models[who];
            let count = u32::try_from(model.uids.len()).unwrap();
            let number = next(&mut state) % count.max(1) + 1;
            let command = match next(&mut state) % 12 {
                0..=2 => "APPEND INBOX {3+}\r\nabc".to_owned(),
                _ if count == 0 => "NOOP".to_owned(),
                3 => format!("STORE {number} +FLAGS.SILENT (\\Deleted)"),
                4 => format!("STORE {number} +FLAGS (\\Flagged k{number})"),
                5 => "EXPUNGE".to_owned(),
                6 => format!("FETCH {number}:* (UID FLAGS)"),
                7 => format!("UID STORE {number}:* -FLAGS (\\Flagged)"),
                8 => format!("MOVE {number} Archive"),
                9 => format!("COPY {number} INBOX"),
                10 => "SEARCH FLAGGED BODY abc".to_owned(),
                _ => "NOOP".to_owned(),
            };
            model.run(&command).await;
        }
        for model in &mut models {
            model.run("NOOP").await;
            model.run("FETCH 1:* (UID)").await;
        }
        assert_eq!(models[0].uids, models[1].uids, "seed {seed}");
        assert!(models[0].uids.iter().all(|&uid| uid > 0));
    }
}
