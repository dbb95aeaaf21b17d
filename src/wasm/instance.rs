//! One instance of a plugin: its memory, its callbacks, its contexts.

mod calls;
mod unasked;

use std::sync::{Arc, Mutex, PoisonError, Weak};

use wasmtime::{Instance, Store, Trap, TypedFunc, WasmParams, WasmResults};

use super::engine::{self, TICK, engine};
use super::exchange::{self, Exchange};
use super::host::{Body, Host, ROOT, Wish};
use super::mailbox::{Mail, Mailbox};
use super::plugin::{Instance as Shared, Plugin, Terms};
use super::program::Program;
use super::record::record;
use super::shared::space;
use super::status::Action;
use crate::clock;

/// Why a plugin did not do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It ran into a mistake of its own; in words.
    Trap(String),
    /// It ran longer than it may.
    Time,
    /// It did not take its configuration, or did not start; in words.
    Start(String),
    /// It failed so often that it is left alone for a while.
    Resting,
    /// As many requests are with it as may be.
    Busy,
    /// It held a request for longer than it may.
    Held,
    /// The instance that the request was with has ended.
    Ended,
}

impl Failure {
    /// The word in the metric and in the log.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Trap(_) => "trap",
            Self::Time => "time",
            Self::Start(_) => "start",
            Self::Resting => "resting",
            Self::Busy => "busy",
            Self::Held => "held",
            Self::Ended => "ended",
        }
    }

    /// What is known beyond the reason.
    pub fn words(&self) -> &str {
        match self {
            Self::Trap(words) | Self::Start(words) => words,
            _ => "",
        }
    }
}

/// Declares the callbacks: name of the export, arguments, result. A plugin has those it exports.
macro_rules! callbacks {
    ($($field:ident: $name:literal, $params:ty => $results:ty;)*) => {
        /// What a plugin can be called for.
        struct Callbacks {
            $($field: Option<TypedFunc<$params, $results>>,)*
        }

        impl Callbacks {
            fn of(instance: &Instance, store: &mut Store<Host>) -> Self {
                Self { $($field: instance.get_typed_func(&mut *store, $name).ok(),)* }
            }
        }
    };
}

callbacks! {
    create: "proxy_on_context_create", (u32, u32) => ();
    vm_start: "proxy_on_vm_start", (u32, u32) => u32;
    configure: "proxy_on_configure", (u32, u32) => u32;
    request_headers: "proxy_on_request_headers", (u32, u32, u32) => u32;
    request_body: "proxy_on_request_body", (u32, u32, u32) => u32;
    request_trailers: "proxy_on_request_trailers", (u32, u32) => u32;
    response_headers: "proxy_on_response_headers", (u32, u32, u32) => u32;
    response_body: "proxy_on_response_body", (u32, u32, u32) => u32;
    response_trailers: "proxy_on_response_trailers", (u32, u32) => u32;
    done: "proxy_on_done", u32 => u32;
    log: "proxy_on_log", u32 => ();
    delete: "proxy_on_delete", u32 => ();
    tick: "proxy_on_tick", u32 => ();
    queue_ready: "proxy_on_queue_ready", (u32, u32) => ();
    call_response: "proxy_on_http_call_response", (u32, u32, u32, u32, u32) => ();
}

/// Heads and trailers that a plugin can be called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    Request,
    RequestTrailers,
    Response,
    ResponseTrailers,
}

/// What a callback came to.
#[derive(Debug)]
pub struct Outcome {
    pub action: Action,
    pub wish: Wish,
}

/// What came of telling a plugin what a service answered.
#[derive(Debug)]
pub struct Told {
    pub wish: Wish,
    /// The body that is held, as the plugin left it.
    pub body: Body,
}

/// A running instance. It never blocks for longer than the plugin may run.
pub struct Vm {
    store: Store<Host>,
    callbacks: Callbacks,
    /// The number of the next context.
    next: u32,
    /// It failed: nothing of it can be relied on any more.
    is_dead: bool,
    /// Exchanges that it accompanies.
    open: u32,
    /// The exchange that it accompanies, and where that one is told of what comes of callbacks for others.
    exchange: Option<(u32, Arc<Mailbox>)>,
    /// What comes for the plugin itself.
    mailbox: Arc<Mailbox>,
    /// The plugin that it is an instance of, once that is known: who sends what it asks for.
    owner: Weak<Plugin>,
}

impl Vm {
    /// Starts an instance and hands it its configuration.
    ///
    /// # Errors
    /// [`Failure::Start`] in words, or what else went wrong.
    pub fn start(program: &Program, terms: Arc<Terms>) -> Result<Self, Failure> {
        let record = record(&terms.name);
        Self::begin(program, terms).inspect_err(|failure| record.failed(failure.reason()))
    }

    fn begin(program: &Program, terms: Arc<Terms>) -> Result<Self, Failure> {
        let engine = engine().map_err(Failure::Start)?;
        let (record, space) = (record(&terms.name), space(&terms.name));
        let mut store = Store::new(engine, Host::new(terms, space, record));
        store.limiter(|host| host);
        store.epoch_deadline_callback(|mut context| context.data_mut().overrun());
        let start_time_max = store.data().terms.limits.start_time_max;
        end_after(&mut store, start_time_max);
        let instance = program.prepared.instantiate(&mut store).map_err(|error| failure(&error))?;
        let memory = instance.get_memory(&mut store, "memory");
        let allocate = ["proxy_on_memory_allocate", "malloc"]
            .into_iter()
            .find_map(|name| instance.get_typed_func(&mut store, name).ok());
        store.data_mut().memory = memory;
        store.data_mut().allocate = allocate;
        let callbacks = Callbacks::of(&instance, &mut store);
        let mut vm = Self {
            store,
            callbacks,
            next: ROOT.saturating_add(1),
            is_dead: false,
            open: 0,
            exchange: None,
            mailbox: Arc::default(),
            owner: Weak::new(),
        };
        vm.initialize(&instance)?;
        vm.configure()?;
        Ok(vm)
    }

    /// What the language of the plugin does before anything else.
    fn initialize(&mut self, instance: &Instance) -> Result<(), Failure> {
        let function = |store: &mut Store<Host>, name: &str| instance.get_typed_func::<(), ()>(store, name).ok();
        match function(&mut self.store, "_initialize") {
            Some(initialize) => {
                self.begin_start(&initialize, ())?;
                if let Ok(main) = instance.get_typed_func::<(u32, u32), u32>(&mut self.store, "main") {
                    self.begin_start(&main, (0, 0))?;
                }
            }
            None => {
                if let Some(start) = function(&mut self.store, "_start") {
                    self.begin_start(&start, ())?;
                }
            }
        }
        Ok(())
    }

    fn begin_start<P: WasmParams, R: WasmResults>(
        &mut self,
        function: &TypedFunc<P, R>,
        params: P,
    ) -> Result<R, Failure> {
        self.store.data_mut().begin(ROOT);
        let start_time_max = self.store.data().terms.limits.start_time_max;
        end_after(&mut self.store, start_time_max);
        function.call(&mut self.store, params).map_err(|error| self.failed(&error))
    }

    fn configure(&mut self) -> Result<(), Failure> {
        let terms = Arc::clone(&self.store.data().terms);
        let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if let Some(create) = self.callbacks.create.clone() {
            self.begin_start(&create, (ROOT, 0))?;
        }
        if let Some(start) = self.callbacks.vm_start.clone()
            && self.begin_start(&start, (ROOT, size(&terms.vm_configuration)))? == 0
        {
            self.is_dead = true;
            return Err(self.refused("it refused to start (`proxy_on_vm_start` returned false)"));
        }
        if let Some(configure) = self.callbacks.configure.clone()
            && self.begin_start(&configure, (ROOT, size(&terms.configuration)))? == 0
        {
            self.is_dead = true;
            return Err(self.refused("it refused its `config` (`proxy_on_configure` returned false)"));
        }
        Ok(())
    }

    /// What it refused, in our words and in its own.
    fn refused(&mut self, words: &str) -> Failure {
        match self.store.data_mut().complaint.take() {
            Some(own) => Failure::Start(format!("{words}: {}", own.escape_debug())),
            None => Failure::Start(words.to_owned()),
        }
    }

    /// Puts the instance where others find it too.
    pub fn shared(self) -> Shared {
        let shared = Arc::new(Mutex::new(self));
        let itself = Arc::downgrade(&shared);
        shared.lock().unwrap_or_else(PoisonError::into_inner).store.data_mut().known_as(itself);
        shared
    }

    pub fn is_dead(&self) -> bool {
        self.is_dead
    }

    /// Memory that it has taken, in bytes.
    pub fn memory_used(&self) -> usize {
        self.store.data().memory_used()
    }

    /// Begins a context for an exchange.
    ///
    /// # Errors
    /// What the plugin failed with.
    pub fn open(&mut self, mailbox: &Arc<Mailbox>) -> Result<u32, Failure> {
        if self.is_dead {
            return Err(Failure::Ended);
        }
        let context = self.next;
        // Numbers may come again after four billion exchanges; by then the first ones are long gone.
        self.next = self.next.checked_add(1).unwrap_or(ROOT.saturating_add(1));
        if let Some(create) = self.callbacks.create.clone() {
            self.run(context, None, &create, (context, ROOT))?;
        }
        self.open = self.open.saturating_add(1);
        self.exchange = Some((context, Arc::clone(mailbox)));
        Ok(context)
    }

    /// Tells the plugin of a head or of trailers. `ends`: no body follows.
    ///
    /// # Errors
    /// What the plugin failed with.
    pub fn head(
        &mut self,
        context: u32,
        head: Head,
        ends: bool,
        exchange: &mut dyn Exchange,
    ) -> Result<Outcome, Failure> {
        let callbacks = &self.callbacks;
        let action = match head {
            Head::Request | Head::Response => {
                let callback =
                    if head == Head::Request { &callbacks.request_headers } else { &callbacks.response_headers };
                match callback.clone() {
                    Some(callback) => {
                        let fields = exchange::fields(head, exchange);
                        self.run(context, Some(exchange), &callback, (context, fields, u32::from(ends)))?
                    }
                    None => return Ok(Outcome::none()),
                }
            }
            Head::RequestTrailers | Head::ResponseTrailers => {
                let callback = if head == Head::RequestTrailers {
                    &callbacks.request_trailers
                } else {
                    &callbacks.response_trailers
                };
                match callback.clone() {
                    Some(callback) => {
                        let fields = exchange::fields(head, exchange);
                        self.run(context, Some(exchange), &callback, (context, fields))?
                    }
                    None => return Ok(Outcome::none()),
                }
            }
        };
        Ok(self.outcome(context, action))
    }

    /// Tells the plugin of a piece of a body: what there is of it so far and was not sent on yet. The outcome comes with what
    /// the plugin made of it.
    ///
    /// # Errors
    /// What the plugin failed with.
    pub fn body(
        &mut self,
        context: u32,
        body: Body,
        ends: bool,
        exchange: &mut dyn Exchange,
    ) -> Result<(Outcome, Body), Failure> {
        let callback = match body.is {
            Some(super::status::Buffer::RequestBody) => self.callbacks.request_body.clone(),
            _ => self.callbacks.response_body.clone(),
        };
        let Some(callback) = callback else { return Ok((Outcome::none(), body)) };
        let size = u32::try_from(body.bytes.len()).unwrap_or(u32::MAX);
        self.store.data_mut().body = body;
        let action = self.run(context, Some(exchange), &callback, (context, size, u32::from(ends)));
        let body = std::mem::take(&mut self.store.data_mut().body);
        let outcome = self.outcome(context, action?);
        Ok((outcome, body))
    }

    /// An exchange is held: callbacks for others may let it go on, which is left in its mailbox.
    pub fn hold(&mut self, context: u32) {
        let held = &mut self.store.data_mut().held;
        if !held.contains(&context) {
            held.push(context);
        }
    }

    /// It is not held any more.
    pub fn release(&mut self, context: u32) {
        self.store.data_mut().held.retain(|held| *held != context);
    }

    /// Whether the plugin may be called for something else than an exchange or an answer.
    pub fn may_be_called(&self) -> bool {
        self.store.data().may_be_called()
    }

    /// Whether the plugin looks at bodies: that of the request, that of the response.
    pub fn looks_at_bodies(&self) -> (bool, bool) {
        (self.callbacks.request_body.is_some(), self.callbacks.response_body.is_some())
    }

    pub fn looks_at_response_trailers(&self) -> bool {
        self.callbacks.response_trailers.is_some()
    }

    /// Ends a context for the exchange. A plugin that says it is not done yet keeps the context for a while, and the exchange is
    /// gone meanwhile. `calls`: what it asks for now is sent.
    ///
    /// # Errors
    /// What the plugin failed with.
    pub fn close(
        &mut self,
        context: u32,
        calls: bool,
        mut exchange: Option<&mut (dyn Exchange + '_)>,
    ) -> Result<(), Failure> {
        if self.is_dead {
            return Ok(());
        }
        self.open = self.open.saturating_sub(1);
        self.release(context);
        self.exchange.take_if(|(own, _)| *own == context);
        if let Some(done) = self.callbacks.done.clone()
            && self.run(context, exchange.as_deref_mut(), &done, context)? == 0
            && self.store.data_mut().wait_for(context, clock::now())
        {
            if !calls {
                self.hold_back_calls(context);
            }
            return Ok(());
        }
        self.end(context, calls, exchange)
    }

    /// The last that the plugin hears of a context.
    fn end(&mut self, context: u32, calls: bool, exchange: Option<&mut (dyn Exchange + '_)>) -> Result<(), Failure> {
        if let Some(log) = self.callbacks.log.clone() {
            self.run(context, exchange, &log, context)?;
        }
        if let Some(delete) = self.callbacks.delete.clone() {
            self.run(context, None, &delete, context)?;
        }
        self.store.data_mut().kept.forget(context);
        if !calls {
            self.hold_back_calls(context);
        }
        self.forget_calls(context);
        Ok(())
    }

    /// Runs one callback within its time.
    fn run<P: WasmParams, R: WasmResults>(
        &mut self,
        context: u32,
        exchange: Option<&mut (dyn Exchange + '_)>,
        callback: &TypedFunc<P, R>,
        params: P,
    ) -> Result<R, Failure> {
        if self.is_dead {
            return Err(Failure::Ended);
        }
        self.store.data_mut().begin(context);
        let time_max = self.store.data().terms.limits.time_max;
        end_after(&mut self.store, time_max);
        let returned = exchange::with(exchange, || callback.call(&mut self.store, params));
        let returned = returned.map_err(|error| {
            let failure = self.failed(&error);
            self.store.data().record.failed(failure.reason());
            failure
        });
        self.leave();
        returned
    }

    fn failed(&mut self, error: &wasmtime::Error) -> Failure {
        self.is_dead = true;
        let failure = failure(error);
        if let Some((_, mailbox)) = &self.exchange {
            mailbox.leave(Mail::Failure(failure.clone()));
        }
        failure
    }

    fn outcome(&mut self, context: u32, action: u32) -> Outcome {
        let (action, host) = (Action::of(action), self.store.data_mut());
        let is_known = host.held.contains(&context);
        match action {
            Action::Pause if !is_known => host.held.push(context),
            Action::Continue if is_known => host.held.retain(|held| *held != context),
            _ => {}
        }
        Outcome { action, wish: std::mem::take(&mut host.wish) }
    }
}

impl Outcome {
    /// That of a plugin that has no such callback.
    pub fn none() -> Self {
        Self { action: Action::Continue, wish: Wish::default() }
    }
}

/// What runs from now on is ended when it takes longer.
fn end_after(store: &mut Store<Host>, time: std::time::Duration) {
    let ticks = ticks(time);
    store.set_epoch_deadline(ticks);
    engine::count(ticks);
}

/// Ticks of the engine's clock that are never less than `time`.
fn ticks(time: std::time::Duration) -> u64 {
    let ticks = time.as_millis().checked_div(TICK.as_millis().max(1)).unwrap_or_default();
    u64::try_from(ticks).unwrap_or(u64::MAX).saturating_add(1)
}

fn failure(error: &wasmtime::Error) -> Failure {
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => Failure::Time,
        _ => Failure::Trap(format!("{error:#}")),
    }
}
