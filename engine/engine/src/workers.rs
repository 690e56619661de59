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

/// Which stage of a pipeline may wait for somebody outside, such as a client at the other end of a slow line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// None: all of them do work.
    Nowhere,
    /// The one that gets what is to be worked on.
    Feeding,
    /// The one that hands over what was made.
    Taking,
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

    /// Runs a step on the calling thread, beside what the pool does meanwhile.
    fn beside<A: Send, B>(
        self,
        pool: impl FnOnce() -> A + Send,
        here: impl FnOnce() -> B,
    ) -> (A, B) {
        match self {
            Self::Pool => {
                let mut theirs = None;
                let ours = rayon::in_place_scope(|scope| {
                    scope.spawn(|_| theirs = Some(pool()));
                    here()
                });
                let theirs = theirs.expect("because a scope ends after what was begun in it");
                (theirs, ours)
            }
            Self::Inline => {
                let theirs = pool();
                (theirs, here())
            }
        }
    }

    /// Runs a pipeline of three stages over windows of work: while one window is worked on by all, the one before is
    /// taken in and the one after is fed. Memory holds three windows at most.
    ///
    /// `feed` returns `None` when there is no more; `take` gets the results in order.
    pub(crate) fn pipeline<T: Send, R: Send, E: Send>(
        self,
        feed: impl FnMut() -> Result<Option<Vec<T>>, E> + Send,
        work: impl Fn(T) -> R + Sync,
        take: impl FnMut(Vec<R>) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        self.pipeline_with(Waits::Nowhere, feed, work, take)
    }

    /// As [`Self::pipeline`], where one stage may wait for somebody outside for as long as it takes. That stage runs on the
    /// calling thread alone: the pool, which others need too, never waits with it.
    pub(crate) fn pipeline_with<T: Send, R: Send, E: Send>(
        self,
        waits: Waits,
        mut feed: impl FnMut() -> Result<Option<Vec<T>>, E> + Send,
        work: impl Fn(T) -> R + Sync,
        mut take: impl FnMut(Vec<R>) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        let mut window = feed()?;
        let mut results: Option<Vec<R>> = None;
        while window.is_some() || results.is_some() {
            let (done, next) = (results.take(), window.take());
            let more = next.is_some();
            let work = || next.map(|items| self.map(items, &work));
            let take = || done.map_or(Ok(()), &mut take);
            let mut feed = || if more { feed() } else { Ok(None) };
            let (worked, taken, fed) = match waits {
                Waits::Nowhere => {
                    let (worked, (taken, fed)) = self.join(work, || {
                        let taken = take();
                        let fed = if taken.is_ok() { feed() } else { Ok(None) };
                        (taken, fed)
                    });
                    (worked, taken, fed)
                }
                Waits::Feeding => {
                    let ((worked, taken), fed) = self.beside(|| self.join(work, take), feed);
                    (worked, taken, fed)
                }
                Waits::Taking => {
                    let ((worked, fed), taken) = self.beside(|| self.join(work, feed), take);
                    (worked, taken, fed)
                }
            };
            taken?;
            (window, results) = (fed?, worked);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Waits; 3] = [Waits::Nowhere, Waits::Feeding, Waits::Taking];

    fn squares(
        (workers, waits): (Workers, Waits),
        windows: u64,
        fail_at: Option<u64>,
    ) -> Result<Vec<u64>, &'static str> {
        let (mut next, mut taken) = (0, Vec::new());
        workers.pipeline_with(
            waits,
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
            for (waits, windows) in ALL
                .into_iter()
                .flat_map(|waits| [0, 1, 2, 5].map(|n| (waits, n)))
            {
                let expected: Vec<u64> = (10..10 + windows * 10).map(|n| n * n).collect();
                assert_eq!(squares((workers, waits), windows, None), Ok(expected));
            }
        }
    }

    #[test]
    fn an_error_while_feeding_ends_the_pipeline() {
        for (waits, fail_at) in ALL
            .into_iter()
            .flat_map(|waits| [1, 2, 3].map(|n| (waits, n)))
        {
            assert_eq!(
                squares((Workers::Pool, waits), 5, Some(fail_at)),
                Err("feeding failed")
            );
        }
    }

    #[test]
    fn pipelines_that_wait_for_others_do_not_keep_the_pool_from_anybody() {
        // More of them than the pool has threads, all waiting until one that does not wait has come through.
        let count = rayon::current_num_threads() + 2;
        for waits in [Waits::Feeding, Waits::Taking] {
            let gate = std::sync::Barrier::new(count + 1);
            std::thread::scope(|scope| {
                for _ in 0..count {
                    scope.spawn(|| {
                        let mut fed = 0;
                        let feed = || {
                            fed += 1;
                            if waits == Waits::Feeding && fed == 2 {
                                gate.wait();
                            }
                            Ok::<_, ()>((fed < 4).then(|| vec![fed]))
                        };
                        let mut waited = false;
                        let take = |_| {
                            if waits == Waits::Taking && !std::mem::replace(&mut waited, true) {
                                gate.wait();
                            }
                            Ok(())
                        };
                        Workers::Pool.pipeline_with(waits, feed, |n| n, take)
                    });
                }
                let expected: Vec<u64> = (10..60).map(|n| n * n).collect();
                assert_eq!(
                    squares((Workers::Pool, Waits::Nowhere), 5, None),
                    Ok(expected)
                );
                gate.wait();
            });
        }
    }
}
