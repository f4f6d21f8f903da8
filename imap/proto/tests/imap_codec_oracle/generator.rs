//! Commands at random: every command of RFC 3501 and its extensions that imap-codec knows, in many spellings.

use core_types::testing::Random;

pub(crate) struct Generator(Random);

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0.below(bound)
    }

    pub(crate) fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    fn joined(&mut self, most: usize, separator: &str, mut make: impl FnMut(&mut Self) -> String) -> String {
        let count = 1 + self.below(most);
        let all: Vec<String> = (0..count).map(|_| make(self)).collect();
        all.join(separator)
    }

    /// A word in some case.
    fn word(&mut self, word: &str) -> String {
        match self.below(4) {
            0 => word.to_ascii_lowercase(),
            1 => word
                .chars()
                .map(|c| if self.below(2) == 0 { c.to_ascii_lowercase() } else { c })
                .collect(),
            _ => word.to_owned(),
        }
    }

    /// One of these words in some case.
    fn word_of(&mut self, words: &[&str]) -> String {
        let word = self.one(words);
        self.word(word)
    }

    pub(crate) fn number(&mut self) -> u32 {
        match self.below(8) {
            0 => u32::MAX,
            1 => u32::MAX - 1,
            2 => 1,
            3 => u32::try_from(self.below(1 << 31)).unwrap() + 1,
            _ => u32::try_from(self.below(30)).unwrap() + 1,
        }
    }

    pub(crate) fn sequence_set(&mut self) -> String {
        self.joined(5, ",", |random| match random.below(8) {
            0 => "*".to_owned(),
            1 => format!("{}:*", random.number()),
            2 => format!("*:{}", random.number()),
            3 | 4 => format!("{}:{}", random.number(), random.number()),
            _ => random.number().to_string(),
        })
    }

    /// Text without control characters.
    pub(crate) fn text(&mut self) -> String {
        self.one(&[
            "",
            "x",
            "hello",
            "two words",
            "a\"b",
            "back\\slash",
            "{5}",
            "100%",
            "a*b",
            "NIL",
            "(x)",
            "]",
            "~",
            "+a",
            "a@b.example",
            "very-long-very-long-very-long-very-long-very-long-very-long-very-long",
        ])
        .to_owned()
    }

    fn literal(&mut self, text: &str) -> String {
        let plus = self.one(&["", "+"]);
        format!("{{{}{plus}}}\r\n{text}", text.len())
    }

    fn quoted(text: &str) -> String {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }

    /// RFC 3501 `string`
    fn string(&mut self, text: &str) -> String {
        if self.below(3) == 0 {
            self.literal(text)
        } else {
            Self::quoted(text)
        }
    }

    /// RFC 3501 `astring`
    fn astring(&mut self, text: &str) -> String {
        let is_atom = !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"(){%*\"\\".contains(&byte));
        if is_atom && self.below(2) == 0 {
            text.to_owned()
        } else {
            self.string(text)
        }
    }

    fn any_astring(&mut self) -> String {
        let text = self.text();
        self.astring(&text)
    }

    pub(crate) fn mailbox_name(&mut self) -> &'static str {
        self.one(&[
            "INBOX",
            "inbox",
            "InBoX",
            "INBOX/x",
            "Sent",
            "a/b/c",
            "Entw&APw-rfe",
            "&ZeVnLIqe-",
            "R&-D",
            "two words",
            "a.b",
            "[Gmail]/All Mail",
            "~x",
            "#x",
            "x]",
            "it's",
            "a+b",
            "NIL",
            "a\"b",
            "a\\b",
            "a{1}b",
            "&",
            "&AB-",
            "a//b",
            "/a",
            "a/",
            "..",
            "x%y",
            "x*y",
        ])
    }

    fn mailbox(&mut self) -> String {
        let name = self.mailbox_name();
        self.astring(name)
    }

    fn list_pattern(&mut self) -> String {
        let pattern = self.one(&[
            "",
            "*",
            "%",
            "a/%",
            "INBOX",
            "%/%",
            "*x*",
            "&ZeVnLIqe-*",
            "two words",
            "[Gmail]/%",
            "a\"*",
            "x%%y**",
        ]);
        let is_token = !pattern.is_empty()
            && pattern
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !b"(){\"\\".contains(&byte));
        if is_token && self.below(2) == 0 {
            pattern.to_owned()
        } else {
            self.string(pattern)
        }
    }

    pub(crate) fn flag(&mut self) -> String {
        match self.below(3) {
            0 => self
                .one(&[
                    "$Junk",
                    "$Forwarded",
                    "Work",
                    "work",
                    "a.b",
                    "x]",
                    "NonJunk",
                    "$MDNSent",
                    "+x",
                    "~",
                ])
                .to_owned(),
            _ => self.word_of(&["\\Seen", "\\Answered", "\\Flagged", "\\Deleted", "\\Draft"]),
        }
    }

    fn date(&mut self) -> String {
        let day = 1 + self.below(28);
        let month = self.word_of(&[
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ]);
        let year = self.one(&["1970", "1994", "2024", "2038", "2100", "0100"]);
        let date = if self.below(2) == 0 {
            format!("{day:02}-{month}-{year}")
        } else {
            format!("{day}-{month}-{year}")
        };
        if self.below(2) == 0 {
            date
        } else {
            format!("\"{date}\"")
        }
    }

    fn date_time(&mut self) -> String {
        let day = 1 + self.below(28);
        let day = if self.below(2) == 0 {
            format!("{day:02}")
        } else {
            format!("{day:2}")
        };
        let month = self.one(&["Jan", "Feb", "Jul", "Dec"]);
        let (hour, minute, second) = (self.below(24), self.below(60), self.below(60));
        let zone = self.one(&["+0000", "-0700", "+1345", "-0001", "+0530"]);
        format!("\"{day}-{month}-1996 {hour:02}:{minute:02}:{second:02} {zone}\"")
    }

    fn part(&mut self) -> String {
        self.joined(3, ".", |random| (1 + random.below(9)).to_string())
    }

    fn section(&mut self) -> String {
        let fields = |random: &mut Self| {
            let word = random.word_of(&["HEADER.FIELDS", "HEADER.FIELDS.NOT"]);
            let names = random.joined(3, " ", |random| {
                let name = random.one(&["From", "TO", "X-Y", "List-Id", "date"]);
                random.astring(name)
            });
            format!("{word} ({names})")
        };
        match self.below(7) {
            0 => String::new(),
            1 => self.word_of(&["HEADER", "TEXT"]),
            2 => fields(self),
            3 => self.part(),
            4 => format!("{}.{}", self.part(), self.word_of(&["HEADER", "TEXT", "MIME"])),
            5 => format!("{}.{}", self.part(), fields(self)),
            _ => self.word_of(&["TEXT", "HEADER"]),
        }
    }

    fn fetch_item(&mut self) -> String {
        if self.below(2) == 0 {
            let word = self.word_of(&["BODY", "BODY.PEEK"]);
            let partial = match self.below(3) {
                0 => format!("<{}.{}>", self.below(5000), self.number()),
                _ => String::new(),
            };
            return format!("{word}[{}]{partial}", self.section());
        }
        self.word_of(&[
            "FLAGS",
            "UID",
            "INTERNALDATE",
            "ENVELOPE",
            "BODY",
            "BODYSTRUCTURE",
            "RFC822",
            "RFC822.HEADER",
            "RFC822.SIZE",
            "RFC822.TEXT",
        ])
    }

    fn fetch_items(&mut self) -> String {
        match self.below(4) {
            0 => self.word_of(&["ALL", "FAST", "FULL"]),
            1 => self.fetch_item(),
            _ => format!("({})", self.joined(5, " ", Self::fetch_item)),
        }
    }

    fn search_key(&mut self, depth: usize) -> String {
        match self.below(if depth == 0 { 7 } else { 10 }) {
            0 | 1 => self.word_of(&[
                "ALL",
                "ANSWERED",
                "DELETED",
                "DRAFT",
                "FLAGGED",
                "NEW",
                "OLD",
                "RECENT",
                "SEEN",
                "UNANSWERED",
                "UNDELETED",
                "UNDRAFT",
                "UNFLAGGED",
                "UNSEEN",
            ]),
            2 => format!(
                "{} {}",
                self.word_of(&["BCC", "BODY", "CC", "FROM", "SUBJECT", "TEXT", "TO"]),
                self.any_astring()
            ),
            3 => format!(
                "{} {}",
                self.word_of(&["BEFORE", "ON", "SINCE", "SENTBEFORE", "SENTON", "SENTSINCE"]),
                self.date()
            ),
            4 => match self.below(3) {
                0 => format!(
                    "{} {}",
                    self.word_of(&["KEYWORD", "UNKEYWORD"]),
                    self.one(&["$Junk", "Work", "a.b"])
                ),
                1 => format!("{} {}", self.word_of(&["LARGER", "SMALLER"]), self.number()),
                _ => {
                    let name = self.one(&["Subject", "X-y", "Received"]);
                    format!("{} {} {}", self.word("HEADER"), self.astring(name), self.any_astring())
                }
            },
            5 => self.sequence_set(),
            6 => format!("{} {}", self.word("UID"), self.sequence_set()),
            7 => format!("{} {}", self.word("NOT"), self.search_key(depth - 1)),
            8 => format!(
                "{} {} {}",
                self.word("OR"),
                self.search_key(depth - 1),
                self.search_key(depth - 1)
            ),
            _ => format!("({})", self.joined(3, " ", |random| random.search_key(depth - 1))),
        }
    }

    fn uid(&mut self) -> String {
        if self.below(2) == 0 {
            String::new()
        } else {
            self.word("UID ")
        }
    }

    fn body(&mut self) -> String {
        match self.below(24) {
            0 => self.word_of(&[
                "CAPABILITY",
                "NOOP",
                "LOGOUT",
                "CHECK",
                "CLOSE",
                "EXPUNGE",
                "UNSELECT",
                "NAMESPACE",
                "IDLE",
                "STARTTLS",
            ]),
            1 => format!("{} {} {}", self.word("LOGIN"), self.any_astring(), self.any_astring()),
            2 => {
                let initial = self.one(&["", " =", " AGEAYg=="]);
                format!("{} {}{initial}", self.word("AUTHENTICATE"), self.word("PLAIN"))
            }
            3 => format!(
                "{} {}",
                self.word_of(&["SELECT", "EXAMINE", "CREATE", "DELETE", "SUBSCRIBE", "UNSUBSCRIBE"]),
                self.mailbox()
            ),
            4 => format!("{} {} {}", self.word("RENAME"), self.mailbox(), self.mailbox()),
            5 | 6 => {
                let word = self.word_of(&["LIST", "LSUB"]);
                let reference = self.one(&["", "a/", "INBOX", "two words/", "&ZeVnLIqe-/"]);
                format!("{word} {} {}", self.astring(reference), self.list_pattern())
            }
            7 | 8 => {
                let items = self.joined(5, " ", |random| {
                    random.word_of(&["MESSAGES", "RECENT", "UIDNEXT", "UIDVALIDITY", "UNSEEN"])
                });
                format!("{} {} ({items})", self.word("STATUS"), self.mailbox())
            }
            9 | 10 => {
                let flags = match self.below(3) {
                    0 => String::new(),
                    1 => "() ".to_owned(),
                    _ => format!("({}) ", self.joined(3, " ", Self::flag)),
                };
                let date = if self.below(2) == 0 {
                    String::new()
                } else {
                    format!("{} ", self.date_time())
                };
                let plus = self.one(&["", "+"]);
                format!(
                    "{} {} {flags}{date}{{5{plus}}}\r\nhello",
                    self.word("APPEND"),
                    self.mailbox()
                )
            }
            11 => format!("{} {}", self.word("UID EXPUNGE"), self.sequence_set()),
            12..=22 => self.message_command(),
            _ => {
                let pairs = match self.below(3) {
                    0 => "NIL".to_owned(),
                    _ => {
                        let pairs = self.joined(3, " ", |random| {
                            let (field, value) = (random.one(&["name", "version", "os"]), random.text());
                            let value = if random.below(3) == 0 {
                                "NIL".to_owned()
                            } else {
                                random.string(&value)
                            };
                            format!("{} {value}", random.string(field))
                        });
                        format!("({pairs})")
                    }
                };
                format!("{} {pairs}", self.word("ID"))
            }
        }
    }

    /// A command about messages of the selected mailbox.
    fn message_command(&mut self) -> String {
        match self.below(11) {
            0..=2 => {
                let charset = match self.below(4) {
                    0 => format!(
                        "{} {} ",
                        self.word("CHARSET"),
                        self.one(&["UTF-8", "US-ASCII", "utf-8", "\"UTF-8\""])
                    ),
                    _ => String::new(),
                };
                let uid = self.uid();
                let keys = self.joined(3, " ", |random| random.search_key(3));
                format!("{uid}{} {charset}{keys}", self.word("SEARCH"))
            }
            3..=6 => format!(
                "{}{} {} {}",
                self.uid(),
                self.word("FETCH"),
                self.sequence_set(),
                self.fetch_items()
            ),
            7 | 8 => {
                let word = self.word_of(&[
                    "FLAGS",
                    "+FLAGS",
                    "-FLAGS",
                    "FLAGS.SILENT",
                    "+FLAGS.SILENT",
                    "-FLAGS.SILENT",
                ]);
                let flags = self.joined(4, " ", Self::flag);
                let flags = if self.below(3) == 0 {
                    flags
                } else {
                    format!("({flags})")
                };
                format!(
                    "{}{} {} {word} {flags}",
                    self.uid(),
                    self.word("STORE"),
                    self.sequence_set()
                )
            }
            _ => format!(
                "{}{} {} {}",
                self.uid(),
                self.word_of(&["COPY", "MOVE"]),
                self.sequence_set(),
                self.mailbox()
            ),
        }
    }

    /// A command with its tag and its CRLF.
    pub(crate) fn command(&mut self) -> Vec<u8> {
        let tag = self.one(&["a", "A001", "x.y", "1", "[]", "~", "a-b_c"]);
        format!("{tag} {}\r\n", self.body()).into_bytes()
    }

    /// Changes an octet or a few of the command; its CRLF stays.
    pub(crate) fn mutate(&mut self, command: &mut Vec<u8>) {
        const OCTETS: &[u8] = b" \t\"\\(){}[]<>*%:,.+-=~&/\x00\x7f\r\naA19\xc3\xa4";
        for _ in 0..=self.below(2) {
            let at = self.below(command.len().saturating_sub(2).max(1));
            match self.below(4) {
                0 => command[at] = OCTETS[self.below(OCTETS.len())],
                1 => drop(command.remove(at)),
                2 => command.insert(at, OCTETS[self.below(OCTETS.len())]),
                _ => {
                    let end = command.len().saturating_sub(2).min(at + 1 + self.below(8)).max(at);
                    let copy = command[at..end].to_vec();
                    command.splice(at..at, copy);
                }
            }
        }
    }
}
