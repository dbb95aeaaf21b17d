//! `tollgate limits`: live figures of the limits of a running gateway, asked at its admin address.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{Broken, EXIT_CONFIGURATION, EXIT_FAILED, Table, ask_admin, complain, count, file_name, path_of, print};
use crate::admin::limits::{All, Figures, LimitShown, One, Reset, Top, Use};
use crate::config::load::{Environment, Overrides, load};

#[derive(Debug, Args)]
pub struct LimitsCommand {
    #[command(subcommand)]
    command: Option<Command>,
    /// The admin address of the gateway. Default: `admin.bind` of the configuration.
    #[arg(long, value_name = "ADDRESS", global = true)]
    admin: Option<SocketAddr>,
    /// The configuration that says where the admin address is, if nothing else does.
    #[arg(long, short, value_name = "PATH", default_value = "gateway.yaml", env = "TOLLGATE_CONFIG", global = true)]
    config: PathBuf,
    /// Which one, where filters of two kinds have one bucket name: rate_limit, quota, concurrency.
    #[arg(long, value_name = "FILTER", global = true)]
    kind: Option<String>,
    /// For machines: what the admin address answers.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Who has used the largest share of a limit.
    Top {
        /// As `tollgate limits` lists it.
        bucket: String,
        /// How many callers, at most 1000.
        #[arg(long, short = 'n', value_name = "NUMBER", default_value = "20")]
        count: usize,
    },
    /// How it stands with one caller.
    Show {
        /// As `tollgate limits` lists it.
        bucket: String,
        /// As `tollgate limits top` lists it: consumer=dashboard, ip=192.0.2.7.
        who: String,
    },
    /// Gives one caller back what it has used.
    Reset {
        /// As `tollgate limits` lists it.
        bucket: String,
        /// As `tollgate limits top` lists it: consumer=dashboard, ip=192.0.2.7.
        who: String,
    },
}

pub fn limits(command: &LimitsCommand) -> ExitCode {
    let admin = match command.admin.map_or_else(|| configured(&command.config), Ok) {
        Ok(admin) => admin,
        Err(message) => {
            complain(&message);
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    match run(command, admin) {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(message) => {
            complain(&format!("tollgate limits: {message}\n"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// The admin address that a configuration says.
fn configured(path: &Path) -> Result<SocketAddr, String> {
    let loaded = load(path, &Environment::Process, &Overrides::new());
    let hint = "or say where the gateway listens: --admin 127.0.0.1:9900\n";
    let config = match loaded.config {
        Ok(config) => config,
        Err(problems) => {
            let broken = Broken { sources: loaded.sources, problems };
            return Err(format!("{}mend it, {hint}", broken.render()));
        }
    };
    let file = file_name(path);
    let Some(admin) = &config.root.admin else {
        return Err(format!("{file} has no `admin`: add `admin: {{ bind: 127.0.0.1:9900 }}`, {hint}"));
    };
    let mut admin = admin.bind.value.0;
    if admin.port() == 0 {
        return Err(format!(
            "`admin` of {file} has port 0, which becomes another one at each start: choose one, {hint}"
        ));
    }
    // One that listens everywhere also does here.
    match admin.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => admin.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => admin.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    Ok(admin)
}

fn run(command: &LimitsCommand, admin: SocketAddr) -> Result<String, String> {
    let kind = command.kind.as_deref();
    let get = |path: String| ask_admin(admin, "GET", &path);
    let answer = match &command.command {
        None => get("/limits".to_owned())?,
        Some(Command::Top { bucket, count }) => {
            let count = count.to_string();
            get(path_of("/limits", &[bucket], &[("kind", kind), ("top", Some(&count))]))?
        }
        Some(Command::Show { bucket, who }) => {
            get(path_of("/limits", &[bucket], &[("who", Some(who)), ("kind", kind)]))?
        }
        Some(Command::Reset { bucket, who }) => {
            let path = path_of("/limits", &[bucket], &[("who", Some(who)), ("kind", kind)]);
            ask_admin(admin, "DELETE", &path)?
        }
    };
    if command.json {
        return Ok(answer.body + "\n");
    }
    match &command.command {
        None => Ok(all(&answer.read()?, kind)),
        Some(Command::Top { .. }) => Ok(top(&answer.read()?)),
        Some(Command::Show { .. }) => Ok(one(&answer.read()?)),
        Some(Command::Reset { .. }) => Ok(reset(&answer.read()?)),
    }
}

fn all(all: &All, kind: Option<&str>) -> String {
    let wanted: Vec<&LimitShown> =
        all.limits.iter().filter(|limit| kind.is_none_or(|kind| limit.kind == kind)).collect();
    if wanted.is_empty() {
        return "no route has a limit\n".to_owned();
    }
    let mut table = Table::new(&["BUCKET", "KIND", "LIMIT", "PER", "MODE", "COUNTED", "CALLERS", "ROUTES", "PLACE"]);
    for limit in wanted {
        table.row([
            limit.bucket.clone(),
            limit.kind.clone(),
            terms(limit),
            limit.per.clone().unwrap_or_else(|| "-".to_owned()),
            joined(limit.uses.iter().map(|used| used.mode.as_str()), limit.uses.len()),
            if limit.shared { "shared" } else { "here" }.to_owned(),
            limit.callers.map_or_else(|| "-".to_owned(), |callers| callers.to_string()),
            routes(&limit.uses),
            joined(limit.uses.iter().map(|used| used.place.as_str()), limit.uses_total),
        ]);
    }
    let mut text = table.to_string();
    let left = all.total.saturating_sub(all.limits.len());
    if left > 0 {
        // Writing to a string does not fail.
        let _ = writeln!(text, "and {left} more");
    }
    text
}

/// How much it allows, with what each of its filters says beside.
fn terms(limit: &LimitShown) -> String {
    let details: Vec<&str> = limit.uses.iter().filter_map(|used| used.detail.as_deref()).collect();
    if details.is_empty() { limit.terms.clone() } else { format!("{} ({})", limit.terms, joined(details, 0)) }
}

fn routes(uses: &[Use]) -> String {
    let total = uses.iter().map(|used| used.routes_total).sum();
    joined(uses.iter().flat_map(|used| used.routes.iter().map(String::as_str)), total)
}

/// The first different ones, and how many more there are. A total that is smaller says nothing.
fn joined<'a>(parts: impl IntoIterator<Item = &'a str>, total: usize) -> String {
    const SHOWN: usize = 3;
    let mut different: Vec<&str> = Vec::new();
    let mut repeated: usize = 0;
    for part in parts {
        if different.contains(&part) {
            repeated = repeated.saturating_add(1);
        } else {
            different.push(part);
        }
    }
    let more = total.saturating_sub(repeated).max(different.len()).saturating_sub(SHOWN);
    different.truncate(SHOWN);
    let shown = different.join(", ");
    if more > 0 { format!("{shown} +{more}") } else { shown }
}

fn top(top: &Top) -> String {
    let limit = &top.limit;
    let per = limit.per.as_ref().map(|per| format!(" per {per}")).unwrap_or_default();
    let mut text = format!("{} {}: {}{per}\n", limit.kind, limit.bucket, limit.terms);
    if top.top.is_empty() {
        text.push_str("nothing of it is in use\n");
    } else {
        text.push_str(&figures(&top.top));
        text.push_str(&count(top.top.len(), "caller"));
        text.push('\n');
    }
    text
}

fn one(one: &One) -> String {
    match &one.figures {
        Some(found) => figures(std::slice::from_ref(found)),
        None => format!(
            "{} has nothing of {} in use; `tollgate limits top {}` lists who has\n",
            named(&one.who),
            one.bucket,
            one.bucket
        ),
    }
}

fn reset(reset: &Reset) -> String {
    let what = if reset.was_in_use { "was given back what it had used" } else { "had nothing in use" };
    format!("{} {what} of {}\n", named(&reset.who), reset.bucket)
}

fn figures(list: &[Figures]) -> String {
    let mut table = match list.first() {
        Some(Figures::Rates { .. }) => Table::new(&["WHO", "RATE", "USED", "LEFT", "LIMIT", "FULL IN", "FULL AT"]),
        Some(Figures::Quota { .. }) => Table::new(&["WHO", "USED", "LEFT", "LIMIT", "ENDS"]),
        Some(Figures::InFlight { .. }) | None => Table::new(&["WHO", "IN FLIGHT", "MAX", "WAITING"]),
    };
    for figures in list {
        match figures {
            Figures::Rates { who, rates, full_at } => {
                for (index, rate) in rates.iter().enumerate() {
                    let first = index == 0;
                    let full_at = full_at.as_deref().filter(|_| first).unwrap_or_default();
                    table.row([
                        if first { named(who) } else { String::new() },
                        rate.rate.clone(),
                        rate.used.to_string(),
                        rate.remaining.to_string(),
                        rate.limit.to_string(),
                        format!("{} s", rate.full_in_seconds.ceil()),
                        full_at.to_owned(),
                    ]);
                }
            }
            Figures::Quota { who, limit, used, remaining, ends } => {
                table.row([named(who), used.to_string(), remaining.to_string(), limit.to_string(), ends.clone()]);
            }
            Figures::InFlight { who, max, in_flight, waiting } => {
                table.row([named(who), in_flight.to_string(), max.to_string(), waiting.to_string()]);
            }
        }
    }
    table.to_string()
}

/// Where all share one count there is no name.
fn named(who: &str) -> String {
    if who.is_empty() { "(all)".to_owned() } else { who.to_owned() }
}

#[cfg(test)]
mod tests;
