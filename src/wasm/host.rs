//! What host functions keep between calls: the state beside the memory of an instance.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Caller, Memory, ResourceLimiter, Trap, TypedFunc, UpdateDeadline};

use super::call::{Answered, Calls};
use super::engine;
use super::instance::Vm;
use super::kept::Kept;
use super::plugin::Terms;
use super::record::Record;
use super::shared::{QUEUES_MAX, Queue, Space};
use super::status::{Buffer, Status};
use super::stream::Way;
use super::timers;
use crate::clock;
use crate::reply::Reply;

/// The context of the plugin itself; every other one is an exchange.
pub const ROOT: u32 = 1;
/// Longest text of one log line that is kept, in bytes.
pub const LOG_BYTES_MAX: usize = 4096;
/// Most entries of all tables of functions together. Real plugins have some hundreds.
const TABLE_ENTRIES_MAX: usize = 100_000;
/// Most contexts that a plugin is not done with; of further ones it is not waited for.
const CLOSING_MAX: usize = 64;

/// The state of an instance that the plugin does not see.
pub struct Host {
    /// What the plugin was configured with.
    pub terms: Arc<Terms>,
    /// Set once the instance exists: both are what every plugin has to export.
    pub memory: Option<Memory>,
    pub allocate: Option<TypedFunc<u32, u32>>,
    /// The plugin is asked for memory: it may not ask for something that needs memory meanwhile.
    is_allocating: bool,
    /// The context that the callback is for.
    own: u32,
    /// The context that host functions act for.
    effective: u32,
    /// What the callback wants done with its exchange.
    pub wish: Wish,
    /// What it wants done with others that are held: a plugin may let them go on from a tick or when a queue has something.
    pub others: Vec<(u32, Wish)>,
    /// Contexts whose exchanges are held.
    pub held: Vec<u32>,
    /// The body that the callback is for.
    pub body: Body,
    /// What became of a call, while the plugin is told of it.
    pub answer: Option<Answered>,
    /// What the plugin asks of other services.
    pub calls: Calls,
    /// Properties that the plugin set.
    pub kept: Kept,
    /// What all instances of the plugin share.
    pub space: Arc<Space>,
    pub record: Arc<Record>,
    /// Queues that it opened, and whether it is to be told of what comes.
    queues: Vec<(Arc<Queue>, bool)>,
    tick_period: Option<Duration>,
    pub next_tick: Option<Instant>,
    /// Contexts that the plugin is not done with, and until when it is waited for.
    pub closing: Vec<(u32, Instant)>,
    /// The instance itself, once it has started.
    itself: Weak<Mutex<Vm>>,
    /// It is looked after while no request calls it.
    pub is_tended: bool,
    /// The last warning or error that it logged; one that does not start says why in it.
    pub complaint: Option<String>,
    memory_used: usize,
    table_entries: usize,
    /// What the thread had worked when the callback first seemed to take too long.
    overtime: Option<Duration>,
}

/// What a plugin wants done with an exchange.
#[derive(Debug, Default)]
pub struct Wish {
    /// The answer in place of that of the service.
    pub reply: Option<Box<Reply>>,
    /// It is to end without an answer.
    pub closes: bool,
    /// What was held is to go on.
    pub resumed: Ways,
}

impl Wish {
    /// Adds what another callback wanted. Of two answers the first one counts.
    pub fn add(&mut self, other: Self) {
        self.reply = self.reply.take().or(other.reply);
        self.closes |= other.closes;
        self.resumed.add(other.resumed);
    }

    /// Whether it wants anything.
    pub fn is_some(&self) -> bool {
        self.reply.is_some() || self.closes || self.resumed != Ways::default()
    }
}

/// Which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    pub request: bool,
    pub response: bool,
}

impl Ways {
    pub fn has(self, way: Way) -> bool {
        match way {
            Way::Request => self.request,
            Way::Response => self.response,
        }
    }

    pub fn add(&mut self, ways: Self) {
        self.request |= ways.request;
        self.response |= ways.response;
    }
}

/// What a callback may change of a body.
#[derive(Debug, Default)]
pub struct Body {
    /// Which one it is; `None` outside of callbacks for bodies.
    pub is: Option<Buffer>,
    pub bytes: Bytes,
}

impl Host {
    pub fn new(terms: Arc<Terms>, space: Arc<Space>, record: Arc<Record>) -> Self {
        record.instance_began();
        Self {
            terms,
            memory: None,
            allocate: None,
            is_allocating: false,
            own: ROOT,
            effective: ROOT,
            wish: Wish::default(),
            others: Vec::new(),
            held: Vec::new(),
            body: Body::default(),
            answer: None,
            calls: Calls::default(),
            kept: Kept::default(),
            space,
            record,
            queues: Vec::new(),
            tick_period: None,
            next_tick: None,
            closing: Vec::new(),
            itself: Weak::new(),
            is_tended: false,
            complaint: None,
            memory_used: 0,
            table_entries: 0,
            overtime: None,
        }
    }

    /// Forgets what the callback before left.
    pub fn begin(&mut self, context: u32) {
        self.own = context;
        self.effective = context;
        self.wish = Wish::default();
        self.others.clear();
        self.overtime = None;
    }

    /// Called when the time of a callback is over by the clock. That may be because others had the processor: the plugin is
    /// ended when the thread itself has worked for as long again.
    pub fn overrun(&mut self) -> wasmtime::Result<UpdateDeadline> {
        let worked = thread_time();
        let since = *self.overtime.get_or_insert(worked);
        if worked.saturating_sub(since) >= self.terms.limits.time_max {
            return Err(Trap::Interrupt.into());
        }
        engine::count(1);
        Ok(UpdateDeadline::Continue(1))
    }

    /// What the plugin wants done with the exchange that it acts for.
    pub fn wish(&mut self) -> &mut Wish {
        if self.effective == self.own {
            return &mut self.wish;
        }
        let at = self.others.iter().position(|(context, _)| *context == self.effective).unwrap_or_else(|| {
            self.others.push((self.effective, Wish::default()));
            self.others.len().saturating_sub(1)
        });
        self.others.get_mut(at).map_or(&mut self.wish, |(_, wish)| wish)
    }

    /// Acts for another context from now on: its own one, that of the plugin, and, when it is called for no exchange, one
    /// that is held. Nobody else's exchange is anything to this one.
    ///
    /// # Errors
    /// `BAD_ARGUMENT` for any other.
    pub fn act_for(&mut self, context: u32) -> Result<(), Status> {
        let is_open = || self.held.contains(&context) || self.closing.iter().any(|(closing, _)| *closing == context);
        let known = context == self.own || context == ROOT || (self.own == ROOT && is_open());
        if !known {
            return Err(Status::BadArgument);
        }
        self.effective = context;
        Ok(())
    }

    /// The context that host functions act for.
    pub fn effective(&self) -> u32 {
        self.effective
    }

    /// The instance has started: from now on it can be looked after.
    pub fn known_as(&mut self, itself: Weak<Mutex<Vm>>) {
        self.itself = itself;
        self.queues.iter().filter(|(_, is_owner)| *is_owner).for_each(|(queue, _)| queue.own(&self.itself));
        self.due_changed(None);
    }

    /// Ticks come from now on, or do not come any more.
    pub fn tick_every(&mut self, period: Option<Duration>, now: Instant) {
        let before = self.due();
        self.tick_period = period;
        self.next_tick = period.and_then(|period| now.checked_add(period));
        self.due_changed(before);
    }

    /// Whether it is time for a tick; the next one is a period away.
    pub fn ticks(&mut self, now: Instant) -> bool {
        let is_due = self.next_tick.is_some_and(|due| due <= now);
        if is_due {
            self.next_tick = self.tick_period.and_then(|period| now.checked_add(period));
        }
        is_due
    }

    /// Whether the plugin may be called for a tick or a queue.
    pub fn may_be_called(&self) -> bool {
        self.next_tick.is_some() || self.queues.iter().any(|(_, is_told)| *is_told)
    }

    /// When there is something to do without a request.
    pub fn due(&self) -> Option<Instant> {
        self.closing.iter().map(|(_, until)| *until).chain(self.next_tick).min()
    }

    fn due_changed(&mut self, before: Option<Instant>) {
        if self.due().is_none_or(|due| before.is_some_and(|before| before <= due)) {
            return;
        }
        if self.is_tended {
            timers::wake();
        } else if self.itself.strong_count() > 0 {
            self.is_tended = true;
            timers::look_after(Weak::clone(&self.itself));
        }
    }

    /// The plugin is not done with a context; whether it is waited for.
    pub fn wait_for(&mut self, context: u32, now: Instant) -> bool {
        let Some(until) = now.checked_add(self.terms.limits.held_max) else { return false };
        if self.closing.len() >= CLOSING_MAX {
            return false;
        }
        let before = self.due();
        self.closing.push((context, until));
        self.due_changed(before);
        true
    }

    /// The plugin is done with the context that it acts for.
    ///
    /// # Errors
    /// `NOT_FOUND` for one that nobody waits for.
    pub fn done(&mut self) -> Result<(), Status> {
        let before = self.due();
        let (own, now) = (self.effective, clock::now());
        let closing = self.closing.iter_mut().find(|(context, _)| *context == own);
        closing.ok_or(Status::NotFound)?.1 = now;
        self.due_changed(before);
        Ok(())
    }

    /// Opens a queue for this instance; who registered it is told of what comes.
    ///
    /// # Errors
    /// `INTERNAL_FAILURE` when too many are open.
    pub fn open_queue(&mut self, queue: &Arc<Queue>, is_owner: bool) -> Result<(), Status> {
        let at = self.queues.iter().position(|(open, _)| open.id == queue.id);
        if at.is_none() && self.queues.len() >= QUEUES_MAX {
            return Err(Status::InternalFailure);
        }
        let at = at.unwrap_or_else(|| {
            self.queues.push((Arc::clone(queue), false));
            self.queues.len().saturating_sub(1)
        });
        if let Some((_, is_told)) = self.queues.get_mut(at)
            && is_owner
            && !std::mem::replace(is_told, true)
            && self.itself.strong_count() > 0
        {
            queue.own(&self.itself);
        }
        Ok(())
    }

    /// A queue that is open.
    pub fn queue(&self, id: u32) -> Option<&Arc<Queue>> {
        self.queues.iter().find(|(queue, _)| queue.id == id).map(|(queue, _)| queue)
    }

    /// Memory that the instance has taken, in bytes.
    pub fn memory_used(&self) -> usize {
        self.memory_used
    }
}

/// How long this thread has worked.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanoseconds.unwrap_or_default().min(999_999_999))
}

/// Growth beyond the limit is refused: the plugin sees that there is no memory.
impl ResourceLimiter for Host {
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let fits = desired <= self.terms.limits.memory_max;
        if fits {
            self.record.memory_changed(self.memory_used, desired);
            self.memory_used = desired;
        }
        Ok(fits)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let entries = self.table_entries.saturating_add(desired.saturating_sub(current));
        let fits = entries <= TABLE_ENTRIES_MAX;
        if fits {
            self.table_entries = entries;
        }
        Ok(fits)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.record.memory_changed(self.memory_used, 0);
        self.record.instance_ended();
    }
}

/// Why a host function did not do what it was asked for.
#[derive(Debug)]
pub enum Refusal {
    /// The plugin is told.
    Status(Status),
    /// The plugin is ended.
    Trap(wasmtime::Error),
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// What a host function returns to the plugin.
pub fn told(done: Result<(), Refusal>) -> wasmtime::Result<u32> {
    match done {
        Ok(()) => Ok(Status::Ok.number()),
        Err(Refusal::Status(status)) => Ok(status.number()),
        Err(Refusal::Trap(error)) => Err(error),
    }
}

/// The memory of the plugin and the state beside it.
pub fn split<'a>(caller: &'a mut Caller<'_, Host>) -> Result<(&'a mut [u8], &'a mut Host), Status> {
    let memory = caller.data().memory.ok_or(Status::InvalidMemoryAccess)?;
    Ok(memory.data_and_store_mut(caller))
}

/// Bytes of the plugin.
pub fn slice(memory: &[u8], at: u32, size: u32) -> Result<&[u8], Status> {
    let at = usize::try_from(at).map_err(|_| Status::InvalidMemoryAccess)?;
    let size = usize::try_from(size).map_err(|_| Status::InvalidMemoryAccess)?;
    let end = at.checked_add(size).ok_or(Status::InvalidMemoryAccess)?;
    memory.get(at..end).ok_or(Status::InvalidMemoryAccess)
}

/// Writes into the memory of the plugin.
pub fn put(memory: &mut [u8], at: u32, bytes: &[u8]) -> Result<(), Status> {
    let at = usize::try_from(at).map_err(|_| Status::InvalidMemoryAccess)?;
    let end = at.checked_add(bytes.len()).ok_or(Status::InvalidMemoryAccess)?;
    memory.get_mut(at..end).ok_or(Status::InvalidMemoryAccess)?.copy_from_slice(bytes);
    Ok(())
}

/// Bytes of the plugin, copied.
pub fn copied(caller: &mut Caller<'_, Host>, at: u32, size: u32) -> Result<Vec<u8>, Status> {
    let (memory, _) = split(caller)?;
    slice(memory, at, size).map(<[u8]>::to_vec)
}

/// Writes a number into the memory of the plugin.
pub fn put_u32(caller: &mut Caller<'_, Host>, at: u32, number: u32) -> Result<(), Status> {
    let (memory, _) = split(caller)?;
    put(memory, at, &number.to_le_bytes())
}

/// Writes a number into the memory of the plugin.
pub fn put_u64(caller: &mut Caller<'_, Host>, at: u32, number: u64) -> Result<(), Status> {
    let (memory, _) = split(caller)?;
    put(memory, at, &number.to_le_bytes())
}

/// Hands bytes to the plugin: asks it for memory, copies them there, and writes where they are and how many. Of no bytes it
/// is told a null pointer.
pub fn give(caller: &mut Caller<'_, Host>, bytes: &[u8], at: u32, size: u32) -> Result<(), Refusal> {
    let length = u32::try_from(bytes.len()).map_err(|_| Status::InternalFailure)?;
    // Before anything is asked for: an address that is none must not cost the plugin memory.
    let (memory, _) = split(caller)?;
    slice(memory, at, 4)?;
    slice(memory, size, 4)?;
    let place = if length == 0 { 0 } else { allocated(caller, length)? };
    let (memory, _) = split(caller)?;
    put(memory, place, bytes)?;
    put(memory, at, &place.to_le_bytes())?;
    put(memory, size, &length.to_le_bytes())?;
    Ok(())
}

/// Memory that the plugin makes room for.
fn allocated(caller: &mut Caller<'_, Host>, length: u32) -> Result<u32, Refusal> {
    let host = caller.data_mut();
    if host.is_allocating {
        return Err(Status::InternalFailure.into());
    }
    let allocate = host.allocate.clone().ok_or(Status::InvalidMemoryAccess)?;
    host.is_allocating = true;
    let place = allocate.call(&mut *caller, length);
    caller.data_mut().is_allocating = false;
    match place.map_err(Refusal::Trap)? {
        0 => Err(Status::InvalidMemoryAccess.into()),
        place => Ok(place),
    }
}
