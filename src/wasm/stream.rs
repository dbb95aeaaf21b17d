//! One exchange with one plugin: an instance of its own, from the head of the request to the end of the answer.

use std::sync::{Arc, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};

use super::call::Answered;
use super::exchange::Exchange;
use super::host::{Body, Ways};
use super::instance::{Failure, Head, Outcome, Vm};
use super::mailbox::{self, Mail, Mailbox, Wait};
use super::plugin::{Instance, Plugin};
use super::status::{Action, Buffer};

pub use super::host::Wish;

/// An exchange that a plugin accompanies.
pub struct Stream {
    plugin: Arc<Plugin>,
    /// `None` once it was given back.
    instance: Option<Instance>,
    context: u32,
    request: Option<Held>,
    response: Option<Held>,
    mailbox: Arc<Mailbox>,
    /// Whether calls are sent.
    calls: bool,
}

/// What a plugin holds back of a body.
#[derive(Debug, Default)]
struct Held {
    bytes: BytesMut,
    /// What the plugin let go on while nobody was there to take it.
    ready: BytesMut,
}

/// Which body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Request,
    Response,
}

/// What became of a piece of a body.
#[derive(Debug)]
pub struct Piece {
    /// What goes on now; empty while the plugin holds it back.
    pub bytes: Bytes,
    pub wish: Wish,
    /// It is held back, and something may come that lets it go on.
    pub waits: bool,
}

impl Way {
    fn body(self, bytes: Bytes) -> Body {
        let is = match self {
            Self::Request => Buffer::RequestBody,
            Self::Response => Buffer::ResponseBody,
        };
        Body { is: Some(is), bytes }
    }
}

impl Stream {
    /// Gives an exchange to the plugin.
    ///
    /// # Errors
    /// Why there is no instance for it.
    pub fn open(plugin: &Arc<Plugin>) -> Result<Self, Failure> {
        let instance = plugin.take()?;
        let mailbox = Arc::default();
        let opened = {
            let mut vm = lock(&instance);
            vm.belongs_to(plugin);
            vm.open(&mailbox)
        };
        let mut stream = Self {
            plugin: Arc::clone(plugin),
            instance: Some(instance),
            context: 0,
            request: None,
            response: None,
            mailbox,
            calls: true,
        };
        stream.context = stream.noted(opened)?;
        Ok(stream)
    }

    /// The same, but what the plugin asks of other services is not sent.
    #[must_use]
    pub fn without_calls(mut self) -> Self {
        self.calls = false;
        self
    }

    /// Tells the plugin of a head or of trailers; `ends`: no body follows.
    ///
    /// # Errors
    /// What the plugin failed with.
    pub fn head(&mut self, head: Head, ends: bool, exchange: &mut dyn Exchange) -> Result<Outcome, Failure> {
        let late = self.catch_up(exchange)?;
        let outcome = match &self.instance {
            Some(instance) => lock(instance).head(self.context, head, ends, exchange),
            None => Err(Failure::Ended),
        };
        let mut outcome = self.noted(outcome)?;
        outcome.wish.add(late);
        self.called();
        Ok(outcome)
    }

    /// Tells the plugin of the next piece of a body. While it pauses, what there is is kept and comes again with the next
    /// piece. With the last one it goes on, unless something may come that lets it: see [`Piece::waits`].
    ///
    /// # Errors
    /// What the plugin failed with; [`Failure::Held`] when it keeps more than it may. What it held can be [taken](Self::take).
    pub fn body(&mut self, way: Way, piece: Bytes, ends: bool, exchange: &mut dyn Exchange) -> Result<Piece, Failure> {
        let late = self.catch_up(exchange)?;
        if late.resumed.has(way) {
            self.held(way).let_go();
        }
        let bytes = self.held(way).with(piece);
        let before = bytes.clone();
        let told = match &self.instance {
            Some(instance) => lock(instance).body(self.context, way.body(bytes), ends, exchange),
            None => Err(Failure::Ended),
        };
        let (mut outcome, body) = match self.noted(told) {
            Ok(told) => told,
            Err(failure) => {
                self.held(way).bytes = BytesMut::from(before);
                return Err(failure);
            }
        };
        drop(before);
        // What it let go on before is not what it holds now.
        outcome.wish.add(Wish { resumed: Ways::default(), ..late });
        self.called();
        let (wish, pauses) = (outcome.wish, outcome.action == Action::Pause);
        let waits = pauses && !wish.resumed.has(way) && (self.expects_answers() || (ends && self.may_be_woken()));
        if !pauses || wish.resumed.has(way) || (ends && !waits) {
            return Ok(Piece { bytes: self.held(way).behind(body.bytes), wish, waits: false });
        }
        let is_too_large = body.bytes.len() > self.plugin.terms().limits.body_max;
        self.held(way).bytes = BytesMut::from(body.bytes);
        if is_too_large {
            // It cannot go on with this exchange. Nothing is wrong with its instance.
            self.plugin.count(&Failure::Held);
            self.finish(None);
            return Err(Failure::Held);
        }
        let bytes = if waits { Bytes::new() } else { self.held(way).behind(Bytes::new()) };
        Ok(Piece { bytes, wish, waits })
    }

    /// Tells the plugin of the answer to a call. `shown`: it may look at what it holds of this body, and change it.
    ///
    /// # Errors
    /// What the plugin failed with.
    pub fn answer(
        &mut self,
        number: u32,
        answered: Answered,
        shown: Option<Way>,
        exchange: &mut dyn Exchange,
    ) -> Result<Wish, Failure> {
        let before = shown.map(|way| std::mem::take(&mut self.held(way).bytes).freeze());
        let body = shown.zip(before.clone()).map(|(way, bytes)| way.body(bytes));
        let told = match &self.instance {
            Some(instance) => lock(instance).answer(self.context, number, answered, body, Some(exchange)),
            None => Err(Failure::Ended),
        };
        let told = self.noted(told);
        if let (Some(way), Some(before)) = (shown, before) {
            self.held(way).bytes = BytesMut::from(told.as_ref().map_or(before, |told| told.body.bytes.clone()));
        }
        let told = told?;
        self.called();
        Ok(told.wish)
    }

    /// What it holds of a body; it holds nothing of it afterwards.
    pub fn take(&mut self, way: Way) -> Bytes {
        let held = self.held(way);
        held.let_go();
        held.behind(Bytes::new())
    }

    fn held(&mut self, way: Way) -> &mut Held {
        let held = match way {
            Way::Request => &mut self.request,
            Way::Response => &mut self.response,
        };
        held.get_or_insert_default()
    }

    /// Holds the exchange: what comes from now on is left to who waits, and callbacks for others may let it go on.
    pub fn hold(&self) -> Wait {
        if let Some(instance) = &self.instance {
            lock(instance).hold(self.context);
        }
        self.mailbox.wait()
    }

    /// The exchange goes on.
    pub fn release(&self) {
        if let Some(instance) = &self.instance {
            lock(instance).release(self.context);
        }
    }

    /// Whether a service was asked whose answer is not here yet.
    pub fn expects_answers(&self) -> bool {
        self.instance.as_ref().is_some_and(|instance| lock(instance).has_calls(self.context)) || self.mailbox.expects()
    }

    /// Whether something else than the answer to a call may let a held exchange go on.
    pub fn may_be_woken(&self) -> bool {
        self.instance.as_ref().is_some_and(|instance| lock(instance).may_be_called())
    }

    /// Tells the plugin what came while nobody waited. What it wants done comes back.
    fn catch_up(&mut self, exchange: &mut dyn Exchange) -> Result<Wish, Failure> {
        let mut wish = Wish::default();
        while let Some(mail) = self.mailbox.left() {
            wish.add(match mail {
                Mail::Answer(number, answered) => self.answer(number, answered, None, exchange)?,
                Mail::Wish(wish) => wish,
                Mail::Failure(failure) => return Err(self.ended(failure)),
            });
        }
        Ok(wish)
    }

    /// What follows from every callback: what the plugin asked for is sent.
    fn called(&self) {
        match &self.instance {
            Some(instance) if self.calls => mailbox::send(&self.plugin, instance, (self.context, &self.mailbox)),
            Some(instance) => lock(instance).hold_back_calls(self.context),
            None => {}
        }
    }

    /// Notes what the instance failed with while the exchange was held.
    pub fn ended(&mut self, failure: Failure) -> Failure {
        let _ = self.noted::<()>(Err(failure.clone()));
        failure
    }

    /// Whether the plugin looks at bodies: that of the request, that of the response.
    pub fn looks_at_bodies(&self) -> (bool, bool) {
        self.instance.as_ref().map_or((false, false), |instance| lock(instance).looks_at_bodies())
    }

    pub fn looks_at_response_trailers(&self) -> bool {
        self.instance.as_ref().is_some_and(|instance| lock(instance).looks_at_response_trailers())
    }

    /// Ends the exchange for the plugin, which may log what became of it.
    pub fn finish(&mut self, exchange: Option<&mut (dyn Exchange + '_)>) {
        self.mailbox.close();
        let Some(instance) = self.instance.take() else { return };
        let closed = lock(&instance).close(self.context, self.calls, exchange);
        match closed {
            Ok(()) if self.calls => mailbox::send(&self.plugin, &instance, (self.context, &self.mailbox)),
            Ok(()) => {}
            Err(_) => self.plugin.failed(),
        }
        self.plugin.put_back(instance);
    }

    /// Gives up an instance that failed.
    fn noted<T>(&mut self, done: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(failure) = &done
            && *failure != Failure::Ended
        {
            self.plugin.failed();
            // Told already, if it was left there too.
            self.mailbox.close();
            if let Some(instance) = self.instance.take() {
                self.plugin.put_back(instance);
            }
        }
        done
    }
}

/// However an exchange ends, its instance comes back.
impl Drop for Stream {
    fn drop(&mut self) {
        self.finish(None);
    }
}

impl Held {
    /// What was held back goes on with what comes next.
    fn let_go(&mut self) {
        if self.ready.is_empty() {
            self.ready = std::mem::take(&mut self.bytes);
        } else {
            self.ready.extend_from_slice(&self.bytes);
            self.bytes.clear();
        }
    }

    /// What may go on, and this behind it.
    fn behind(&mut self, bytes: Bytes) -> Bytes {
        if self.ready.is_empty() {
            return bytes;
        }
        let mut ready = std::mem::take(&mut self.ready);
        ready.extend_from_slice(&bytes);
        ready.freeze()
    }

    /// What was held back, and the next piece.
    fn with(&mut self, piece: Bytes) -> Bytes {
        if self.bytes.is_empty() {
            return piece;
        }
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.extend_from_slice(&piece);
        bytes.freeze()
    }
}

fn lock(instance: &Instance) -> MutexGuard<'_, Vm> {
    instance.lock().unwrap_or_else(PoisonError::into_inner)
}
