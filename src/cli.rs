//! The command line: one file for each subcommand.
//!
//! Exit codes: 0 success, 1 tests failed, or the gateway is not ready or refuses, 2 wrong usage, 64 a mistake in the configuration.

mod ask;
mod check;
mod explain;
mod health;
mod inbox;
mod key;
mod limits;
mod plugin;
pub mod run;
mod schema;
mod table;
mod test;
mod token;
mod user;
mod webhook;

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;
use clap::{Args, Parser, Subcommand};

use crate::config::load::{Environment, Overrides, load};
use crate::gateway::preview::{Ask, CLIENT};
use crate::gateway::{Gateway, Services, compile};
use crate::identity::Person;
use crate::observe::metrics::Metrics;
use crate::types::Period;
use crate::yaml::{Problem, Sources};

use ask::{ask as ask_admin, path as path_of};
pub use schema::{fragment_schema, root_schema};
use table::Table;

/// Tests failed, or the gateway is not ready.
const EXIT_FAILED: u8 = 1;
/// The configuration is wrong (`EX_USAGE` of sysexits.h, as nginx's and others' checks use it).
pub const EXIT_CONFIGURATION: u8 = 64;

/// The front door for existing services: routes and filters from YAML, reloaded while it runs.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the gateway.
    Run(ConfigFile),
    /// Reads the configuration and reports every mistake in it.
    Check {
        #[command(flatten)]
        config: ConfigFile,
        /// For machines: one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Runs the `tests:` of the configuration, without network.
    Test(ConfigFile),
    /// Shows what becomes of a request, without network: the route, each filter, the upstream.
    Explain(Explain),
    /// Prints the JSON Schema of the configuration, for editors.
    Schema {
        /// Of an included file instead of gateway.yaml.
        #[arg(long)]
        fragment: bool,
    },
    /// Makes and hashes API keys.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Tokens of a token service.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Users that log in with a password.
    #[command(subcommand)]
    User(UserCommand),
    /// Asks a running gateway whether it is ready: exit status 0 or 1.
    Health {
        /// The admin address.
        #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9900")]
        admin: SocketAddr,
    },
    /// Live figures of a running gateway: its limits, who has used most of one, and to give it back.
    Limits(limits::LimitsCommand),
    /// Messages in the inboxes of a running gateway: to look at, to deliver again, to remove.
    Inbox(inbox::InboxCommand),
    /// Webhooks as their providers send them.
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
    /// WebAssembly that speaks proxy-wasm.
    #[command(subcommand)]
    Plugin(PluginCommand),
}

#[derive(Debug, Subcommand)]
enum PluginCommand {
    /// Says what a plugin is and needs, and whether it starts here: exit status 0 or 64.
    Check {
        #[arg(value_name = "FILE.wasm")]
        file: PathBuf,
        /// What it is configured with, byte for byte: a text, or @FILE, or @- for what comes in.
        #[arg(long, value_name = "TEXT", default_value = "", value_parser = explain::body)]
        config: Bytes,
        /// For machines: one JSON object.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Prints an access token, signed with the key of a token service.
    Mint(Mint),
}

#[derive(Debug, Args)]
struct Mint {
    #[command(flatten)]
    config: ConfigFile,
    /// The token service; not needed where there is one only.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Whom the token speaks for.
    #[arg(long, value_name = "NAME")]
    subject: String,
    /// Roles, separated by commas.
    #[arg(long, value_name = "ROLES", value_delimiter = ',')]
    roles: Vec<String>,
    /// Scopes beside those of the roles, separated by commas.
    #[arg(long, value_name = "SCOPES", value_delimiter = ',')]
    scopes: Vec<String>,
    /// How long it is good: 1h, 30d. Default: as long as the tokens of the service.
    #[arg(long, value_name = "PERIOD")]
    expires: Option<Period>,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Reads a password from standard input and prints its hash, as YAML to paste.
    Hash {
        /// The name to print with it.
        #[arg(long, value_name = "NAME", default_value = "NAME")]
        name: String,
    },
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration.
    #[arg(long = "config", short, value_name = "PATH", default_value = "gateway.yaml", env = "TOLLGATE_CONFIG")]
    path: PathBuf,
}

#[derive(Debug, Args)]
struct Explain {
    #[command(flatten)]
    config: ConfigFile,
    /// A method and a path: "GET /api/v1/tasks?limit=5".
    #[arg(value_name = "REQUEST", value_parser = request)]
    request: Ask,
    /// A header field of the request; may be given again.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// The body, byte for byte: a text, or @FILE, or @- for what comes in.
    #[arg(long, short = 'd', value_name = "TEXT", value_parser = explain::body)]
    data: Option<Bytes>,
    /// The address the request comes from.
    #[arg(long, value_name = "ADDRESS", default_value_t = CLIENT)]
    from: IpAddr,
    /// For machines: one JSON object.
    #[arg(long)]
    json: bool,
}

/// Does what the command line says.
pub fn dispatch(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Run(config) => run::run(&config.path),
        Command::Check { config, json } => check::check(&config.path, json),
        Command::Test(config) => test::test(&config.path),
        Command::Explain(explain) => explain::explain(explain),
        Command::Schema { fragment } => schema::schema(fragment),
        Command::Key(command) => key::key(command),
        Command::Token(TokenCommand::Mint(Mint { config, service, subject, roles, scopes, expires })) => {
            let person = Person { name: subject, roles, scopes };
            token::mint(token::Mint { service, person, lifetime: expires, config: &config.path })
        }
        Command::User(UserCommand::Hash { name }) => user::hash(&name),
        Command::Health { admin } => health::health(admin),
        Command::Limits(command) => limits::limits(&command),
        Command::Inbox(command) => inbox::inbox(&command),
        Command::Webhook(command) => webhook::webhook(&command),
        Command::Plugin(PluginCommand::Check { file, config, json }) => plugin::check(&file, &config, json),
    }
}

fn request(text: &str) -> Result<Ask, String> {
    Ask::parse(text, CLIENT)
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write NAME: VALUE")?;
    let header = (name.trim().to_owned(), value.trim().to_owned());
    // Only to see whether it is one.
    Ask::parse("GET /", CLIENT)?.add(&header.0, &header.1)?;
    Ok(header)
}

/// A configuration that was read and compiled as `run` would.
struct Checked {
    gateway: Gateway,
    /// Named chains.
    chains: usize,
    files: usize,
}

/// Why there is none.
struct Broken {
    sources: Sources,
    problems: Vec<Problem>,
}

/// `overrides` are texts to take in place of what files hold.
fn load_and_compile(path: &Path, overrides: &Overrides) -> Result<Checked, Broken> {
    let loaded = load(path, &Environment::Process, overrides);
    let config = match loaded.config {
        Ok(config) => config,
        Err(problems) => return Err(Broken { sources: loaded.sources, problems }),
    };
    let files = loaded.files.len();
    let fragments = config.fragments.iter().map(|fragment| fragment.chains.len());
    let chains = fragments.sum::<usize>().saturating_add(config.root.chains.len());
    let series_max = usize::try_from(config.root.metrics.series_max).unwrap_or(usize::MAX);
    let services = Services::new(Metrics::new(series_max));
    match compile(&config, loaded.sources, loaded.hash, None, &services) {
        Ok(gateway) => Ok(Checked { gateway, chains, files }),
        Err((sources, problems)) => Err(Broken { sources, problems }),
    }
}

impl Broken {
    /// Every problem, then how many there are.
    fn render(&self) -> String {
        let mut text = String::new();
        for problem in &self.problems {
            text.push_str(&self.sources.render(problem));
            text.push_str("\n\n");
        }
        text.push_str(&count(self.problems.len(), "problem"));
        text.push('\n');
        text
    }

    /// Tells the user and gives the exit code.
    fn report(&self) -> ExitCode {
        complain(&self.render());
        ExitCode::from(EXIT_CONFIGURATION)
    }
}

/// `1 route`, `2 routes`.
fn count(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// The name of a configuration as messages show it.
fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Writes to standard output. Whoever closed it does not want the rest: that is no failure.
fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// Writes to standard error.
fn complain(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
