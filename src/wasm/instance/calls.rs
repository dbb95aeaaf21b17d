//! What a plugin asks of other services: what it asked for, and what it is told of the answers.

use std::sync::Arc;

use super::{Failure, Told, Vm};
use crate::head::{Fields, Headers as _};
use crate::wasm::call::{Answered, Asked};
use crate::wasm::exchange::Exchange;
use crate::wasm::host::{Body, ROOT, Wish};
use crate::wasm::mailbox::Mailbox;
use crate::wasm::plugin::Plugin;

impl Vm {
    /// Tells the plugin what became of a call that it made for `context`. With a body that is held at that moment it may
    /// change that. An answer that nobody waits for any more is left out.
    ///
    /// # Errors
    /// What the plugin failed with.
    pub fn answer(
        &mut self,
        context: u32,
        number: u32,
        answered: Answered,
        body: Option<Body>,
        exchange: Option<&mut (dyn Exchange + '_)>,
    ) -> Result<Told, Failure> {
        let told = Told { wish: Wish::default(), body: body.unwrap_or_default() };
        if self.is_dead {
            return Err(Failure::Ended);
        }
        let is_waited_for = self.store.data_mut().calls.end(number);
        let Some(callback) = self.callbacks.call_response.clone().filter(|_| is_waited_for) else { return Ok(told) };
        let (fields, size, trailers) = answered.as_ref().map_or((0, 0, 0), |answer| {
            (count(&answer.fields).saturating_add(1), length(&answer.body), count(&answer.trailers))
        });
        let host = self.store.data_mut();
        host.answer = Some(answered);
        host.body = told.body;
        // Languages find the exchange by the number of the call: they are told that it is the plugin that is called.
        let done = self.run(context, exchange, &callback, (ROOT, number, fields, size, trailers));
        let host = self.store.data_mut();
        host.answer = None;
        let body = std::mem::take(&mut host.body);
        done?;
        Ok(Told { wish: std::mem::take(&mut self.store.data_mut().wish), body })
    }

    /// Says whose instance it is.
    pub fn belongs_to(&mut self, plugin: &Arc<Plugin>) {
        if self.owner.strong_count() == 0 {
            self.owner = Arc::downgrade(plugin);
        }
    }

    /// Who sends what was asked for in callbacks before; `None` when nothing was.
    pub fn sender(&self) -> Option<Arc<Plugin>> {
        self.owner.upgrade().filter(|_| self.has_asked())
    }

    /// Whether something was asked for in callbacks before.
    pub fn has_asked(&self) -> bool {
        self.store.data().calls.are_asked()
    }

    /// What is to be sent, asked for in callbacks before.
    pub fn take_calls(&mut self) -> Vec<Asked> {
        self.store.data_mut().calls.take()
    }

    /// What a context asked for is not to be sent.
    pub fn hold_back_calls(&mut self, context: u32) {
        self.store.data_mut().calls.hold_back(context);
    }

    /// Whether a context has calls without an answer.
    pub fn has_calls(&self, context: u32) -> bool {
        self.store.data().calls.has(context)
    }

    /// What comes for the plugin itself.
    pub fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }

    /// Tells the plugin that calls of a context that is gone came to nothing: languages keep their numbers until they are told.
    pub(super) fn forget_calls(&mut self, context: u32) {
        let numbers = self.store.data_mut().calls.forget(context);
        let Some(callback) = self.callbacks.call_response.clone() else { return };
        for number in numbers {
            self.store.data_mut().answer = Some(Err(String::new()));
            // One that fails now is dead, and that is all: the exchange was served.
            let _ = self.run(ROOT, None, &callback, (ROOT, number, 0, 0, 0));
            self.store.data_mut().answer = None;
        }
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn count(fields: &Fields) -> u32 {
    let mut count = 0_u32;
    fields.all(&mut |_, _| count = count.saturating_add(1));
    count
}
