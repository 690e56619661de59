//! Who does the work: all cores, or the calling thread alone.

use rayon::prelude::*;

/// How batches are worked on. The results and their order are the same either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Workers {
    /// The process's pool: one thread a core.
    #[default]
    Pool,
    /// The calling thread, one step after the other: for tests that replay every step.
    Inline,
}

impl Workers {
    /// Returns what `work` makes of each item, in order.
    pub(crate) fn map<T: Send, R: Send>(
        self,
        items: Vec<T>,
        work: impl Fn(T) -> R + Sync,
    ) -> Vec<R> {
        match self {
            Self::Pool => items.into_par_iter().with_max_len(1).map(&work).collect(),
            Self::Inline => items.into_iter().map(work).collect(),
        }
    }

    /// Runs two steps at the same time.
    pub(crate) fn join<A: Send, B: Send>(
        self,
        a: impl FnOnce() -> A + Send,
        b: impl FnOnce() -> B + Send,
    ) -> (A, B) {
        match self {
            Self::Pool => rayon::join(a, b),
            Self::Inline => {
                let a = a();
                (a, b())
            }
        }
    }

    /// Runs a pipeline of three stages over windows of work: while one window is worked on by all, the one before is
    /// taken in and the one after is fed. Memory holds three windows at most.
    ///
    /// `feed` returns `None` when there is no more; `take` gets the results in order.
    pub(crate) fn pipeline<T: Send, R: Send, E: Send>(
        self,
        mut feed: impl FnMut() -> Result<Option<Vec<T>>, E> + Send,
        work: impl Fn(T) -> R + Sync,
        mut take: impl FnMut(Vec<R>) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        let mut window = feed()?;
        let mut results: Option<Vec<R>> = None;
        while window.is_some() || results.is_some() {
            let (done, next) = (results.take(), window.take());
            let more = next.is_some();
            let (worked, (taken, fed)) = self.join(
                || next.map(|items| self.map(items, &work)),
                || {
                    let taken = done.map_or(Ok(()), &mut take);
                    let fed = if more && taken.is_ok() {
                        feed()
                    } else {
                        Ok(None)
                    };
                    (taken, fed)
                },
            );
            taken?;
            (window, results) = (fed?, worked);
        }
        Ok(())
    }

    /// As [`Self::pipeline`], but where `by_caller` asks for it the calling thread feeds and takes, and may wait in either:
    /// the pool only works. Memory then holds two windows at most.
    pub(crate) fn pipeline_by<T: Send, R: Send, E: Send>(
        self,
        by_caller: bool,
        mut feed: impl FnMut() -> Result<Option<Vec<T>>, E> + Send,
        work: impl Fn(T) -> R + Sync,
        mut take: impl FnMut(Vec<R>) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        if !by_caller {
            return self.pipeline(feed, work, take);
        }
        let mut next = feed()?;
        while let Some(window) = next {
            // Fed before the window is worked on: what it reads goes on behind.
            next = feed()?;
            take(self.map(window, &work))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squares(
        workers: Workers,
        by_caller: bool,
        windows: u64,
        fail_at: Option<u64>,
    ) -> Result<Vec<u64>, &'static str> {
        let (mut next, mut taken) = (0, Vec::new());
        workers.pipeline_by(
            by_caller,
            || {
                next += 1;
                if Some(next) == fail_at {
                    return Err("feeding failed");
                }
                Ok((next <= windows).then(|| (next * 10..next * 10 + 10).collect()))
            },
            |n: u64| n * n,
            |results| {
                taken.extend(results);
                Ok(())
            },
        )?;
        Ok(taken)
    }

    #[test]
    fn a_pipeline_hands_over_everything_in_order() {
        for workers in [Workers::Pool, Workers::Inline] {
            for windows in [0, 1, 2, 5] {
                let expected: Vec<u64> = (10..10 + windows * 10).map(|n| n * n).collect();
                for by_caller in [false, true] {
                    let found = squares(workers, by_caller, windows, None);
                    assert_eq!(found.as_ref(), Ok(&expected));
                }
            }
        }
    }

    #[test]
    fn an_error_while_feeding_ends_the_pipeline() {
        for (fail_at, by_caller) in (1..4).zip([false, true].into_iter().cycle()) {
            assert_eq!(
                squares(Workers::Pool, by_caller, 5, Some(fail_at)),
                Err("feeding failed")
            );
        }
    }
}
