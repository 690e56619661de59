//! Counts of what the server did, in the text format of Prometheus (version 0.0.4).

use crate::route::Endpoint;
use http::StatusCode;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// The statuses that answers have; others are counted under the last, 500.
const STATUSES: [u16; 25] = [
    200, 201, 202, 204, 206, 300, 302, 304, 400, 401, 403, 404, 405, 406, 408, 409, 410, 412, 413,
    415, 416, 431, 501, 503, 500,
];

/// Upper ends of the buckets of durations, in microseconds.
const BUCKETS_US: [u64; 12] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 50_000, 250_000, 1_000_000, 10_000_000, 60_000_000,
];

/// The counters. Reading them while they change is never wrong by more than the requests of that moment.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// By operation (the last: none) and status.
    requests: Vec<[AtomicU64; STATUSES.len()]>,
    /// By operation: how many took no longer than each bucket, and longer than the one before.
    durations: Vec<[AtomicU64; BUCKETS_US.len() + 1]>,
    /// By operation: the sum of the durations in microseconds.
    duration_us: Vec<AtomicU64>,
    /// Requests whose answer has not ended.
    pub(crate) in_flight: AtomicU64,
    /// Connections open.
    pub(crate) connections: AtomicU64,
    /// Connections accepted since the start.
    pub(crate) accepted: AtomicU64,
    /// Bytes of bodies sent.
    pub(crate) sent: AtomicU64,
    /// Bytes of bodies of images received.
    pub(crate) received: AtomicU64,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let operations = Endpoint::ALL.len() + 1;
        Self {
            requests: (0..operations).map(|_| Default::default()).collect(),
            durations: (0..operations).map(|_| Default::default()).collect(),
            duration_us: (0..operations).map(|_| AtomicU64::new(0)).collect(),
            in_flight: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }

    /// Counts an answer that has ended.
    pub(crate) fn count(&self, endpoint: Option<Endpoint>, status: StatusCode, took: Duration) {
        let operation = endpoint.map_or(Endpoint::ALL.len(), |endpoint| endpoint as usize);
        let status = STATUSES
            .iter()
            .position(|known| *known == status.as_u16())
            .unwrap_or(STATUSES.len() - 1);
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS_US.iter().take_while(|end| us > **end).count();
        let counters = [
            self.requests.get(operation).and_then(|row| row.get(status)),
            self.durations
                .get(operation)
                .and_then(|row| row.get(bucket)),
        ];
        for counter in counters.into_iter().flatten() {
            counter.fetch_add(1, Relaxed);
        }
        if let Some(sum) = self.duration_us.get(operation) {
            sum.fetch_add(us, Relaxed);
        }
    }

    /// All of them, as text.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        head(
            &mut text,
            "tegula_http_requests_total",
            "counter",
            "Requests answered.",
        );
        for (operation, row) in self.requests.iter().enumerate() {
            for (status, count) in STATUSES.iter().zip(row) {
                let count = count.load(Relaxed);
                if count > 0 {
                    let name = name(operation);
                    line(
                        &mut text,
                        &format!(
                            "tegula_http_requests_total{{operation=\"{name}\",status=\"{status}\"}} {count}"
                        ),
                    );
                }
            }
        }
        self.render_durations(&mut text);
        for (metric, kind, help, value) in [
            (
                "tegula_http_requests_in_flight",
                "gauge",
                "Requests whose answer has not ended.",
                &self.in_flight,
            ),
            (
                "tegula_http_connections",
                "gauge",
                "Connections open.",
                &self.connections,
            ),
            (
                "tegula_http_connections_accepted_total",
                "counter",
                "Connections accepted.",
                &self.accepted,
            ),
            (
                "tegula_http_sent_bytes_total",
                "counter",
                "Bytes of bodies sent.",
                &self.sent,
            ),
            (
                "tegula_http_received_image_bytes_total",
                "counter",
                "Bytes of images received.",
                &self.received,
            ),
        ] {
            head(&mut text, metric, kind, help);
            line(&mut text, &format!("{metric} {}", value.load(Relaxed)));
        }
        text
    }

    fn render_durations(&self, text: &mut String) {
        let metric = "tegula_http_request_duration_seconds";
        head(
            text,
            metric,
            "histogram",
            "From a request's head to the end of its answer.",
        );
        for (operation, (row, sum)) in self.durations.iter().zip(&self.duration_us).enumerate() {
            let counts: Vec<u64> = row.iter().map(|count| count.load(Relaxed)).collect();
            let total: u64 = counts.iter().sum();
            if total == 0 {
                continue;
            }
            let name = name(operation);
            let mut below = 0;
            for (end, count) in BUCKETS_US.iter().zip(&counts) {
                below += count;
                let end = seconds(*end);
                line(
                    text,
                    &format!("{metric}_bucket{{operation=\"{name}\",le=\"{end}\"}} {below}"),
                );
            }
            line(
                text,
                &format!("{metric}_bucket{{operation=\"{name}\",le=\"+Inf\"}} {total}"),
            );
            let sum = seconds(sum.load(Relaxed));
            line(text, &format!("{metric}_sum{{operation=\"{name}\"}} {sum}"));
            line(
                text,
                &format!("{metric}_count{{operation=\"{name}\"}} {total}"),
            );
        }
    }
}

fn name(operation: usize) -> &'static str {
    Endpoint::ALL
        .get(operation)
        .map_or("none", |endpoint| endpoint.name())
}

fn seconds(us: u64) -> String {
    format!("{}.{:06}", us / 1_000_000, us % 1_000_000)
}

fn head(text: &mut String, metric: &str, kind: &str, help: &str) {
    line(text, &format!("# HELP {metric} {help}"));
    line(text, &format!("# TYPE {metric} {kind}"));
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("because a string takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Those that the sources of this crate name.
    #[test]
    fn every_status_that_is_answered_is_counted_as_itself() {
        let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut directories = vec![sources];
        let mut named = std::collections::BTreeSet::new();
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                    continue;
                }
                let text = std::fs::read_to_string(path).unwrap();
                for found in text.split("StatusCode::").skip(1) {
                    let upper =
                        |character: &char| character.is_ascii_uppercase() || *character == '_';
                    named.insert(found.chars().take_while(upper).collect::<String>());
                }
            }
        }
        let known: std::collections::BTreeSet<String> = STATUSES
            .iter()
            .filter_map(|status| StatusCode::from_u16(*status).unwrap().canonical_reason())
            .map(|reason| reason.to_uppercase().replace([' ', '-'], "_"))
            .collect();
        named.remove("");
        assert!(
            named.contains("NOT_MODIFIED") && named.len() > 20,
            "{named:?}"
        );
        for status in named {
            assert!(known.contains(&status), "{status} is counted as 500");
        }
    }

    #[test]
    fn buckets_are_cumulative_and_only_what_happened_is_shown() {
        let metrics = Metrics::new();
        for (status, us) in [(200, 80), (200, 100), (404, 101), (418, 61_000_000)] {
            let status = StatusCode::from_u16(status).unwrap();
            metrics.count(Some(Endpoint::ShowImage), status, Duration::from_micros(us));
        }
        metrics.count(None, StatusCode::NOT_FOUND, Duration::ZERO);
        let text = metrics.render();
        for expected in [
            r#"tegula_http_requests_total{operation="showImage",status="200"} 2"#,
            r#"tegula_http_requests_total{operation="showImage",status="500"} 1"#,
            r#"tegula_http_requests_total{operation="none",status="404"} 1"#,
            r#"_bucket{operation="showImage",le="0.000100"} 2"#,
            r#"_bucket{operation="showImage",le="60.000000"} 3"#,
            r#"_bucket{operation="showImage",le="+Inf"} 4"#,
            r#"_sum{operation="showImage"} 61.000281"#,
        ] {
            assert!(text.contains(expected), "{expected} in\n{text}");
        }
        assert!(!text.contains("listImages"));
    }
}
