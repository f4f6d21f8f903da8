//! Dates of RFC 3501: `date` of a search, `date-time` of APPEND, INTERNALDATE in a response.
//!
//! Proleptic Gregorian calendar, years 1 to 9999. Not here: a clock, time zones by name.

/// A day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

/// A moment with the zone it was written in (RFC 3501 `date-time`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DateTime {
    date: Date,
    second_of_day: u32,
    zone_minutes: i16,
}

impl Date {
    /// The day, if there is one: year 1 to 9999, month 1 to 12.
    #[must_use]
    pub fn new(year: u16, month: u8, day: u8) -> Option<Self> {
        let valid = (1..=9999).contains(&year) && day >= 1 && day <= days_in_month(year, month)?;
        valid.then_some(Self { year, month, day })
    }

    /// The UTC day of a moment.
    #[must_use]
    pub fn of_unix_seconds(seconds: i64) -> Self {
        Self::of_days(seconds.div_euclid(SECONDS_PER_DAY))
    }

    /// Days since 1970-01-01. (The algorithm of Howard Hinnant, `days_from_civil`.)
    #[must_use]
    pub fn days_since_epoch(self) -> i64 {
        let (month, day) = (i64::from(self.month), i64::from(self.day));
        let year = i64::from(self.year) - i64::from(month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        era * 146_097 + day_of_era - 719_468
    }

    /// Year, month and day.
    #[must_use]
    pub fn parts(self) -> (u16, u8, u8) {
        (self.year, self.month, self.day)
    }

    fn of_days(days: i64) -> Self {
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        // Cut to the years that the wire form can write.
        let year = u16::try_from(year.clamp(1, 9999)).unwrap_or(9999);
        Self {
            year,
            month: u8::try_from(month).unwrap_or(1),
            day: u8::try_from(day).unwrap_or(1),
        }
    }
}

impl DateTime {
    /// The moment, if it is one. A leap second (60) counts as the first second after it.
    #[must_use]
    pub fn new(date: Date, hour: u8, minute: u8, second: u8, zone_minutes: i16) -> Option<Self> {
        let valid = hour < 24 && minute < 60 && second <= 60 && zone_minutes.unsigned_abs() < 24 * 60;
        let second_of_day = u32::from(hour) * 3600 + u32::from(minute) * 60 + u32::from(second);
        valid.then_some(Self {
            date,
            second_of_day,
            zone_minutes,
        })
    }

    /// Seconds since 1970-01-01 00:00 UTC; negative before.
    #[must_use]
    pub fn unix_seconds(self) -> i64 {
        self.date.days_since_epoch() * SECONDS_PER_DAY + i64::from(self.second_of_day)
            - i64::from(self.zone_minutes) * 60
    }
}

/// A month by its English name of three letters, in any case: 1 to 12.
pub(crate) fn month_of(name: &[u8]) -> Option<u8> {
    let at = MONTHS
        .iter()
        .position(|month| month.as_bytes().eq_ignore_ascii_case(name))?;
    u8::try_from(at + 1).ok()
}

/// `date-time` of RFC 3501 in UTC, without the quotes: `17-Jul-1996 02:44:25 +0000`, day padded by a space.
#[must_use]
pub fn format_internal_date(unix_seconds: i64) -> String {
    let date = Date::of_unix_seconds(unix_seconds);
    let second = unix_seconds.rem_euclid(SECONDS_PER_DAY);
    let month = MONTHS.get(usize::from(date.month) - 1).copied().unwrap_or("Jan");
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!(
        "{:>2}-{month}-{:04} {hour:02}:{minute:02}:{second:02} +0000",
        date.day, date.year
    )
}

const SECONDS_PER_DAY: i64 = 24 * 3600;
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

fn days_in_month(year: u16, month: u8) -> Option<u8> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => Some(31),
        4 | 6 | 9 | 11 => Some(30),
        2 => Some(if leap { 29 } else { 28 }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_count_from_the_epoch_and_back() {
        assert_eq!(Date::new(1970, 1, 1).unwrap().days_since_epoch(), 0);
        assert_eq!(Date::new(2000, 3, 1).unwrap().days_since_epoch(), 11_017);
        for days in -719_162..2_932_896 {
            if days % 97 == 0 {
                assert_eq!(Date::of_days(days).days_since_epoch(), days);
            }
        }
    }

    #[test]
    fn days_that_do_not_exist_are_refused() {
        for (year, month, day) in [
            (2026, 2, 29),
            (2026, 2, 99),
            (0, 1, 1),
            (2026, 0, 1),
            (2026, 13, 1),
            (1900, 2, 29),
        ] {
            assert_eq!(Date::new(year, month, day), None);
        }
        assert!(Date::new(2000, 2, 29).is_some() && Date::new(2024, 2, 29).is_some());
    }

    #[test]
    fn internal_date_is_written_in_utc_with_a_padded_day() {
        assert_eq!(format_internal_date(0), " 1-Jan-1970 00:00:00 +0000");
        assert_eq!(format_internal_date(837_571_465), "17-Jul-1996 02:44:25 +0000");
        let zoned = DateTime::new(Date::new(1996, 7, 16).unwrap(), 19, 44, 25, -7 * 60).unwrap();
        assert_eq!(zoned.unix_seconds(), 837_571_465);
        assert_eq!(format_internal_date(-1), "31-Dec-1969 23:59:59 +0000");
    }

    #[test]
    fn times_that_do_not_exist_are_refused() {
        let date = Date::new(2026, 1, 1).unwrap();
        assert_eq!(DateTime::new(date, 24, 0, 0, 0), None);
        assert_eq!(DateTime::new(date, 0, 60, 0, 0), None);
        assert_eq!(DateTime::new(date, 0, 0, 61, 0), None);
        assert_eq!(DateTime::new(date, 0, 0, 0, 1440), None);
    }
}
