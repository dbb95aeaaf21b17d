//! `tollgate explain`: what becomes of a request, and why.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read};
use std::process::ExitCode;

use bytes::Bytes;
use serde_json::{Value, json};

use super::{Explain, load_and_compile, print};
use crate::caller::Caller;
use crate::config::load::Overrides;
use crate::gateway::Gateway;
use crate::gateway::preview::{Ask, Change, Outcome, Preview, StepReport, StepVerdict, preview, shown, shown_target};
use crate::head::{Headers, RequestHead as _};

/// How much of the body of an answer is shown, in characters.
const BODY_CHARS_MAX: usize = 2000;
/// Largest body that a request is given, in bytes.
const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;

pub fn explain(arguments: Explain) -> ExitCode {
    let gateway = match load_and_compile(&arguments.config.path, &Overrides::new()) {
        Ok(checked) => checked.gateway,
        Err(broken) => return broken.report(),
    };
    let mut ask = Ask { from: arguments.from, ..arguments.request };
    for (name, value) in &arguments.headers {
        // The command line was refused already if this cannot be added.
        let _ = ask.add(name, value);
    }
    if let Some(body) = arguments.data {
        ask.set_body(body);
    }
    let asked = format!("{} {}", ask.request.method(), shown_target(&ask.request, &gateway.hidden));
    let report = Report { asked, from: arguments.from, gateway: &gateway, preview: preview(&gateway, ask) };
    print(&if arguments.json { format!("{:#}\n", report.json()) } else { report.text() });
    ExitCode::SUCCESS
}

/// What `--data` says: a text, `@FILE`, or `@-` for the standard input.
///
/// # Errors
///
/// Why there is no such body, in words.
pub fn body(argument: &str) -> Result<Bytes, String> {
    match argument.strip_prefix('@') {
        None => Ok(Bytes::copy_from_slice(argument.as_bytes())),
        Some("-") => bounded(&mut io::stdin().lock()),
        Some(path) => {
            let mut file = File::open(path).map_err(|error| format!("cannot read {path}: {error}"))?;
            bounded(&mut file)
        }
    }
}

fn bounded(from: &mut dyn Read) -> Result<Bytes, String> {
    let mut bytes = Vec::new();
    from.take(BODY_BYTES_MAX.saturating_add(1)).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > BODY_BYTES_MAX {
        return Err(format!("the body is larger than {BODY_BYTES_MAX} bytes"));
    }
    Ok(bytes.into())
}

struct Report<'g> {
    /// Method and target as they were given, without credentials.
    asked: String,
    from: std::net::IpAddr,
    gateway: &'g Gateway,
    preview: Preview,
}

impl Report<'_> {
    fn text(&self) -> String {
        let mut text = format!("{} from {}", self.asked, self.from);
        if self.preview.client != self.from {
            let _ = write!(text, ", for the client {}", self.preview.client);
        }
        text.push('\n');
        if let Some(caller) = &self.preview.caller {
            let _ = writeln!(text, "caller {}", described(caller));
        }
        self.write_route(&mut text);
        self.write_filters(&mut text);
        match &self.preview.outcome {
            Outcome::Upstream { name, one_of, request } => {
                let name = if one_of.is_empty() { name.to_string() } else { one_of.join(" or ") };
                let _ = writeln!(text, "upstream {name}, which is sent");
                let _ = writeln!(text, "  {} {}", request.method(), shown_target(request, &self.gateway.hidden));
                fields(request).iter().for_each(|(name, value)| {
                    let _ = writeln!(text, "  {name}: {value}");
                });
                let _ = writeln!(text, "answer, if the upstream says {}", self.preview.response.status.as_u16());
            }
            Outcome::Reply(reply) => {
                let code = reply.code.map(|code| format!(" {}", code.name)).unwrap_or_default();
                let _ = writeln!(text, "answer {}{code}", self.preview.response.status.as_u16());
            }
        }
        fields(&self.preview.response).iter().for_each(|(name, value)| {
            let _ = writeln!(text, "  {name}: {value}");
        });
        if let Some(body) = self.body() {
            let _ = writeln!(text, "\n  {}", body.replace('\n', "\n  "));
        }
        text
    }

    fn write_route(&self, text: &mut String) {
        match &self.preview.route {
            Some(route) => {
                let _ = writeln!(text, "route {} ({})", route.name, self.gateway.sources.locate(route.place));
            }
            None => text.push_str("no route\n"),
        }
        let names = self.preview.considered.iter().map(|considered| self.name(considered.route));
        let width = names.map(|name| name.chars().count()).max().unwrap_or(0);
        for considered in &self.preview.considered {
            let mark = if considered.won { '+' } else { '-' };
            let _ = writeln!(text, "  {mark} {:width$}  {}", self.name(considered.route), considered.why);
        }
    }

    fn write_filters(&self, text: &mut String) {
        if self.preview.route.is_none() {
            return;
        }
        if self.preview.steps.is_empty() {
            text.push_str("no filters\n");
            return;
        }
        text.push_str("filters\n");
        for (index, step) in self.preview.steps.iter().enumerate() {
            let via = step.via.as_ref().map(|via| format!(" via {via}")).unwrap_or_default();
            let place = self.gateway.sources.locate(step.place);
            let _ = writeln!(text, "  {}. {} ({place}{via}): {}", index.saturating_add(1), step.name, verdict(step));
            if let Some(decision) = &step.decision {
                let _ = writeln!(text, "       {}: {}", decision.kind, decision.reason);
            }
            for change in &step.changes {
                let _ = writeln!(text, "       {change}");
            }
        }
        let skipped = self.not_reached();
        if !skipped.is_empty() {
            let _ = writeln!(text, "  not reached: {}", skipped.join(", "));
        }
    }

    /// The filters behind the one that ended the walk.
    fn not_reached(&self) -> Vec<&'static str> {
        let links = self.preview.route.as_ref().map(|route| route.chain.links()).unwrap_or_default();
        links.iter().skip(self.preview.steps.len()).map(|link| link.name).collect()
    }

    fn json(&self) -> Value {
        let considered: Vec<Value> = self.preview.considered.iter().map(|considered| {
            json!({ "route": self.name(considered.route), "won": considered.won, "why": considered.why })
        }).collect();
        let route = self.preview.route.as_ref();
        let route =
            route.map(|route| json!({ "name": &*route.name, "place": self.gateway.sources.locate(route.place) }));
        let (upstream, reply) = match &self.preview.outcome {
            Outcome::Upstream { name, one_of, request } => {
                let request = json!({ "method": request.method().as_str(), "target": shown_target(request, &self.gateway.hidden), "headers": fields(request) });
                let mut upstream = json!({ "name": &**name, "request": request });
                if let Some(upstream) = upstream.as_object_mut().filter(|_| !one_of.is_empty()) {
                    upstream.insert("one_of".to_owned(), one_of.iter().map(|name| &**name).collect());
                }
                (Some(upstream), None)
            }
            Outcome::Reply(reply) => (None, Some(reply)),
        };
        json!({
            "request": self.asked,
            "from": self.from,
            "client": self.preview.client,
            "caller": self.preview.caller.as_deref().map(caller_json),
            "route": route,
            "considered": considered,
            "filters": self.preview.steps.iter().map(|step| self.step_json(step)).collect::<Vec<_>>(),
            "not_reached": self.not_reached(),
            "upstream": upstream,
            "response": {
                "status": self.preview.response.status.as_u16(),
                "code": reply.and_then(|reply| reply.code).map(|code| code.name),
                "headers": fields(&self.preview.response),
                "body": self.body(),
            },
        })
    }

    fn step_json(&self, step: &StepReport) -> Value {
        let (verdict, status, code) = match step.verdict {
            StepVerdict::Continue => ("continue", None, None),
            StepVerdict::Replied(status) => ("reply", Some(status.as_u16()), None),
            StepVerdict::Rejected(code, status) => ("reject", Some(status.as_u16()), Some(code.name)),
        };
        json!({
            "name": step.name,
            "place": self.gateway.sources.locate(step.place),
            "via": step.via.as_deref(),
            "response_only": step.response_only,
            "verdict": verdict,
            "status": status,
            "code": code,
            "credential": step.decision.map(|decision| decision.kind),
            "reason": step.decision.map(|decision| decision.reason),
            "changes": step.changes.iter().map(Change::to_string).collect::<Vec<_>>(),
        })
    }

    fn name(&self, route: usize) -> &str {
        self.gateway.routes().get(route).map_or("", |route| &route.name)
    }

    /// The body of an answer of our own, shortened.
    fn body(&self) -> Option<String> {
        let Outcome::Reply(reply) = &self.preview.outcome else { return None };
        let text = std::str::from_utf8(&reply.body).ok().filter(|text| !text.is_empty())?;
        let mut body: String = text.chars().take(BODY_CHARS_MAX).collect();
        if body.len() < text.len() {
            body.push('…');
        }
        Some(body)
    }
}

/// Who calls, in one line.
fn described(caller: &Caller) -> String {
    let mut text = format!("{} by {}", line(&caller.name), caller.credential.kind());
    if let Some(id) = caller.credential.id() {
        let _ = write!(text, " {}", line(id));
    }
    let _ = write!(text, ", level {}", caller.level.as_str());
    if !caller.roles.is_empty() {
        let _ = write!(text, ", roles {}", line(&caller.roles.join(", ")));
    }
    let scopes = caller.scopes.to_string();
    if !scopes.is_empty() {
        let _ = write!(text, ", scopes {}", line(&scopes));
    }
    text
}

fn caller_json(caller: &Caller) -> Value {
    json!({
        "name": &*caller.name,
        "credential": caller.credential.kind(),
        "credential_id": caller.credential.id(),
        "level": caller.level.as_str(),
        "roles": caller.roles,
        "scopes": caller.scopes.iter().collect::<Vec<_>>(),
    })
}

/// Text of a token, made fit for a terminal.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn verdict(step: &StepReport) -> String {
    match step.verdict {
        StepVerdict::Continue if step.response_only => "acts on the answer only".to_owned(),
        StepVerdict::Continue => "lets it go on".to_owned(),
        StepVerdict::Replied(status) => format!("answers {}", status.as_u16()),
        StepVerdict::Rejected(code, status) => format!("refuses it: {} {}", status.as_u16(), code.name),
    }
}

/// The fields of a head, sorted by name; credentials are hidden.
fn fields(head: &dyn Headers) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    head.all(&mut |name, value| fields.push((name.to_owned(), shown(name, value))));
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    fields
}
