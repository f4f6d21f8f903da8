//! A server that says yes, for the tests of the load generator: SMTP, LMTP, IMAP and POP3, as little as they need.

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::stream::Endpoint;
use crate::target::{Account, Target};

#[derive(Clone, Copy, PartialEq)]
enum Protocol {
    Smtp,
    Imap,
    Pop3,
}

/// A target with all services.
pub(crate) async fn target() -> Target {
    let smtp = serve(Protocol::Smtp).await;
    Target {
        lmtp: vec![smtp.clone()],
        smtp: vec![smtp],
        imap: vec![serve(Protocol::Imap).await],
        pop3: vec![serve(Protocol::Pop3).await],
        accounts: vec![Account {
            address: "user1@example.test".to_owned(),
            password: "secret".to_owned(),
        }],
        from: "bench@bench.invalid".to_owned(),
        smtp_auth: false,
    }
}

async fn serve(protocol: Protocol) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(socket);
                // A client that goes away ends its session.
                let _ = match protocol {
                    Protocol::Smtp => smtp(&mut stream).await,
                    Protocol::Imap => imap(&mut stream).await,
                    Protocol::Pop3 => pop3(&mut stream).await,
                };
            });
        }
    });
    Endpoint { address, tls: None }
}

async fn smtp(stream: &mut BufReader<TcpStream>) -> std::io::Result<()> {
    stream.write_all(b"220 fake\r\n").await?;
    let mut data = false;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let answer: &[u8] = match line.trim_end() {
            "." if data => {
                data = false;
                b"250 kept\r\n"
            }
            _ if data => continue,
            "DATA" => {
                data = true;
                b"354 go\r\n"
            }
            line if line.starts_with("EHLO") => b"250-fake\r\n250 PIPELINING\r\n",
            line if line.contains("nobody") => b"550 5.1.1 no\r\n",
            _ => b"250 yes\r\n",
        };
        stream.write_all(answer).await?;
    }
}

async fn imap(stream: &mut BufReader<TcpStream>) -> std::io::Result<()> {
    stream.write_all(b"* OK fake\r\n").await?;
    let mut exists = 0_u32;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let (tag, command) = line.trim_end().split_once(' ').unwrap();
        let word = command.split(' ').next().unwrap();
        let untagged = match word {
            "LOGIN" if command.contains("nobody") => {
                stream
                    .write_all(format!("{tag} NO [AUTHENTICATIONFAILED] no\r\n").as_bytes())
                    .await?;
                continue;
            }
            "APPEND" => {
                let size: usize = command
                    .rsplit_once('{')
                    .unwrap()
                    .1
                    .trim_end_matches('}')
                    .parse()
                    .unwrap();
                stream.write_all(b"+ go\r\n").await?;
                let mut message = vec![0; size + 2];
                stream.read_exact(&mut message).await?;
                exists += 1;
                String::new()
            }
            "SELECT" => format!("* FLAGS ()\r\n* {exists} EXISTS\r\n"),
            "FETCH" => "* 1 FETCH (UID 1 BODY[] {5}\r\nab\r\nc FLAGS ())\r\n".to_owned(),
            "SEARCH" => "* SEARCH 1 2\r\n".to_owned(),
            "IDLE" => {
                stream.write_all(b"+ idling\r\n").await?;
                let mut done = String::new();
                stream.read_line(&mut done).await?;
                assert_eq!(done, "DONE\r\n");
                String::new()
            }
            _ => String::new(),
        };
        stream
            .write_all(format!("{untagged}{tag} OK done\r\n").as_bytes())
            .await?;
    }
}

async fn pop3(stream: &mut BufReader<TcpStream>) -> std::io::Result<()> {
    stream.write_all(b"+OK fake\r\n").await?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let answer: &[u8] = match line.split(' ').next().unwrap().trim_end() {
            "STAT" => b"+OK 3 900\r\n",
            "RETR" => b"+OK message\r\nSubject: x\r\n\r\ntext\r\n..\r\n.\r\n",
            _ => b"+OK\r\n",
        };
        stream.write_all(answer).await?;
    }
}
