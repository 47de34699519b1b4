//! Wall-clock time for log lines, derived from the turn's monotonic time.
//!
//! A worker reads one clock per turn; log lines want the date. `WallClock` keeps a pair of both clocks taken at the
//! same moment and re-takes it about once a second, so that a stepped or slewed system clock shows soon.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a pair is used.
const FRESH: Duration = Duration::from_secs(1);

/// Maps a monotonic instant to microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    instant: Instant,
    unix_us: u64,
}

impl WallClock {
    /// A pair of both clocks, read at the same moment.
    pub fn new(now: Instant, wall: SystemTime) -> Self {
        let unix = wall.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { instant: now, unix_us: u64::try_from(unix.as_micros()).unwrap_or(u64::MAX) }
    }

    /// When the pair was taken; never in the future.
    pub fn taken_at(&self) -> Instant {
        self.instant
    }

    /// Takes a new pair if this one is older than a second; `wall` reads the system's clock (no system call: the vDSO
    /// answers).
    pub fn refresh(&mut self, now: Instant, wall: impl FnOnce() -> SystemTime) {
        if now.saturating_duration_since(self.instant) >= FRESH {
            *self = Self::new(now, wall());
        }
    }

    /// Microseconds since the Unix epoch at `at`, which may lie before the pair.
    pub fn unix_us(&self, at: Instant) -> u64 {
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        match at.checked_duration_since(self.instant) {
            Some(after) => self.unix_us.saturating_add(micros(after)),
            None => self.unix_us.saturating_sub(micros(self.instant.duration_since(at))),
        }
    }
}

/// Appends `unix_us` as RFC 3339 in UTC with microseconds: `2026-11-21T10:33:59.000123Z`.
pub fn push_rfc3339(unix_us: u64, out: &mut Vec<u8>) {
    let (secs, us) = (unix_us / 1_000_000, unix_us % 1_000_000);
    let (year, month, day) = civil(secs / 86_400);
    let of_day = secs % 86_400;
    let digits = |out: &mut Vec<u8>, mut n: u64, width: usize| {
        let at = out.len();
        out.resize(at + width, b'0');
        for slot in out[at..].iter_mut().rev() {
            *slot = b'0' + (n % 10) as u8;
            n /= 10;
        }
    };
    digits(out, year, 4);
    out.push(b'-');
    digits(out, month, 2);
    out.push(b'-');
    digits(out, day, 2);
    out.push(b'T');
    digits(out, of_day / 3600, 2);
    out.push(b':');
    digits(out, of_day / 60 % 60, 2);
    out.push(b':');
    digits(out, of_day % 60, 2);
    out.push(b'.');
    digits(out, us, 6);
    out.push(b'Z');
}

/// Year, month and day of a day count since 1970-01-01 (proleptic Gregorian; eras of 400 years start on 1 March).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// Appends `unix_us` as an HTTP date (RFC 9110 §5.6.7): `Sat, 21 Nov 2026 10:33:59 GMT`.
pub fn push_http_date(unix_us: u64, out: &mut Vec<u8>) {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    use std::io::Write as _;
    let secs = unix_us / 1_000_000;
    let days = secs / 86_400;
    let (year, month, day) = civil(days);
    let of_day = secs % 86_400;
    // Writing to a Vec cannot fail.
    let _ = write!(
        out,
        "{}, {day:02} {} {year:04} {:02}:{:02}:{:02} GMT",
        DAYS[(days % 7) as usize],
        MONTHS[(month - 1) as usize],
        of_day / 3600,
        of_day / 60 % 60,
        of_day % 60,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rfc3339(unix_us: u64) -> String {
        let mut out = Vec::new();
        push_rfc3339(unix_us, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn dates_across_leap_years_and_centuries() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(rfc3339(951_782_400_000_001), "2000-02-29T00:00:00.000001Z");
        assert_eq!(rfc3339(1_795_257_239_000_123), "2026-11-21T10:33:59.000123Z");
        assert_eq!(rfc3339(4_107_542_400_000_000), "2100-03-01T00:00:00.000000Z");
    }

    #[test]
    fn http_dates() {
        let mut out = Vec::new();
        push_http_date(784_111_777_000_000, &mut out);
        assert_eq!(out, b"Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn instants_before_and_after_the_pair() {
        let now = Instant::now() + Duration::from_secs(10);
        let clock = WallClock::new(now, UNIX_EPOCH + Duration::from_secs(5));
        assert_eq!(clock.unix_us(now + Duration::from_millis(2)), 5_002_000);
        assert_eq!(clock.unix_us(now - Duration::from_millis(2)), 4_998_000);
    }
}
