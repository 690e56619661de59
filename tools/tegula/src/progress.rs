//! How far long work is: a bar on standard error, if that is a terminal.

use crate::output::Output;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal};

/// A bar that is taken away when the work ends.
#[derive(Debug)]
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// Begins a bar, or nothing where nobody would see it.
    pub(crate) fn begin(output: Output, what: &str) -> Self {
        if output.quiet || output.json || !io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_message(what.to_owned());
        bar.set_style(style(
            "{msg} {spinner} {binary_bytes}, {binary_bytes_per_sec}",
        ));
        Self(Some(bar))
    }

    /// Shows how many bytes are done, and of how many if that is known.
    pub(crate) fn update(&self, done: u64, total: Option<u64>) {
        let Some(bar) = &self.0 else { return };
        if let Some(total) = total.filter(|total| bar.length() != Some(*total)) {
            bar.set_style(style(
                "{msg} [{bar:30}] {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left",
            ));
            bar.set_length(total);
        }
        bar.set_position(done);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("because the templates are ours")
        .progress_chars("=> ")
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
