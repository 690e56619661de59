//! Time as a value.

use std::fmt;
use std::time::Duration;

/// Where the time comes from. Nothing that keeps data safe depends on it.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Returns microseconds since 1970-01-01 UTC.
    fn now_us(&self) -> i64;

    /// Returns the time since some fixed moment; never goes back.
    fn elapsed(&self) -> Duration;

    /// Waits.
    fn sleep(&self, duration: Duration);
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_us(&self) -> i64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        now.tv_sec * 1_000_000 + now.tv_nsec / 1000
    }

    fn elapsed(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Duration::try_from(now).unwrap_or_default()
    }

    fn sleep(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}
