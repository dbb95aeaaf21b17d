use super::*;
use crate::inbox::Standing;

fn shown(name: &str, dead: u64, configured: bool) -> InboxShown {
    let (ready, delayed, claimed, bytes) = (12, 0, 1, 4096);
    let oldest_seconds = configured.then_some(61);
    InboxShown {
        inbox: name.to_owned(),
        ready,
        delayed,
        claimed,
        dead,
        bytes,
        oldest_seconds,
        paused: Some(dead > 0),
        configured,
    }
}

fn message(target: &str) -> MessageShown {
    MessageShown {
        id: "01".to_owned(),
        delivery: "d".to_owned(),
        standing: Standing::Dead,
        attempts: 3,
        due: None,
        why: Some("the service answered 500".to_owned()),
        received: "2026-01-01T12:00:00Z".to_owned(),
        request_id: "r".to_owned(),
        route: "hooks".to_owned(),
        provider: Some("github".to_owned()),
        method: "POST".to_owned(),
        target: target.to_owned(),
        order: None,
    }
}

#[test]
fn inboxes_are_a_table() {
    let list = All { inboxes: vec![shown("hooks.github", 3, true), shown("old", 0, false)], total: 3 };
    assert_eq!(
        all(&list),
        "inbox         ready  delayed  claimed  dead  oldest  bytes  delivered\n\
         hooks.github  12     0        1        3     61 s    4096   paused: the service is away\n\
         old           12     0        1        0     -       4096   no: the configuration has no such inbox\n\
         and 1 more\n"
    );
}

#[test]
fn messages_cannot_write_elsewhere() {
    let messages = vec![message("/a\u{1b}[2J")];
    let listed = Page { inbox: shown("a", 1, true), messages, next: Some("01".to_owned()) };
    assert_eq!(
        page(&listed, Some("dead")),
        "id  standing  attempts  received              due  request      why\n\
         01  dead      3         2026-01-01T12:00:00Z  -    POST /a?[2J  the service answered 500\n\
         1 message\n\
         there may be more: --after 01\n"
    );
    let none = Page { inbox: shown("a", 0, true), messages: Vec::new(), next: None };
    assert_eq!(page(&none, Some("dead")), "a has no dead messages\n");
    assert_eq!(page(&none, None), "a has no messages\n");
}

#[test]
fn a_message_is_shown_as_it_came() {
    let fields = vec![crate::admin::inboxes::FieldShown { name: "a".to_owned(), value: "b\r".to_owned() }];
    let mut shown = One {
        message: message("/a"),
        bytes: 9,
        fields,
        body: "{}".to_owned(),
        body_encoding: "text".to_owned(),
        body_bytes: 2,
        body_cut: false,
    };
    let text = one(&shown, true);
    assert!(text.starts_with("id          01\nstanding    dead\nattempts    3\nwhy         the service"), "{text}");
    assert!(text.ends_with("body        2 B\n\nPOST /a\na: b?\n\n{}\n"), "{text}");
    assert!(one(&shown, false).ends_with("\na: b?\n"));
    (shown.body_encoding, shown.body_cut) = ("base64".to_owned(), true);
    assert!(one(&shown, true).ends_with("\n\nin base64:\n{}\n… 2 B in all\n"));
}
