//! Looks after instances that have something due while no request calls them: ticks, news of queues, contexts that a plugin
//! is not done with; and lets go of instances that nobody needed for a while.
//!
//! One thread for the process; it begins with the first plugin. An instance is locked while a callback runs, so a
//! request that wants this very one waits for no longer than a callback may run.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::instance::Vm;
use super::mailbox;
use super::shared::Queue;
use super::stock::Stock;
use crate::clock;

/// How often it is looked which instances nobody needed since.
pub const IDLE: Duration = Duration::from_secs(60);
/// When an instance that is busy is looked at again.
const AGAIN: Duration = Duration::from_millis(1);
/// Items of one queue that are told of before others have their turn.
const TURN: usize = 64;

/// What came since the thread last looked.
#[derive(Default)]
struct News {
    instances: Vec<Weak<Mutex<Vm>>>,
    queues: Vec<Arc<Queue>>,
    stocks: Vec<Weak<Stock>>,
}

static NEWS: Mutex<Option<News>> = Mutex::new(None);

/// Looks after an instance from now on.
pub fn look_after(instance: Weak<Mutex<Vm>>) {
    tell(|news| news.instances.push(instance));
}

/// A queue has something that somebody is to be told of.
pub fn announce(queue: Arc<Queue>) {
    tell(|news| news.queues.push(queue));
}

/// Lets go of what nobody needs, from now on.
pub fn sweep(stock: Weak<Stock>) {
    tell(|news| news.stocks.push(stock));
}

/// Something is due earlier than it was.
pub fn wake() {
    if let Some(thread) = started() {
        thread.unpark();
    }
}

fn tell(what: impl FnOnce(&mut News)) {
    what(NEWS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default());
    wake();
}

/// The thread; `None` on a machine that has none left, where nothing is ever due.
fn started() -> Option<&'static Thread> {
    static THREAD: OnceLock<Option<Thread>> = OnceLock::new();
    let start = || thread::Builder::new().name("plugin timers".to_owned()).spawn(run).ok();
    THREAD.get_or_init(|| start().map(|handle| handle.thread().clone())).as_ref()
}

fn run() {
    let mut kept = Kept::default();
    loop {
        let wait = kept.look(clock::now());
        match wait {
            Some(wait) => thread::park_timeout(wait.max(AGAIN)),
            None => thread::park(),
        }
    }
}

/// What is looked after.
#[derive(Default)]
struct Kept {
    instances: Vec<Weak<Mutex<Vm>>>,
    queues: Vec<Arc<Queue>>,
    stocks: Vec<Weak<Stock>>,
    sweep: Option<Instant>,
}

impl Kept {
    /// Does what is due and says how long there is nothing more; `None`: until there is news.
    fn look(&mut self, now: Instant) -> Option<Duration> {
        if let Some(news) = NEWS.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.instances.extend(news.instances);
            self.queues.extend(news.queues);
            self.stocks.extend(news.stocks);
        }
        let mut next = None;
        let mut wait = |due: Instant| next = Some(next.map_or(due, |next: Instant| next.min(due)));
        let again = now.checked_add(AGAIN).unwrap_or(now);
        self.instances.retain(|instance| {
            let Some(instance) = instance.upgrade() else { return false };
            match instance.try_lock() {
                Ok(mut vm) => {
                    let due = vm.tend(now);
                    due.into_iter().for_each(&mut wait);
                    mailbox::send_for_itself(vm, &instance);
                    due.is_some()
                }
                Err(TryLockError::WouldBlock) => {
                    wait(again);
                    true
                }
                Err(TryLockError::Poisoned(_)) => false,
            }
        });
        self.queues.retain(|queue| {
            let is_left = deliver(queue);
            if is_left {
                wait(again);
            }
            is_left
        });
        self.sweep(now).into_iter().for_each(&mut wait);
        next.map(|next| next.saturating_duration_since(now))
    }

    fn sweep(&mut self, now: Instant) -> Option<Instant> {
        self.stocks.retain(|stock| stock.strong_count() > 0);
        if self.stocks.is_empty() {
            self.sweep = None;
        } else if self.sweep.is_none_or(|due| due <= now) {
            if self.sweep.is_some() {
                self.stocks.iter().filter_map(Weak::upgrade).for_each(|stock| stock.sweep());
            }
            self.sweep = now.checked_add(IDLE);
        }
        self.sweep
    }
}

/// Tells one of those who registered a queue of each item; whether there is something left to tell.
fn deliver(queue: &Queue) -> bool {
    for _ in 0..TURN {
        let Some(owners) = queue.owners() else { return false };
        let free = || owners.iter().filter_map(|owner| owner.try_lock().ok().map(|vm| (owner, vm)));
        // Rather one that no request is with.
        let idle = free().find(|(_, vm)| vm.is_idle());
        let Some((owner, mut vm)) = idle.or_else(|| free().next()) else { return true };
        queue.told();
        vm.queue_ready(queue.id);
        mailbox::send_for_itself(vm, owner);
    }
    true
}
