//! `tollgate inbox`: messages in the inboxes of a running gateway, asked at its admin address.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{EXIT_FAILED, Table, ask_admin, complain, count, path_of, print};
use crate::admin::inboxes::{All, Changed, InboxShown, MessageShown, One, Page, Several};

/// Where inboxes are at the admin address.
const INBOXES: &str = "/inboxes";
/// As much of a body as the admin address gives.
const BODY_MAX: &str = "4MiB";

#[derive(Debug, Args)]
pub struct InboxCommand {
    #[command(subcommand)]
    command: Command,
    /// The admin address of the gateway.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9900", global = true)]
    admin: SocketAddr,
    /// For machines: what the admin address answers.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What all inboxes hold, or the messages of one.
    List {
        /// The inbox.
        name: Option<String>,
        #[command(flatten)]
        which: Which,
    },
    /// One message; credentials in its fields are not shown.
    Show {
        /// The inbox.
        name: String,
        /// As `tollgate inbox list` shows it, or the `X-Message-Id` of the acknowledgement.
        id: String,
        /// With its body, up to 4MiB; base64 where it is no text.
        #[arg(long)]
        body: bool,
    },
    /// Delivers a message again that is dead, or that waits for another attempt.
    Replay(Chosen),
    /// Removes a message for good.
    Drop(Chosen),
}

/// Which messages of an inbox are listed.
#[derive(Debug, Args)]
struct Which {
    /// Only messages that were given up: short for `--standing dead`.
    #[arg(long, requires = "name", conflicts_with = "standing")]
    dead: bool,
    /// Only messages that stand so.
    #[arg(long, requires = "name", value_name = "STANDING", value_parser = ["ready", "delayed", "claimed", "dead"])]
    standing: Option<String>,
    /// How many, at most 1000.
    #[arg(long, requires = "name", value_name = "NUMBER", default_value = "100", value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Only messages that were stored behind this one.
    #[arg(long, requires = "name", value_name = "ID")]
    after: Option<String>,
}

/// Which messages of an inbox are changed.
#[derive(Debug, Args)]
struct Chosen {
    /// The inbox.
    name: String,
    /// As `tollgate inbox list` shows it.
    #[arg(required_unless_present = "dead", conflicts_with = "dead")]
    id: Option<String>,
    /// All that are dead.
    #[arg(long)]
    dead: bool,
}

pub fn inbox(command: &InboxCommand) -> ExitCode {
    let (admin, json) = (command.admin, command.json);
    let done = match &command.command {
        Command::List { name: None, .. } => list_all(admin, json),
        Command::List { name: Some(name), which } => list(admin, name, which, json),
        Command::Show { name, id, body } => show(admin, name, id, *body, json),
        Command::Replay(chosen) => change(admin, "POST", chosen, json),
        Command::Drop(chosen) => change(admin, "DELETE", chosen, json),
    };
    match done {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(message) => {
            complain(&format!("tollgate inbox: {message}\n"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn list_all(admin: SocketAddr, json: bool) -> Result<String, String> {
    let answer = ask_admin(admin, "GET", INBOXES)?;
    if json {
        return Ok(answer.body + "\n");
    }
    Ok(all(&answer.read()?))
}

fn all(all: &All) -> String {
    let mut table = inboxes();
    all.inboxes.iter().for_each(|inbox| inbox_row(&mut table, inbox));
    let mut text = table.to_string();
    let more = all.total.saturating_sub(all.inboxes.len());
    if more > 0 {
        let _ = writeln!(text, "and {more} more");
    }
    text
}

fn inboxes() -> Table {
    Table::new(&["inbox", "ready", "delayed", "claimed", "dead", "oldest", "bytes", "delivered"])
}

fn inbox_row(table: &mut Table, inbox: &InboxShown) {
    table.row([
        inbox.inbox.clone(),
        inbox.ready.to_string(),
        inbox.delayed.to_string(),
        inbox.claimed.to_string(),
        inbox.dead.to_string(),
        inbox.oldest_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds} s")),
        inbox.bytes.to_string(),
        match (inbox.configured, inbox.paused) {
            (false, _) => "no: the configuration has no such inbox",
            (true, Some(true)) => "paused: the service is away",
            (true, _) => "yes",
        }
        .to_owned(),
    ]);
}

fn list(admin: SocketAddr, name: &str, which: &Which, json: bool) -> Result<String, String> {
    let standing = if which.dead { Some("dead") } else { which.standing.as_deref() };
    let limit = which.limit.to_string();
    let query = [("standing", standing), ("after", which.after.as_deref()), ("limit", Some(&*limit))];
    let answer = ask_admin(admin, "GET", &path_of(INBOXES, &[name], &query))?;
    if json {
        return Ok(answer.body + "\n");
    }
    Ok(page(&answer.read()?, standing))
}

fn page(page: &Page, standing: Option<&str>) -> String {
    if page.messages.is_empty() {
        let standing = standing.map(|standing| format!(" {standing}")).unwrap_or_default();
        return format!("{} has no{standing} messages\n", visible(&page.inbox.inbox));
    }
    let mut table = Table::new(&["id", "standing", "attempts", "received", "due", "request", "why"]);
    for message in &page.messages {
        table.row([
            message.id.clone(),
            standing_of(message),
            message.attempts.to_string(),
            message.received.clone(),
            message.due.clone().unwrap_or_else(|| "-".to_owned()),
            format!("{} {}", message.method, message.target),
            message.why.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    let mut text = table.to_string() + &count(page.messages.len(), "message") + "\n";
    if let Some(next) = &page.next {
        let _ = writeln!(text, "there may be more: --after {}", visible(next));
    }
    text
}

/// As the admin address writes it.
fn standing_of(message: &MessageShown) -> String {
    match json!(message.standing) {
        serde_json::Value::String(standing) => standing,
        _ => String::new(),
    }
}

fn show(admin: SocketAddr, name: &str, id: &str, body: bool, json: bool) -> Result<String, String> {
    let body_max = if body { BODY_MAX } else { "0" };
    let answer = ask_admin(admin, "GET", &path_of(INBOXES, &[name, id], &[("body_max", Some(body_max))]))?;
    if json {
        return Ok(answer.body + "\n");
    }
    Ok(one(&answer.read()?, body))
}

/// What is known of a message, then its head as it was received, then its body.
fn one(one: &One, with_body: bool) -> String {
    let message = &one.message;
    let mut text = String::new();
    let lines = [
        ("id", Some(message.id.clone())),
        ("standing", Some(standing_of(message))),
        ("attempts", Some(message.attempts.to_string())),
        ("due", message.due.clone()),
        ("why", message.why.clone()),
        ("received", Some(message.received.clone())),
        ("delivery", Some(message.delivery.clone())),
        ("route", Some(message.route.clone())),
        ("provider", message.provider.clone()),
        ("order", message.order.clone()),
        ("request id", Some(message.request_id.clone())),
        ("body", Some(format!("{} B", one.body_bytes))),
    ];
    for (name, value) in lines {
        if let Some(value) = value {
            let _ = writeln!(text, "{name:<12}{}", visible(&value));
        }
    }
    let _ = writeln!(text, "\n{} {}", visible(&message.method), visible(&message.target));
    for field in &one.fields {
        let _ = writeln!(text, "{}: {}", visible(&field.name), visible(&field.value));
    }
    if with_body {
        let what = if one.body_encoding == "text" { "" } else { "in base64:\n" };
        // The gateway gives text without anything that moves a cursor.
        let _ = writeln!(text, "\n{what}{}", one.body);
        if one.body_cut {
            let _ = writeln!(text, "… {} B in all", one.body_bytes);
        }
    }
    text
}

fn change(admin: SocketAddr, method: &str, chosen: &Chosen, json: bool) -> Result<String, String> {
    let end: &[&str] = if method == "POST" { &["replay"] } else { &[] };
    if let Some(id) = &chosen.id {
        let path = path_of(INBOXES, &[&[&*chosen.name, &**id], end].concat(), &[]);
        let answer = ask_admin(admin, method, &path)?;
        if json {
            return Ok(answer.body + "\n");
        }
        let changed: Changed = answer.read()?;
        return Ok(format!("{} of {} was {}\n", visible(&changed.id), visible(&changed.inbox), changed.result));
    }
    let several = change_dead(admin, method, &[&[&*chosen.name], end].concat())?;
    if json {
        return Ok(json!(several).to_string() + "\n");
    }
    let were = if several.count == 1 { "was" } else { "were" };
    let mut text = format!("{} of {} {were} {}", count(several.count, "message"), several.inbox, several.result);
    if several.left > 0 {
        let _ = write!(text, "; {} had changed meanwhile", several.left);
    }
    Ok(text + "\n")
}

/// Page by page, each from behind the one before: what dies again meanwhile is not replayed again.
fn change_dead(admin: SocketAddr, method: &str, parts: &[&str]) -> Result<Several, String> {
    let ask = |after: Option<&str>| {
        let path = path_of(INBOXES, parts, &[("standing", Some("dead")), ("after", after)]);
        ask_admin(admin, method, &path)?.read::<Several>()
    };
    let mut sum = ask(None)?;
    while let Some(after) = sum.next.take() {
        let more = ask(Some(&after)).map_err(|error| format!("{error}; {} were {} before", sum.count, sum.result))?;
        sum.count = sum.count.saturating_add(more.count);
        sum.left = sum.left.saturating_add(more.left);
        sum.next = more.next.filter(|next| *next > after);
    }
    Ok(sum)
}

/// What came from a client may hold what moves the cursor of a terminal.
fn visible(text: &str) -> String {
    text.replace(|letter: char| letter.is_control(), "?")
}

#[cfg(test)]
mod tests;
