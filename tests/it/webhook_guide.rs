//! Every block of the first part of `docs/webhooks.md`, in its order: what is typed is typed, and what is said to come out has to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use regex::Regex;

use crate::harness::{Folder, PATIENCE, Upstream, answer};

/// Ends the output of a block.
const END: &str = "---- end of block ----";

struct Block {
    line: usize,
    kind: String,
    text: String,
}

/// The blocks of the page before its second part.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in page.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(kind)) => {
                open = Some(Block { line: index + 2, kind: kind.to_owned(), text: String::new() });
            }
            (Some(_), Some("")) => blocks.extend(open.take()),
            (Some(block), _) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) if line.starts_with("## 2.") => break,
            (None, None) => {}
        }
    }
    blocks
}

/// A shell that is told one block after the other.
struct Shell {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Shell {
    fn open(folder: &Path) -> Self {
        let binary = Path::new(env!("CARGO_BIN_EXE_tollgate")).parent().unwrap();
        let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
        let mut process = Command::new("bash")
            .current_dir(folder)
            .env("PATH", path)
            .env_remove("TOLLGATE_CONFIG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, input, output }
    }

    /// What the commands print.
    fn run(&mut self, commands: &str) -> String {
        writeln!(self.input, "{commands}\necho '{END}'").unwrap();
        let mut printed = String::new();
        loop {
            let begin = printed.len();
            assert!(self.output.read_line(&mut printed).unwrap() > 0, "the shell ended: {printed}");
            // What a service answers need not end with a line break.
            if let Some(rest) = printed[begin..].trim_end().strip_suffix(END).map(str::len) {
                printed.truncate(begin + rest);
                if rest > 0 {
                    printed.push('\n');
                }
                return printed;
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.input.write_all(b"kill $(jobs -p) 2>/dev/null; wait; exit\n");
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guide_does_what_it_says() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/webhooks.md")).unwrap();
    let service = Upstream::scripted(|mut conn| async move {
        while conn.request().await.is_some() {
            conn.send(answer(200, b"")).await;
        }
    })
    .await;
    let (gateway, admin) = (free_address(), free_address());
    let places = [
        ("127.0.0.1:8000", gateway.to_string()),
        ("127.0.0.1:9900", admin.to_string()),
        ("127.0.0.1:9101", service.address.to_string()),
    ];
    let folder = Folder::with(&[]);
    let root = folder.path("gateway.yaml").parent().unwrap().to_owned();
    let ran = tokio::task::spawn_blocking(move || run(&page, &places, &root, admin));
    ran.await.unwrap();
    let delivered = service.requests();
    let bodies: Vec<&str> = delivered.iter().map(|request| std::str::from_utf8(&request.body).unwrap()).collect();
    assert_eq!(bodies.len(), 2, "{bodies:?}");
    assert!(bodies[0].contains("acme/billing") && bodies[1].contains("evt_1"), "{bodies:?}");
}

fn run(page: &str, places: &[(&str, String)], folder: &Path, admin: SocketAddr) {
    let placed = |text: &str| places.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    let blocks = blocks(page);
    let mut shell = Shell::open(folder);
    let mut printed: Option<(usize, String)> = None;
    let mut shells = 0;
    for block in &blocks {
        match block.kind.as_str() {
            "yaml" => std::fs::write(folder.join("gateway.yaml"), placed(&block.text)).unwrap(),
            "sh" => {
                assert!(printed.as_ref().is_none_or(|(_, text)| text.is_empty()), "{printed:?} is not in the guide");
                // What the commands of the guide find at its own addresses they are to find at these.
                let commands = block.text.replace("tollgate inbox", &format!("tollgate inbox --admin {admin}"));
                printed = Some((block.line, shell.run(&placed(&commands))));
                shells += 1;
                if block.text.contains("tollgate run") {
                    let health = format!("until tollgate health --admin {admin} >/dev/null 2>&1; do sleep 0.05; done");
                    shell.run(&format!("timeout {} bash -c '{health}'", PATIENCE.as_secs()));
                }
            }
            "text" => {
                let (line, text) = printed.take().unwrap();
                let pattern = regex::escape(&block.text).replace('…', ".*");
                let says = Regex::new(&format!("^{pattern}$")).unwrap();
                assert!(says.is_match(&text), "line {line} of the guide printed\n{text}\nand not\n{}", block.text);
            }
            other => panic!("line {} of the guide is a block of `{other}`: nothing runs it", block.line),
        }
    }
    assert!(shells >= 8, "only {shells} blocks were run");
}

/// An address where nobody listens just now.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
