//! How a pull is shown: bars on a terminal, else one line a layer, on standard error.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output;
use crate::base::digest::Digest;
use crate::base::size;
use crate::image::Progress;
use crate::sys::host;

/// Shows a pull or a push.
pub struct PullProgress {
    /// Where a layer may be already.
    place: &'static str,
    form: Form,
}

enum Form {
    Silent,
    Lines,
    Bars { all: MultiProgress, bars: Mutex<HashMap<Digest, ProgressBar>>, drawn: AtomicBool },
}

/// The form that standard error allows; nothing if `quiet`.
pub fn for_pull(quiet: bool) -> PullProgress {
    let form = if quiet {
        Form::Silent
    } else if io::stderr().is_terminal() {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        Form::Bars { all, bars: Mutex::new(HashMap::new()), drawn: AtomicBool::new(false) }
    } else {
        Form::Lines
    };
    PullProgress { place: "here", form }
}

/// The same for what goes out.
pub fn for_push(quiet: bool) -> PullProgress {
    PullProgress { place: "there", ..for_pull(quiet) }
}

fn lock(bars: &Mutex<HashMap<Digest, ProgressBar>>) -> MutexGuard<'_, HashMap<Digest, ProgressBar>> {
    bars.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn line(text: &str) {
    // Progress that nobody can read is no reason to stop.
    let _ = output::eprint_bytes(format!("{text}\n").as_bytes());
}

impl Progress for PullProgress {
    fn started(&self, digest: &Digest, size: u64) {
        match &self.form {
            Form::Silent => {}
            Form::Lines => line(&format!("Copying blob {} ({})", digest.short(), size::human(size))),
            Form::Bars { all, bars, drawn } => {
                drawn.store(true, Ordering::Relaxed);
                let style = "{prefix:.dim} {bar:30} {decimal_bytes:>9}/{decimal_total_bytes:9} {decimal_bytes_per_sec}";
                let style = ProgressStyle::with_template(style);
                let bar = ProgressBar::new(size).with_prefix(digest.short());
                let bar = if let Ok(style) = style { bar.with_style(style) } else { bar };
                lock(bars).insert(*digest, all.add(bar));
            }
        }
    }

    fn advanced(&self, digest: &Digest, bytes: u64) {
        if let Form::Bars { bars, .. } = &self.form
            && let Some(bar) = lock(bars).get(digest)
        {
            bar.set_position(bytes);
        }
    }

    fn finished(&self, digest: &Digest, existed: bool) {
        match &self.form {
            Form::Silent => {}
            Form::Lines if existed => line(&format!("Layer {} is {} already", digest.short(), self.place)),
            Form::Lines => {}
            Form::Bars { all, bars, .. } => match lock(bars).remove(digest) {
                Some(bar) => bar.finish(),
                None => drop(all.println(format!("{} is {} already", digest.short(), self.place))),
            },
        }
    }

    fn ended(&self) {
        let Form::Bars { bars, drawn, .. } = &self.form else { return };
        lock(bars).drain().for_each(|(_, bar)| bar.abandon());
        // The last bar's line is not ended: what is printed next must not stand on it.
        if drawn.swap(false, Ordering::Relaxed) {
            line("");
        }
    }
}

/// Nanoseconds since 1970 when copying began, and when it was shown last; in the process that writes.
static COPYING: [AtomicI64; 2] = [AtomicI64::new(0), AtomicI64::new(0)];

/// Shows, on a terminal, how far a copy is that takes long.
pub fn copied(bytes: u64) {
    const PATIENCE: i64 = 500_000_000;
    const PAUSE: i64 = 100_000_000;
    let now = host::now();
    let [began, shown] = &COPYING;
    if began.load(Ordering::Relaxed) == 0 {
        began.store(now, Ordering::Relaxed);
    }
    let spent = now - began.load(Ordering::Relaxed);
    if spent < PATIENCE || now - shown.load(Ordering::Relaxed) < PAUSE {
        return;
    }
    shown.store(now, Ordering::Relaxed);
    let speed = (bytes as f64 / (spent as f64 / 1e9)) as u64;
    let text = format!("\r\x1b[K{} copied, {}/s", size::human(bytes), size::human(speed));
    let _ = output::eprint_bytes(text.as_bytes());
}

/// Takes away, from a terminal, what [`copied`] has shown, perhaps in another process.
pub fn copying_ended() {
    if io::stderr().is_terminal() {
        let _ = output::eprint_bytes(b"\r\x1b[K");
    }
}
