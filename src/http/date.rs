//! Owns the text of the Date field: an IMF-fixdate (RFC 9110 §5.6.7), made at most once per second. It reads no clock.

/// `Sun, 06 Nov 1994 08:49:37 GMT` is always this long.
pub const LENGTH: usize = 29;

/// The last date made.
#[derive(Clone, Debug)]
pub struct DateCache {
    second: u64,
    text: [u8; LENGTH],
}

impl Default for DateCache {
    fn default() -> Self {
        Self { second: 0, text: format(0) }
    }
}

impl DateCache {
    /// The date of `second` since 1970; asking again for the same second costs a comparison.
    #[inline]
    pub fn at(&mut self, second: u64) -> &[u8; LENGTH] {
        if second != self.second {
            self.second = second;
            self.text = format(second);
        }
        &self.text
    }
}

/// The last second with a year of four digits.
const SECOND_MAX: u64 = 253_402_300_799;

/// The IMF-fixdate of `second` since 1970, up to the year 9999.
pub fn format(second: u64) -> [u8; LENGTH] {
    let second = second.min(SECOND_MAX);
    let (days, rest) = (second / 86_400, second % 86_400);
    let (year, month, day) = civil(days);
    let mut text = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    // 1970-01-01 was a Thursday.
    text[..3].copy_from_slice(&b"ThuFriSatSunMonTueWed"[(days % 7) as usize * 3..][..3]);
    two_digits(&mut text[5..], day);
    text[8..11].copy_from_slice(&b"JanFebMarAprMayJunJulAugSepOctNovDec"[(month - 1) as usize * 3..][..3]);
    two_digits(&mut text[12..], year / 100);
    two_digits(&mut text[14..], year % 100);
    two_digits(&mut text[17..], rest / 3600);
    two_digits(&mut text[20..], rest / 60 % 60);
    two_digits(&mut text[23..], rest % 60);
    text
}

fn two_digits(text: &mut [u8], number: u64) {
    text[0] = b'0' + (number / 10) as u8;
    text[1] = b'0' + (number % 10) as u8;
}

/// Year, month and day of a day since 1970. Years are counted from March, so that the leap day is the last of its year;
/// an era is the 400 years (146,097 days) after which the calendar repeats.
fn civil(days: u64) -> (u64, u64, u64) {
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_what_date_says() {
        // Made with `date -u -R -d @N`.
        for (second, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
            (1_798_761_599, "Thu, 31 Dec 2026 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (SECOND_MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(str::from_utf8(&format(second)).unwrap(), text);
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut before = civil(0);
        for day in 1..60_000 {
            let now = civil(day);
            let next_day = now == (before.0, before.1, before.2 + 1);
            let next_month = now == (before.0, before.1 + 1, 1) && before.2 >= 28;
            let next_year = now == (before.0 + 1, 1, 1) && (before.1, before.2) == (12, 31);
            assert!(next_day || next_month || next_year, "{before:?} {now:?}");
            before = now;
        }
    }

    #[test]
    fn the_cache_follows_the_second() {
        let mut cache = DateCache::default();
        assert_eq!(cache.at(0), &format(0));
        assert_eq!(cache.at(784_111_777), &format(784_111_777));
        assert_eq!(cache.at(784_111_777), &format(784_111_777));
        assert_eq!(cache.at(5), &format(5));
    }
}
