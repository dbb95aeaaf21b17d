//! `tollgate webhook sign`, and how `tollgate inbox` is called.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::{stderr, stdout, tollgate};

const SECRET: &str = "It's a Secret to Everybody";
/// What GitHub publishes for this secret and `Hello, World!`.
const PUBLISHED: &str =
    "X-Hub-Signature-256: sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17\n";

fn sign(folder: &Path, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.args(["webhook", "sign"]).args(arguments).current_dir(folder).env("SECRET", SECRET).env("EMPTY", "");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().unwrap();
    // It may end before it reads.
    let _ = process.stdin.take().unwrap().write_all(input);
    process.wait_with_output().unwrap()
}

#[test]
fn it_prints_the_fields_that_a_provider_publishes() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), format!("{SECRET}\n")).unwrap();
    std::fs::write(folder.path().join("body"), "Hello, World!").unwrap();
    for arguments in [
        ["--preset", "github", "--secret-env", "SECRET", "body"],
        ["--preset", "github", "--secret-file", "secret", "body"],
        ["--preset", "github", "--secret-file", "secret", "-"],
    ] {
        let output = sign(folder.path(), &arguments, b"Hello, World!");
        assert_eq!((stderr(&output), stdout(&output)), ("", PUBLISHED), "{arguments:?}");
    }
    let custom =
        ["--preset", "custom", "--header", "X-Sign", "--signed", "{id}.{timestamp}.{body}", "--id-header", "X-Id"];
    let output = sign(
        folder.path(),
        &[&custom[..], &["--secret-env", "SECRET", "--at", "7", "--id", "a", "body"]].concat(),
        b"",
    );
    let fields = stdout(&output);
    assert!(fields.starts_with("X-Id: a\nX-Webhook-Timestamp: 7\nX-Sign: ") && fields.len() == 104, "{output:?}");
}

#[test]
fn mistakes_are_told_and_the_secret_is_not() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("body"), "{}").unwrap();
    std::fs::File::create(folder.path().join("large")).unwrap().set_len(64 * 1024 * 1024 + 1).unwrap();
    let github = ["--preset", "github", "--secret-env", "SECRET"];
    for (arguments, told) in [
        (vec!["--preset", "githup", "--secret-env", "SECRET", "body"], "unknown variant `githup`"),
        (vec!["--preset", "github", "--secret-env", "UNHEARD_OF", "body"], "the variable UNHEARD_OF is not set"),
        (vec!["--preset", "github", "--secret-env", "EMPTY", "body"], "EMPTY: the secret is empty"),
        (vec!["--preset", "github", "--secret-file", "none", "body"], "none: No such file"),
        (vec!["--preset", "standard_webhooks", "--secret-env", "SECRET", "body"], "no secret of Standard Webhooks"),
        (vec!["--preset", "trello", "--secret-env", "SECRET", "body"], "`callback_url` is missing"),
        ([&github[..], &["none"]].concat(), "none: No such file"),
        ([&github[..], &["large"]].concat(), "large is larger than 67108864 bytes"),
        ([&github[..], &["--at", "-1s", "body"]].concat(), "github signs no timestamp"),
        ([&github[..], &["--id", "a", "body"]].concat(), "github signs no id"),
        ([&github[..], &["--prefix", "a", "body"]].concat(), "`prefix` is a setting of `custom`"),
    ] {
        let output = sign(folder.path(), &arguments, b"");
        assert_eq!((output.status.code(), stdout(&output)), (Some(1), ""), "{arguments:?}");
        assert!(stderr(&output).contains(told) && !stderr(&output).contains(SECRET), "{}", stderr(&output));
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in [
        "webhook sign --preset github body",
        "webhook sign --preset github --secret-env A --secret-file b body",
        "webhook sign --preset github --secret hush body",
        "webhook sign --preset github --secret-env A",
        "webhook sign --secret-env A body",
        "webhook sign --preset github --secret-env A --at soon body",
        "inbox",
        "inbox list --dead",
        "inbox list a --dead --standing dead",
        "inbox list a --standing lost",
        "inbox list a --limit 0",
        "inbox list a --limit 1001",
        "inbox show a",
        "inbox replay a",
        "inbox replay a 1 --dead",
        "inbox drop --dead",
        "inbox list --admin nowhere",
    ] {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let output = tollgate(folder.path(), &arguments);
        assert_eq!((output.status.code(), stdout(&output)), (Some(2), ""), "{arguments:?}: {}", stderr(&output));
    }
}

#[test]
fn the_admin_address_stands_before_or_behind_what_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    // The discard service, which nobody runs: the address stands in the message.
    for arguments in [["inbox", "--admin", "127.0.0.1:9", "list"], ["inbox", "list", "--admin", "127.0.0.1:9"]] {
        let output = tollgate(folder.path(), &arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).starts_with("tollgate inbox: 127.0.0.1:9 does not answer"), "{}", stderr(&output));
    }
}
