//! The same work on many things, on all processors.

use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many things are worth a thread: a thread takes as long as looking at a handful of containers.
const WORTH_A_THREAD: usize = 50;
/// Things that a thread takes at a time.
const HANDFUL: usize = 16;

/// Does something about each, on all processors if there are many. The results are in the order of the items.
pub fn in_parallel<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> T + Sync) -> Vec<T> {
    let worth = items.len() / WORTH_A_THREAD;
    let processors = match worth {
        0 | 1 => 1,
        _ => rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count() as usize),
    };
    let threads = processors.min(worth);
    if threads < 2 {
        return items.iter().map(work).collect();
    }
    grow_in_steps();
    // Whoever is done with a handful takes the next one: a thread may be late.
    let next = AtomicUsize::new(0);
    let handfuls = || {
        let mut done = Vec::with_capacity(items.len() / HANDFUL / threads + 1);
        loop {
            let first = next.fetch_add(HANDFUL, Ordering::Relaxed);
            let Some(rest) = items.get(first..).filter(|rest| !rest.is_empty()) else { return done };
            done.push((first, rest.iter().take(HANDFUL).map(&work).collect::<Vec<T>>()));
        }
    };
    let mut done = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(handfuls)).collect();
        let mut done = handfuls();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    done.sort_unstable_by_key(|(first, _)| *first);
    done.into_iter().flat_map(|(_, results)| results).collect()
}

/// Lets the memory of further threads grow by a megabyte at a time. glibc asks the kernel for each page otherwise,
/// against the other threads' page faults. A page that is not used takes no memory.
fn grow_in_steps() {
    static ONCE: Once = Once::new();
    // SAFETY: mallopt(3) changes how malloc asks for memory, under malloc's own lock.
    ONCE.call_once(|| unsafe {
        libc::mallopt(libc::M_TOP_PAD, 1 << 20);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_or_out_of_order() {
        for count in [0, 1, 49, 50, 101, 1000] {
            let items: Vec<usize> = (0..count).collect();
            assert_eq!(in_parallel(&items, |item| item.to_string()).len(), count);
            assert_eq!(in_parallel(&items, |item| item * 2), (0..count).map(|n| n * 2).collect::<Vec<_>>());
        }
    }
}
