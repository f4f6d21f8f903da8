//! Date and time of RFC 5322 3.3 with the obsolete forms of 4.3.
//!
//! What is no time since 1970 in the calendar is `None`, never a guess: SENT* searches then use the internal date.

use core_types::UnixMillis;

use crate::lexer::{trim, without_comments};

/// Reads a Date field. `None` if it is no date, or one that cannot be (31 February, 25:61, year 99999, before 1970).
#[must_use]
pub fn parse_date(value: &[u8]) -> Option<UnixMillis> {
    // The longest date with folds and a comment is far below this; what is longer is no date.
    if value.len() > 1024 {
        return None;
    }
    let plain = without_comments(&crate::header::unfold(value));
    let text = std::str::from_utf8(trim(&plain)).ok()?;
    let words: Vec<&str> = text
        .split([' ', '\t', ','])
        .filter(|word| !word.is_empty())
        .take(8)
        .collect();
    let words = match words.split_first() {
        Some((first, rest)) if is_weekday(first) => rest,
        _ => &words,
    };
    let (day, month, year, time, zone) = match *words {
        // C asctime: "Jan  2 15:04:05 2006", which some programs send.
        [month, day, time, year] if month_number(month).is_some() && time.contains(':') => {
            (day, month, year, time, None)
        }
        [day, month, year, time] => (day, month, year, time, None),
        [day, month, year, time, zone, ..] => (day, month, year, time, Some(zone)),
        _ => return None,
    };
    let days = days_since_1970(year_number(year)?, month_number(month)?, number(day, 2)?)?;
    let seconds = days.checked_mul(86_400)?.checked_add(time_of_day(time)?)?;
    let seconds = seconds.checked_sub(zone_seconds(zone)?)?;
    u64::try_from(seconds).ok()?.checked_mul(1000).map(UnixMillis)
}

/// Writes a date as RFC 5322 3.3 has it, in UTC: `Sun, 9 Sep 2001 01:46:40 +0000`.
#[must_use]
pub fn format_date(time: UnixMillis) -> String {
    const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    // The grammar knows years of four digits only.
    let seconds = (time.0 / 1000).min(253_402_300_799);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil_from_days(days);
    let name = |names: &[&'static str], index: u64| {
        let index = usize::try_from(index).unwrap_or(0);
        names.get(index).copied().unwrap_or_default()
    };
    format!(
        "{}, {day} {} {year:04} {:02}:{:02}:{:02} +0000",
        name(&WEEKDAYS, days % 7),
        name(&MONTHS, month - 1),
        second / 3600,
        second / 60 % 60,
        second % 60,
    )
}

/// Year, month and day of a number of days since 1970-01-01, after Howard Hinnant's `civil_from_days`.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

fn is_weekday(word: &str) -> bool {
    let names = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let lower = word.trim_end_matches('.').to_ascii_lowercase();
    lower.len() >= 3 && names.iter().any(|name| lower.starts_with(name))
}

fn month_number(word: &str) -> Option<i64> {
    let names = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ];
    let lower = word.trim_end_matches('.').to_ascii_lowercase();
    let found = names.iter().position(|name| lower.starts_with(name))?;
    i64::try_from(found).ok()?.checked_add(1)
}

/// Digits only, so that no sign is read.
fn number(word: &str, digits_max: usize) -> Option<i64> {
    let valid = !word.is_empty() && word.len() <= digits_max && word.bytes().all(|byte| byte.is_ascii_digit());
    if valid { word.parse().ok() } else { None }
}

/// RFC 5322 4.3: two digits below 50 are 20xx, other two and all three digits count from 1900.
fn year_number(word: &str) -> Option<i64> {
    let year = number(word, 4)?;
    match word.len() {
        2 if year < 50 => year.checked_add(2000),
        2 | 3 => year.checked_add(1900),
        4 => Some(year),
        _ => None,
    }
}

fn time_of_day(word: &str) -> Option<i64> {
    let mut pieces = word.split(':');
    let hour = number(pieces.next()?, 2).filter(|hour| *hour < 24)?;
    let minute = number(pieces.next()?, 2).filter(|minute| *minute < 60)?;
    // RFC 5322 3.3 allows the leap second 60; fractions are what some programs add.
    let second = pieces.next().map_or(Some(0), |word| number(word.split('.').next()?, 2));
    let second = second.filter(|second| *second <= 60)?;
    if pieces.next().is_some() {
        return None;
    }
    hour.checked_mul(3600)?
        .checked_add(minute.checked_mul(60)?)?
        .checked_add(second)
}

/// The zone's distance from UTC. RFC 5322 4.3: unknown letters are UTC with no local time known.
fn zone_seconds(word: Option<&str>) -> Option<i64> {
    let Some(word) = word else { return Some(0) };
    let (sign, digits) = match word.split_at_checked(1) {
        Some(("+", digits)) => (1, digits),
        Some(("-", digits)) => (-1, digits),
        _ => {
            let hours = match word.to_ascii_uppercase().as_str() {
                "EDT" => -4,
                "EST" | "CDT" => -5,
                "CST" | "MDT" => -6,
                "MST" | "PDT" => -7,
                "PST" => -8,
                _ => 0,
            };
            return Some(hours * 3600);
        }
    };
    let digits = digits.replace(':', "");
    let value = number(&digits, 4).filter(|_| digits.len() == 4)?;
    let (hours, minutes) = (value / 100, value % 100);
    // The widest zones in use are +14:00 and -12:00; a day is more than enough, and minutes have sixty values.
    let valid = hours < 24 && minutes < 60;
    valid.then(|| sign * (hours * 3600 + minutes * 60))
}

/// Days from 1970-01-01 in the Gregorian calendar, after Howard Hinnant's `days_from_civil`.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let length = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    if !(1970..=9999).contains(&year) || day < 1 || day > length {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted / 400;
    let year_of_era = shifted % 400;
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_that_is_written_is_read_back() {
        assert_eq!(
            format_date(UnixMillis(1_000_000_000_999)),
            "Sun, 9 Sep 2001 01:46:40 +0000"
        );
        assert_eq!(format_date(UnixMillis(0)), "Thu, 1 Jan 1970 00:00:00 +0000");
        for day in (0..40_000).step_by(7) {
            let time = UnixMillis(day * 86_400_000 + 43_000);
            assert_eq!(parse_date(format_date(time).as_bytes()), Some(time));
        }
        assert!(format_date(UnixMillis(u64::MAX)).contains(" 9999 "));
    }

    fn seconds(value: &str) -> Option<u64> {
        parse_date(value.as_bytes()).map(|time| time.0 / 1000)
    }

    #[test]
    fn dates_of_all_forms_are_read() {
        assert_eq!(seconds("Fri, 21 Nov 1997 09:55:06 -0600"), Some(880_127_706));
        assert_eq!(seconds("21 Nov 97 09:55:06 CST"), Some(880_127_706));
        assert_eq!(seconds("Fri, 21 Nov 1997 09(comment):   55  :  06 -0600"), None);
        assert_eq!(seconds(" Thu,\r\n 1 Jan 1970 00:00 +0000 (GMT (x))"), Some(0));
        assert_eq!(seconds("1 Jan 1970 00:00:00"), Some(0));
        assert_eq!(seconds("Mon Jan  2 15:04:05 2006"), Some(1_136_214_245));
        assert_eq!(seconds("29 Feb 2024 23:59:60 Z"), Some(1_709_251_200));
        assert_eq!(seconds("Tue, 1 Jul 03 10:52:37 +02:00"), Some(1_057_049_557));
        assert_eq!(seconds("31 Dec 9999 23:59:59 +0000"), Some(253_402_300_799));
    }

    #[test]
    fn mime_date_absurd() {
        for absurd in [
            "31 Feb 99999 25:61 +9999",
            "31 Feb 2020 00:00:00 +0000",
            "29 Feb 2023 00:00:00 +0000",
            "1 Jan 99999 00:00:00 +0000",
            "1 Jan 2020 25:00:00 +0000",
            "1 Jan 2020 00:61:00 +0000",
            "1 Jan 2020 00:00:00 +9999",
            "1 Jan 1970 00:00:00 +0100",
            "1 Jan 1969 00:00:00 +0000",
            "-1 Jan 2020 00:00:00 +0000",
            "0 Jan 2020 00:00:00 +0000",
            "1 Xxx 2020 00:00:00 +0000",
            "1 Jan 2020",
            "",
            "\u{fffd}",
            "1 Jan 2020 1:2:3:4 +0000",
        ] {
            assert_eq!(seconds(absurd), None, "{absurd}");
        }
        let deep = "(".repeat(500);
        assert_eq!(seconds(&format!("1 Jan 1970 00:00:00 +0000 {deep}")), Some(0));
        assert_eq!(seconds(&format!("{deep}1 Jan 1970 00:00:00 +0000")), None);
        assert_eq!(seconds(&"(".repeat(100_000)), None);
    }
}
