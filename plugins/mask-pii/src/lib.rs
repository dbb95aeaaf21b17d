//! Masks card numbers, e-mail addresses, IBANs and patterns of your own in answers of JSON and text.
//!
//! Bodies are changed on their way: nothing waits for the end, and what is kept is the unfinished word at the end of a piece.

mod mask;
mod settings;

use std::rc::Rc;

use log::error;
use proxy_wasm::hostcalls::{define_metric, get_buffer, increment_metric};
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, BufferType, ContextType, LogLevel, MetricType};

use mask::{Kind, Mask};
use settings::Settings;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root { shared: None }));
}}

/// Fields that speak of the bytes of a body, and are wrong once it is changed.
const OUTDATED: [&str; 6] =
    ["content-length", "content-md5", "content-digest", "repr-digest", "digest", "accept-ranges"];

struct Root {
    shared: Option<Rc<Shared>>,
}

/// What every exchange uses.
struct Shared {
    settings: Settings,
    summary: String,
    /// A counter for each kind.
    masked: Vec<u32>,
    unreadable: u32,
}

impl Context for Root {}

impl RootContext for Root {
    fn on_configure(&mut self, _: usize) -> bool {
        let text = self.get_plugin_configuration().unwrap_or_default();
        let settings = match Settings::parse(&text) {
            Ok(settings) => settings,
            Err(why) => {
                error!("mask-pii: {why}");
                return false;
            }
        };
        let counter = |name: &str| define_metric(MetricType::Counter, name).unwrap_or_default();
        let masked = settings.kinds.iter().map(|kind| counter(&format!("pii_masked_{kind}"))).collect();
        let unreadable = counter("pii_unreadable");
        self.shared = Some(Rc::new(Shared { summary: settings.summary(), settings, masked, unreadable }));
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Exchange { shared: Rc::clone(self.shared.as_ref()?), mask: None }))
    }
}

struct Exchange {
    shared: Rc<Shared>,
    /// The answer is one to look at.
    mask: Option<Mask>,
}

impl Context for Exchange {}

impl HttpContext for Exchange {
    /// What is compressed cannot be looked at, and a part of an answer may be half of a number: neither is asked for.
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        self.set_http_request_header("accept-encoding", Some("identity"));
        self.set_http_request_header("range", None);
        self.set_http_request_header("if-range", None);
        Action::Continue
    }

    fn on_http_response_headers(&mut self, _: usize, ends: bool) -> Action {
        let content_type = self.get_http_response_header("content-type").unwrap_or_default();
        if ends || !self.shared.settings.covers(&content_type) {
            return Action::Continue;
        }
        let encoding = self.get_http_response_header("content-encoding").unwrap_or_default();
        let is_plain = encoding.is_empty() || encoding.eq_ignore_ascii_case("identity");
        let is_whole = self.get_http_response_header("content-range").is_none();
        if !is_plain || !is_whole {
            let _ = increment_metric(self.shared.unreadable, 1);
            error!("mask-pii: an answer that is compressed or a part cannot be masked, and is not let through");
            self.send_http_response(502, vec![], None);
            return Action::Pause;
        }
        for name in OUTDATED {
            self.set_http_response_header(name, None);
        }
        self.set_http_response_header(&self.shared.settings.header, Some(&self.shared.summary));
        self.mask = Some(Mask::new(settings::is_json(&content_type)));
        Action::Continue
    }

    fn on_http_response_body(&mut self, size: usize, ends: bool) -> Action {
        let Some(mask) = &mut self.mask else { return Action::Continue };
        let shared = Rc::clone(&self.shared);
        let mut found = |kind| {
            let number = match kind {
                Kind::Card => 0,
                Kind::Email => 1,
                Kind::Iban => 2,
                Kind::Pattern(number) => number + 3,
            };
            let _ = increment_metric(shared.masked[number], 1);
        };
        // Without the body nothing may go on: a plugin that ends itself is answered as `on_failure` says.
        let piece = get_buffer(BufferType::HttpResponseBody, 0, size).expect("a body to look at").unwrap_or_default();
        let masked = mask.piece(&shared.settings.rules, &piece, ends, &mut found);
        if masked != piece {
            self.set_http_response_body(0, size, &masked);
        }
        Action::Continue
    }
}
