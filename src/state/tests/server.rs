//! A real redis-server for tests, which ends with the process that started it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::state::redis::{Redis, Settings};
use crate::yaml::{Kind, Node, Problem, Sources, parse};

/// Starts the server, says its id, and ends it when nobody holds the pipe any more: a test that is killed leaves nothing behind.
const KEEPER: &str = r#"
    redis-server "$@" >/dev/null 2>&1 &
    server=$!
    echo $server
    cat >/dev/null
    kill -9 $server 2>/dev/null
    rm -rf "$TOLLGATE_TEST_FOLDER"
"#;
const MISSING: &str = "redis-server is not installed: `make test` installs it, or `apt-get install redis-server`";
/// How long anything here may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A server of its own folder.
pub struct Server {
    folder: PathBuf,
    arguments: Vec<String>,
    running: Option<(Child, u32)>,
}

/// The one server that tests share which do it no harm; each has its own prefix.
pub fn shared() -> &'static Server {
    static SHARED: OnceLock<Server> = OnceLock::new();
    SHARED.get_or_init(|| Server::start(&[]))
}

/// Waits for the connections of a store.
pub fn up(redis: Redis) -> Redis {
    let waited = std::thread::scope(|scope| {
        let wait = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                redis.ready(PATIENCE).await && {
                    // The connection for all else may come a moment later.
                    let mut store = crate::state::Store::get(&redis, crate::state::Space("test"), "").await;
                    while store.is_err() {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                        store = crate::state::Store::get(&redis, crate::state::Space("test"), "").await;
                    }
                    true
                }
            })
        };
        scope.spawn(wait).join().unwrap()
    });
    assert!(waited, "no connection");
    redis
}

/// Settings as they stand in a configuration.
pub fn settings(yaml: &str) -> Settings {
    try_settings(yaml, Path::new("")).unwrap_or_else(|problems| panic!("{problems}"))
}

pub fn try_settings(yaml: &str, base: &Path) -> Result<Settings, String> {
    let mut sources = Sources::new();
    let file = sources.add("gateway.yaml", yaml);
    let node: Node = parse(&sources, file).unwrap();
    assert!(!matches!(node.kind, Kind::Null));
    let mut problems: Vec<Problem> = Vec::new();
    let settings = Settings::compile(&node, base, &mut problems);
    let rendered: Vec<String> = problems.iter().map(|problem| sources.render(problem)).collect();
    assert_eq!(settings.is_none(), !rendered.is_empty());
    settings.ok_or(rendered.join("\n"))
}

impl Server {
    pub fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap().keep();
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut server = Self { folder, arguments, running: None };
        server.run();
        server
    }

    /// One that a test may harm.
    pub fn own() -> Self {
        Self::start(&["--databases", "16"])
    }

    /// Starts it again, empty.
    pub fn run(&mut self) {
        let socket = self.socket();
        let _ = std::fs::remove_file(&socket);
        let found = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
        assert!(found.is_ok_and(|status| status.success()), "{MISSING}");
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "sh", "--save", "", "--appendonly", "no", "--dir"]).arg(&self.folder);
        keeper.arg("--unixsocket").arg(&socket);
        if !self.arguments.iter().any(|argument| argument == "--port") {
            keeper.args(["--port", "0"]);
        }
        keeper.args(&self.arguments).env("TOLLGATE_TEST_FOLDER", "").stdin(Stdio::piped()).stdout(Stdio::piped());
        if self.is_shared() {
            keeper.env("TOLLGATE_TEST_FOLDER", &self.folder);
        }
        let mut keeper = keeper.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.running = Some((keeper, line.trim().parse().unwrap()));
        self.answers();
    }

    /// What is shared is never dropped.
    fn is_shared(&self) -> bool {
        self.arguments.is_empty()
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("redis.sock")
    }

    /// Waits until it takes connections.
    fn answers(&self) {
        let began = crate::clock::now();
        while std::os::unix::net::UnixStream::connect(self.socket()).is_err() {
            assert!(crate::clock::now().duration_since(began) < PATIENCE, "redis-server does not start");
            std::thread::yield_now();
        }
    }

    /// `kill -SIGNAL`
    pub fn signal(&self, signal: &str) {
        let id = self.running.as_ref().unwrap().1;
        assert!(Command::new("kill").args([signal, &id.to_string()]).status().unwrap().success());
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        let Some((mut keeper, id)) = self.running.take() else { return };
        let _ = Command::new("kill").args(["-9", &id.to_string()]).stderr(Stdio::null()).status();
        drop(keeper.stdin.take());
        let _ = keeper.wait();
    }

    /// A connection for what gateways do not do.
    pub fn raw(&self) -> redis::Connection {
        redis::Client::open(format!("unix://{}", self.socket().display())).unwrap().get_connection().unwrap()
    }

    /// What stands in `state: { redis: … }`, with a prefix that nobody else has.
    pub fn yaml(&self, more: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        format!("{{ url: \"unix://{}\", prefix: \"t{number}:\", {more} }}", self.socket().display())
    }

    pub fn settings(&self) -> Settings {
        // A machine that builds something beside the tests is slow.
        settings(&self.yaml("timeout: 5s"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
