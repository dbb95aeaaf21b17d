//! What comes for an exchange while it is with a plugin: answers of services that the plugin has called, and what the plugin
//! wants done with it from a callback that is not its own.
//!
//! Each call is a task of its own: services are asked whether somebody waits or not. While the exchange is held, what comes is
//! left here for who holds it, and the plugin is told with the exchange at hand; otherwise the plugin is told beside it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::call::{Answered, Asked};
use super::host::{ROOT, Wish};
use super::instance::{Failure, Vm};
use super::plugin::{Instance, Plugin};

/// Where it comes in.
#[derive(Default)]
pub struct Mailbox {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    /// Calls that are under way; most exchanges make none.
    tasks: Option<JoinSet<()>>,
    /// Calls whose answers are not here yet.
    under_way: usize,
    mail: VecDeque<Mail>,
    is_awaited: bool,
}

/// What came.
#[derive(Debug)]
pub enum Mail {
    /// The answer to a call, by its number.
    Answer(u32, Answered),
    /// What the plugin wants done.
    Wish(Wish),
    /// What its instance failed with.
    Failure(Failure),
}

/// Who waits; for as long as it lives, what comes is left for it.
pub struct Wait {
    mailbox: Arc<Mailbox>,
}

impl Mailbox {
    /// Waits from now on.
    pub fn wait(self: &Arc<Self>) -> Wait {
        self.state().is_awaited = true;
        Wait { mailbox: Arc::clone(self) }
    }

    /// Leaves what comes from a callback for another context.
    pub fn leave(&self, mail: Mail) {
        self.state().mail.push_back(mail);
        self.arrived.notify_one();
    }

    /// What was left while nobody waited.
    pub fn left(&self) -> Option<Mail> {
        self.state().mail.pop_front()
    }

    /// Whether something is here, or an answer under way.
    pub fn expects(&self) -> bool {
        let state = self.state();
        state.under_way > 0 || !state.mail.is_empty()
    }

    /// Ends the calls: nobody wants their answers any more.
    pub fn close(&self) {
        let mut state = self.state();
        state.tasks = None;
        state.mail.clear();
        state.under_way = 0;
    }

    /// Sends a call.
    fn send(self: &Arc<Self>, asked: Asked, plugin: &Arc<Plugin>, instance: &Instance, runtime: &Handle) {
        let Asked { number, context, call } = asked;
        let sent = plugin.outlet().caller().map(|caller| caller.call(call));
        let of = Of { context, plugin: Arc::clone(plugin), instance: Arc::downgrade(instance) };
        let mailbox = Arc::clone(self);
        let mut state = self.state();
        state.under_way = state.under_way.saturating_add(1);
        let task = async move {
            let answered = match sent {
                Some(sent) => sent.await,
                None => Err("the gateway does not serve yet".to_owned()),
            };
            mailbox.answered(number, answered, &of);
        };
        let tasks = state.tasks.get_or_insert_default();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_on(task, runtime);
    }

    fn answered(self: &Arc<Self>, number: u32, answered: Answered, of: &Of) {
        if let Err(why) = &answered {
            tracing::debug!(plugin = &*of.plugin.terms().name, "a call failed: {why}");
        }
        let mut state = self.state();
        state.under_way = state.under_way.saturating_sub(1);
        if state.is_awaited {
            state.mail.push_back(Mail::Answer(number, answered));
            drop(state);
            self.arrived.notify_one();
            return;
        }
        drop(state);
        of.tell(number, answered, self);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait {
    /// The next that comes. `None`: nothing is under way; with `wakes` the plugin may want something later nevertheless.
    pub async fn next(&self, wakes: bool) -> Option<Mail> {
        loop {
            let arrived = self.mailbox.arrived.notified();
            {
                let mut state = self.mailbox.state();
                if let Some(mail) = state.mail.pop_front() {
                    return Some(mail);
                }
                if state.under_way == 0 && !wakes {
                    return None;
                }
            }
            arrived.await;
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.mailbox.state().is_awaited = false;
    }
}

/// Whose call it is.
struct Of {
    context: u32,
    plugin: Arc<Plugin>,
    instance: Weak<Mutex<Vm>>,
}

impl Of {
    /// Tells the plugin of an answer beside the exchange.
    fn tell(&self, number: u32, answered: Answered, mailbox: &Arc<Mailbox>) {
        let Some(instance) = self.instance.upgrade() else { return };
        let told = lock(&instance).answer(self.context, number, answered, None, None);
        match told {
            Ok(told) => {
                if self.context != ROOT && told.wish.is_some() {
                    mailbox.leave(Mail::Wish(told.wish));
                }
                send(&self.plugin, &instance, (self.context, mailbox));
            }
            Err(failure) => {
                self.plugin.failed();
                let plugin = &*self.plugin.terms().name;
                tracing::error!(plugin, reason = failure.reason(), "plugin failed: {}", failure.words());
            }
        }
    }
}

/// Sends what the plugin asked for in the callbacks before. Calls of the plugin itself wait until something runs that can
/// send them.
pub fn send(plugin: &Arc<Plugin>, instance: &Instance, exchange: (u32, &Arc<Mailbox>)) {
    let (asked, root, runtime) = {
        let mut vm = lock(instance);
        if !vm.has_asked() {
            return;
        }
        let Some(runtime) = plugin.outlet().runtime() else { return };
        (vm.take_calls(), Arc::clone(vm.mailbox()), runtime)
    };
    for asked in asked {
        let mailbox = if asked.context == exchange.0 { exchange.1 } else { &root };
        mailbox.send(asked, plugin, instance, &runtime);
    }
}

/// Sends what the plugin asked for while no request called it, and lets go of the instance.
pub fn send_for_itself(vm: MutexGuard<'_, Vm>, instance: &Instance) {
    let (sender, root) = (vm.sender(), Arc::clone(vm.mailbox()));
    drop(vm);
    if let Some(plugin) = sender {
        send(&plugin, instance, (ROOT, &root));
    }
}

fn lock(instance: &Instance) -> MutexGuard<'_, Vm> {
    instance.lock().unwrap_or_else(PoisonError::into_inner)
}
