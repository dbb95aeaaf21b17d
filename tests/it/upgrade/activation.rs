//! Sockets that systemd passes, and what it is told.
//!
//! `systemd-socket-activate`, which comes with systemd, passes them as systemd does. Where it is not there, that is said and left out.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::Duration;

use crate::harness::{Client, Folder, Gateway, PATIENCE, Upstream, all_to, within};

use super::{number, send};

const ACTIVATE: &str = "/usr/bin/systemd-socket-activate";

/// Two addresses that are free now.
fn free() -> [std::net::SocketAddr; 2] {
    let taken = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    taken.map(|listener| listener.local_addr().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn passed_sockets_are_used_and_handed_on() {
    if !Path::new(ACTIVATE).exists() {
        crate::harness::left_out(&format!("{ACTIVATE} is not there (install systemd)"));
        return;
    }
    let upstream = Upstream::echo().await;
    let [used, unused] = free();
    let folder = Folder::with(&[(
        "gateway.yaml",
        &format!("version: 1\nlisteners: [{{ bind: \"{used}\" }}]\naccess_log: {{ to: none }}\n{}", all_to(&upstream)),
    )]);
    let notified = folder.path("notify");
    let systemd = UnixDatagram::bind(&notified).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let environment = format!("--setenv=NOTIFY_SOCKET={}", notified.display());
    let listen = [format!("--listen={used}"), format!("--listen={unused}")];
    let arguments =
        [&*listen[0], &*listen[1], &environment, "--setenv=LISTEN_FDNAMES=a:b", env!("CARGO_BIN_EXE_tollgate")];
    let waiting = tokio::spawn(async move {
        // It starts the gateway when somebody comes: who came first is served too.
        for _ in 0.. {
            if let Ok(stream) = tokio::net::TcpStream::connect(used).await {
                let mut first = Client::over(stream);
                return first.get("/first").await.status;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        0
    });
    let mut gateway = Gateway::start_with(folder, Path::new(ACTIVATE), &arguments).await;
    assert_eq!(gateway.address, used);
    assert_eq!(within("the first client", waiting).await.unwrap(), 200);
    let warned = gateway.logged("no listener uses").await;
    assert!(warned.contains(&unused.to_string()), "{warned}");
    assert_eq!(told(&systemd), "READY=1\nSTATUS=serving");

    // A reload tells what it does.
    gateway.signal("HUP");
    assert!(told(&systemd).starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert_eq!(told(&systemd), "READY=1\nSTATUS=serving");

    // Handed on: the one that was not used is there still.
    gateway.signal("USR2");
    assert!(told(&systemd).starts_with("RELOADING=1\n"));
    let next = number(&gateway.logged("handed over").await);
    assert_eq!(told(&systemd), format!("MAINPID={next}\nREADY=1\nSTATUS=serving"));
    assert_eq!(gateway.get("/x").await.status, 200);
    let yaml = gateway.folder.read("gateway.yaml").replace(&used.to_string(), &unused.to_string());
    gateway.folder.write("gateway.yaml", &yaml);
    gateway.logged_after(0, &format!("listening address={unused}")).await;
    assert_eq!(Client::connect(unused).await.get("/x").await.status, 200);
    send(next, "TERM");
    assert_eq!(told(&systemd), "STOPPING=1\nSTATUS=draining");
    gateway.ended().await;
}

fn told(systemd: &UnixDatagram) -> String {
    let mut text = [0; 1024];
    let length = systemd.recv(&mut text).expect("systemd is told something");
    String::from_utf8_lossy(&text[..length]).into_owned()
}
