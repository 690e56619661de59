//! Times as the API writes and reads them.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use tegula_domain::Timestamp;

/// `YYYY-MM-DDTHH:MM:SSZ`; the fraction of a second is not shown.
pub(crate) fn write(time: Timestamp) -> String {
    // The range of jiff is the years -9999 to 9999; the catalog's times are its own clock's.
    jiff::Timestamp::from_second(time.seconds())
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

/// Reads an ISO 8601 date, or date and time, of any zone; without one it is in UTC.
pub(crate) fn read(text: &str) -> Option<Timestamp> {
    let moment = match text.parse::<jiff::Timestamp>() {
        Ok(moment) => moment,
        Err(_) => text
            .parse::<DateTime>()
            .ok()?
            .to_zoned(TimeZone::UTC)
            .ok()?
            .timestamp(),
    };
    Some(Timestamp::from_micros(moment.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_whole_seconds_of_utc() {
        let time = Timestamp::from_micros(1_700_000_000_999_999);
        assert_eq!(write(time), "2023-11-14T22:13:20Z");
        assert_eq!(write(Timestamp::from_micros(0)), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn times_are_read_in_the_usual_forms() {
        for (text, seconds) in [
            ("2023-11-14T22:13:20Z", 1_700_000_000),
            ("2023-11-14T23:13:20+01:00", 1_700_000_000),
            ("2023-11-14T22:13:20", 1_700_000_000),
            ("2023-11-14 22:13:20", 1_700_000_000),
            ("20231114T221320Z", 1_700_000_000),
            ("2023-11-14", 1_699_920_000),
            ("2023-11-14T22:13:20.5Z", 1_700_000_000),
        ] {
            assert_eq!(read(text).map(Timestamp::seconds), Some(seconds), "{text}");
        }
        for bad in ["", "yesterday", "2023-13-01", "12", "2023-11-14T25:00:00Z"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
