//! A server that is away, hangs, lies or forgets: an error in bounded time, and recovery by itself.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use super::super::{Mark, Redis, Spend, Store, StoreError};
use super::SPACE;
use super::server::{PATIENCE, Server, settings, up};
use crate::buckets::{Key, Limiter};
use crate::clock;
use crate::rates::{Ask, Rates};

/// So long a decision may take here; `AT_ONCE` is well below, however slow the machine is.
const TIMEOUT: Duration = Duration::from_secs(4);
const AT_ONCE: Duration = Duration::from_secs(2);

fn open(server: &Server) -> Redis {
    Redis::open(&settings(&server.yaml("timeout: 4s"))).unwrap()
}

async fn draw(redis: &Redis) -> Result<bool, String> {
    let rates = Rates::new(["100000/day".parse().unwrap()], None).unwrap();
    let key = Key { bucket: "a", who: "x" };
    let drawn = redis.draw(key, &rates, Ask::exactly(1.0)).await;
    drawn.map(|drawn| drawn.admitted).map_err(|error| error.to_string())
}

/// Does both kinds of operations; what fails does so within `bound`.
async fn fails_within(redis: &Redis, bound: Duration) -> String {
    let began = clock::now();
    let refused = draw(redis).await.unwrap_err();
    let took = clock::now().duration_since(began);
    assert!(took < bound, "{took:?}: {refused}");
    refused
}

/// Waits until both kinds of operations work.
async fn works(redis: &Redis) {
    let again = async {
        while !(draw(redis).await == Ok(true) && redis.put(SPACE, "a", b"1".to_vec(), None).await.is_ok()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, again).await.expect("it does not recover");
    assert!(redis.is_up());
}

async fn down(redis: &Redis) {
    let mut up = redis.connectivity();
    tokio::time::timeout(PATIENCE, up.wait_for(|up| !up)).await.unwrap().unwrap();
    assert!(!redis.is_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_and_started_again_is_found() {
    let mut server = Server::own();
    let redis = up(open(&server));
    works(&redis).await;
    server.kill();
    down(&redis).await;
    for _ in 0..3 {
        let why = fails_within(&redis, AT_ONCE).await;
        assert!(!why.contains("did not answer"), "{why}");
        let StoreError(why) = redis.get(SPACE, "a").await.unwrap_err();
        assert!(!why.is_empty());
    }
    server.run();
    assert!(redis.ready(PATIENCE).await);
    works(&redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_server_that_hangs_only_what_is_under_way_feels_anything() {
    let server = Server::own();
    let redis = up(open(&server));
    works(&redis).await;
    for _ in 0..2 {
        server.signal("-STOP");
        // What is under way waits for the bound; or a probe was faster, and it does not even that.
        fails_within(&redis, TIMEOUT + AT_ONCE).await;
        for _ in 0..5 {
            fails_within(&redis, AT_ONCE).await;
        }
        down(&redis).await;
        server.signal("-CONT");
        works(&redis).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_noticed_without_a_request() {
    let server = Server::own();
    let redis = up(open(&server));
    server.signal("-STOP");
    down(&redis).await;
    fails_within(&redis, AT_ONCE).await;
    server.signal("-CONT");
    assert!(redis.ready(PATIENCE).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_starts_before_its_server() {
    let mut server = Server::own();
    server.kill();
    let redis = open(&server);
    assert!(!redis.ready(Duration::from_millis(100)).await);
    let why = fails_within(&redis, AT_ONCE).await;
    assert!(why.contains("connect"), "{why}");
    server.run();
    works(&redis).await;
}

/// The server says no to writes: as a replica, without memory, for lack of rights.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_is_as_good_as_away() {
    let server = Server::own();
    let redis = up(open(&server));
    let mut raw = server.raw();
    for (bad, good, code) in [
        (vec!["REPLICAOF", "127.0.0.1", "1"], vec!["REPLICAOF", "NO", "ONE"], "READONLY"),
        (vec!["CONFIG", "SET", "maxmemory", "1"], vec!["CONFIG", "SET", "maxmemory", "0"], "OOM"),
    ] {
        works(&redis).await;
        let mut command = |words: &[&str]| redis::cmd(words[0]).arg(&words[1..]).exec(&mut raw).unwrap();
        command(&bad);
        down(&redis).await;
        let why = fails_within(&redis, AT_ONCE).await;
        assert!(why.contains(code), "{why}");
        command(&good);
        works(&redis).await;
    }
}

/// A server that answers everything with the same bytes, or closes the connection, or says nothing.
fn liar(answer: Option<&'static [u8]>, holds: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let (mut stream, mut buffer) = (stream, [0; 4096]);
                while holds && stream.read(&mut buffer).is_ok_and(|count| count > 0) {
                    if answer.is_some_and(|answer| stream.write_all(answer).is_err()) {
                        return;
                    }
                }
            });
        }
    });
    format!("{{ url: \"redis://{address}\", timeout: 4s }}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_speaks_nonsense_is_never_used() {
    for (yaml, words) in [
        (liar(Some(b"HTTP/1.1 400 Bad Request\r\n\r\n"), true), ""),
        (liar(Some(b"$999999999999\r\nx"), true), ""),
        (liar(Some(b"*-7\r\n:x\r\n"), true), ""),
        (liar(Some(b"-LOADING the dataset\r\n"), true), "LOADING"),
        (liar(Some(b"-NOAUTH Authentication required.\r\n"), true), "NOAUTH"),
        (liar(Some(b"-MOVED 1 127.0.0.1:1\r\n"), true), "a node of a cluster"),
        (liar(None, false), ""),
        (liar(None, true), ""),
    ] {
        let redis = Redis::open(&settings(&yaml)).unwrap();
        let ready = redis.ready(Duration::from_millis(100)).await;
        // An answer of another kind may pass for one, until something is asked.
        if !ready {
            let why = fails_within(&redis, AT_ONCE).await;
            assert!(why.contains(words), "{yaml}: {why}");
        } else {
            fails_within(&redis, TIMEOUT + AT_ONCE).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_password_is_let_in() {
    // As docs/configuration.md says.
    let rights = "+eval +evalsha +get +set +del +scan +time +zadd +zrem +zrangebylex +zrangebyscore +xadd +xrange +xrevrange \
                  +expire";
    let mut arguments = vec!["--requirepass", "p@ss w#rd", "--user", "ann", "on", ">secret", "~t*", "-@all"];
    arguments.extend(rights.split_whitespace());
    let server = Server::start(&arguments);
    for login in ["password: \"p@ss w#rd\"", "user: ann, password: secret", "user: default, password: \"p@ss w#rd\""] {
        let redis = up(Redis::open(&settings(&server.yaml(&format!("timeout: 5s, {login}")))).unwrap());
        works(&redis).await;
        // All commands that there are.
        let end = clock::wall() + Duration::from_secs(9);
        let ask = Spend { least: 1, most: 1, limit: 9 };
        assert_eq!(redis.spend(SPACE, "counter", ask, end).await.unwrap().got, 1);
        redis.give_back(SPACE, "counter", 1).await.unwrap();
        assert!(redis.insert(SPACE, "b", Vec::new(), Some(end)).await.unwrap());
        assert!(redis.replace(SPACE, "b", b"", Vec::new()).await.unwrap());
        let mark = redis.changes(SPACE, &Mark::default()).await.unwrap().mark;
        assert!(redis.take(SPACE, "b").await.unwrap().is_some());
        assert_eq!(redis.changes(SPACE, &mark).await.unwrap().keys.unwrap(), ["b"]);
        assert_eq!(redis.list(SPACE, None, 9).await.unwrap().len(), 2);
        let (slow, key) = (Rates::new(["9/day".parse().unwrap()], None).unwrap(), Key { bucket: "b", who: "x" });
        redis.draw(key, &slow, Ask::exactly(1.0)).await.unwrap();
        assert_eq!(redis.top("b", 9).await.unwrap().len(), 1);
        assert!(redis.reset(key).await.unwrap());
    }
    for login in ["timeout: 5s", "password: hunter2", "user: ann, password: hunter2", "user: bob, password: secret"] {
        let redis = Redis::open(&settings(&server.yaml(login))).unwrap();
        assert!(!redis.ready(Duration::from_millis(300)).await, "{login}");
        let why = fails_within(&redis, AT_ONCE).await;
        assert!(!why.contains("hunter2") && !why.contains("secret"), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_is_chosen_by_its_number() {
    let server = Server::own();
    let yaml = format!("{{ url: \"unix://{}?db=5\", timeout: 5s }}", server.socket().display());
    works(&up(Redis::open(&settings(&yaml)).unwrap())).await;
    let keyspace: String = redis::cmd("INFO").arg("keyspace").query(&mut server.raw()).unwrap();
    assert!(keyspace.contains("db5:") && !keyspace.contains("db0:"), "{keyspace}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_of_the_server_is_verified() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&authority).unwrap();
    let issuer = rcgen::Issuer::from_params(&params, &authority);
    let key = rcgen::KeyPair::generate().unwrap();
    let own = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    for (name, text) in [("ca.pem", ca.pem()), ("own.pem", own.pem()), ("own.key", key.serialize_pem())] {
        std::fs::write(at(name), text).unwrap();
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let (ca, own, key) = (at("ca.pem"), at("own.pem"), at("own.key"));
    let files = ["--tls-cert-file", &own, "--tls-key-file", &key, "--tls-ca-cert-file", &ca];
    let _server =
        Server::start(&[&["--port", "0", "--tls-auth-clients", "no", "--tls-port", &port][..], &files].concat());
    let with = |host: &str, more: &str| {
        let yaml = format!("{{ url: \"rediss://{host}:{port}\", timeout: 5s{more} }}");
        Redis::open(&super::server::try_settings(&yaml, folder.path()).unwrap()).unwrap()
    };
    works(&up(with("localhost", ", ca: ca.pem"))).await;
    for (host, more) in [("127.0.0.1", ", ca: ca.pem"), ("localhost", ", ca: own.pem")] {
        let redis = with(host, more);
        assert!(!redis.ready(Duration::from_millis(500)).await);
        let why = fails_within(&redis, AT_ONCE).await;
        assert!(why.contains("TLS fails"), "{why}");
    }
    let plain = Redis::open(&settings(&format!("redis://localhost:{port}"))).unwrap();
    assert!(!plain.ready(Duration::from_millis(300)).await);
}
