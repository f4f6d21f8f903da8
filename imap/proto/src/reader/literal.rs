//! What the end of a line says: a literal's header (RFC 3501 4.3, RFC 7888), and whether a quoted string is open.

/// `{n}`, `{n+}`, `{n-}` is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Octets of the literal; cut at what 64 bits hold.
    pub(super) length: u64,
    /// Whether the client waits for a continuation request.
    pub(super) sync: bool,
}

impl Header {
    /// The header at the end of a line (without its CRLF). Anything malformed is none, so it stays text, which no
    /// production allows.
    pub(super) fn at_end_of(line: &[u8]) -> Option<Self> {
        let line = line.strip_suffix(b"}")?;
        let (line, sync) = line.strip_suffix(b"+").map_or((line, true), |line| (line, false));
        let digit_count = line.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let (before, digits) = line.split_at_checked(line.len() - digit_count)?;
        if before.last() != Some(&b'{') || digits.is_empty() {
            return None;
        }
        let length = digits.iter().fold(0u64, |number, &digit| {
            number
                .saturating_mul(10)
                .saturating_add(u64::from(digit.wrapping_sub(b'0')))
        });
        Some(Self { length, sync })
    }
}

/// Follows quoted strings over the pieces of a line.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct QuoteScan {
    open: bool,
    escaped: bool,
}

impl QuoteScan {
    pub(super) fn feed(&mut self, piece: &[u8]) {
        for &byte in piece {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.open => self.escaped = true,
                b'"' => self.open = !self.open,
                _ => {}
            }
        }
    }

    /// Whether a quoted string has begun and not ended.
    pub(super) fn is_open(self) -> bool {
        self.open
    }
}

/// Whether a connection's first line is a request of HTTP: a web page that tries to make a browser speak to us.
pub(super) fn is_http(line: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] = [
        b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH",
    ];
    let method = line.split(|&byte| byte == b' ').next().unwrap_or(&[]);
    METHODS.contains(&method) && line.windows(6).any(|window| window == b" HTTP/")
}
