//! The bounded ring between the sampler, which must not wait, and the writer, which may have to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError, bounded};

/// Naps of the reader: a few hundred rows gather meanwhile, of the tens of thousands that fit.
const NAP: Duration = Duration::from_millis(200);

/// The sampler's end.
pub struct RingWriter<T> {
    sender: Sender<T>,
    lost: Arc<AtomicU64>,
}

/// The writer's end.
pub struct RingReader<T> {
    receiver: Receiver<T>,
    lost: Arc<AtomicU64>,
}

/// The count of refused items, for whoever watches from outside.
#[derive(Clone)]
pub(super) struct LostCount(Arc<AtomicU64>);

impl LostCount {
    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A ring for `bound` items.
pub fn ring<T>(bound: usize) -> (RingWriter<T>, RingReader<T>) {
    let (sender, receiver) = bounded(bound);
    let lost = Arc::new(AtomicU64::new(0));
    (RingWriter { sender, lost: lost.clone() }, RingReader { receiver, lost })
}

impl<T> RingWriter<T> {
    /// Puts an item in, or counts it as lost if the ring is full or nobody reads it any more. Never waits.
    pub fn push(&self, item: T) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.sender.try_send(item) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What a wait for an item came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waited<T> {
    Item(T),
    TimedOut,
    /// The ring is empty and its writer is gone.
    Ended,
}

impl<T> RingReader<T> {
    /// Takes an item out, if there is one.
    pub fn try_pop(&self) -> Option<T> {
        self.receiver.try_recv().ok()
    }

    /// Takes an item out, or waits for up to `timeout`, in naps: a reader that blocked for the next item would be woken
    /// by every single one, and those wake-ups, several hundred a second, would cost more than the sampling itself.
    pub(super) fn pop_within(&self, timeout: Duration) -> Waited<T> {
        match self.receiver.try_recv() {
            Ok(item) => Waited::Item(item),
            Err(TryRecvError::Disconnected) => Waited::Ended,
            Err(TryRecvError::Empty) => {
                std::thread::sleep(timeout.min(NAP));
                Waited::TimedOut
            }
        }
    }

    /// Items that wait.
    pub(super) fn len(&self) -> usize {
        self.receiver.len()
    }

    pub(super) fn lost_count(&self) -> LostCount {
        LostCount(self.lost.clone())
    }

    /// Items that were refused so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}
