//! Threads for work that consists of pieces, as many as there are processors for. They end with the work.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::groups::Workers;

/// Threads at most: a node shares its machine with others.
const MAX_THREADS: usize = 4;
/// Pieces for which another thread is started: a piece takes some thirty microseconds, as starting does.
const PIECES_EACH: usize = 16;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Threads {
    most: usize,
}

impl Threads {
    /// As many as the machine has processors, within reason.
    #[must_use]
    pub fn of_machine() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self { most: processors.min(MAX_THREADS) }
    }
}

impl Workers for Threads {
    fn each(&self, pieces: usize, work: &(dyn Fn(usize) + Sync), meanwhile: &mut dyn FnMut()) {
        let next = AtomicUsize::new(0);
        let take = || {
            loop {
                let piece = next.fetch_add(1, Ordering::Relaxed);
                if piece >= pieces {
                    break;
                }
                work(piece);
            }
        };
        let threads = self.most.min(pieces.div_ceil(PIECES_EACH));
        std::thread::scope(|scope| {
            // The caller is one of them. Where no thread can be started it does all by itself.
            for _ in 1..threads {
                let _ = std::thread::Builder::new().spawn_scoped(scope, take);
            }
            meanwhile();
            take();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_piece_is_done_once() {
        for pieces in [0, 1, 15, 16, 17, 1000] {
            let done: Vec<AtomicUsize> = (0..pieces).map(|_| AtomicUsize::new(0)).collect();
            let count = |piece: usize| {
                done[piece].fetch_add(1, Ordering::Relaxed);
            };
            let mut meanwhile = 0;
            Threads { most: 3 }.each(pieces, &count, &mut || meanwhile += 1);
            assert_eq!(meanwhile, 1);
            assert!(done.iter().all(|times| times.load(Ordering::Relaxed) == 1), "{pieces}");
        }
    }
}
