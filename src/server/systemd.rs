//! Tells systemd how it stands (sd_notify(3)): a datagram of `NAME=value` lines.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::warn;

use crate::clock;

/// Where to tell; nowhere, when systemd did not start this process.
#[derive(Default)]
pub struct Systemd {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Systemd {
    /// `socket` and `watchdog` are what the environment holds as `NOTIFY_SOCKET` and `WATCHDOG_USEC`.
    pub fn new(socket: Option<&str>, watchdog: Option<&str>) -> Self {
        let Some(socket) = socket.filter(|socket| !socket.is_empty()) else { return Self::default() };
        let address = match socket.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(socket),
        };
        let opened = address.and_then(|address| {
            let own = UnixDatagram::unbound()?;
            // A service manager that hangs must not hang the gateway.
            own.set_nonblocking(true)?;
            Ok((own, address))
        });
        match opened {
            Ok(to) => {
                let period = watchdog.and_then(|microseconds| microseconds.parse().ok()).map(Duration::from_micros);
                Self { to: Some(to), watchdog: period.filter(|period| !period.is_zero()) }
            }
            Err(error) => {
                warn!(socket, %error, "NOTIFY_SOCKET cannot be used");
                Self::default()
            }
        }
    }

    /// How often it is told that the gateway lives: three times as often as it has to be, as a new process is heard some time later.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog.map(|period| period / 3)
    }

    pub fn ready(&self) {
        self.tell("READY=1\nSTATUS=serving");
    }

    pub fn reloading(&self, what: &str) {
        let now = clock::monotonic_microseconds();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}\nSTATUS={what}"));
    }

    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=draining");
    }

    pub fn alive(&self) {
        if self.watchdog.is_some() {
            self.tell("WATCHDOG=1");
        }
    }

    /// Another process is the service from now on.
    pub fn handed_over(&self, process: u32) {
        self.tell(&format!("MAINPID={process}\nREADY=1\nSTATUS=serving"));
    }

    fn tell(&self, lines: &str) {
        let Some((own, address)) = &self.to else { return };
        if let Err(error) = own.send_to_addr(lines.as_bytes(), address) {
            warn!(%error, "systemd cannot be told how it stands");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(socket: &UnixDatagram) -> String {
        let mut text = [0; 512];
        let length = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    #[test]
    fn it_is_told_at_a_path_and_at_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let systemd = Systemd::new(path.to_str(), Some("3000000"));
        assert_eq!(systemd.watchdog(), Some(Duration::from_secs(1)));
        systemd.ready();
        assert_eq!(lines(&socket), "READY=1\nSTATUS=serving");
        systemd.handed_over(7);
        assert_eq!(lines(&socket), "MAINPID=7\nREADY=1\nSTATUS=serving");
        systemd.reloading("reloading");
        let text = lines(&socket);
        let microseconds = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(microseconds.split('\n').next().unwrap().parse::<u64>().unwrap() > 0, "{text}");
        let name = format!("tollgate-notify-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let systemd = Systemd::new(Some(&format!("@{name}")), None);
        assert_eq!(systemd.watchdog(), None);
        systemd.stopping();
        assert_eq!(lines(&socket), "STOPPING=1\nSTATUS=draining");
    }

    #[test]
    fn nobody_is_told_where_nobody_asked() {
        for socket in [None, Some(""), Some("/no/such/folder/notify")] {
            Systemd::new(socket, Some("0")).ready();
        }
        assert_eq!(Systemd::new(None, Some("1000000")).watchdog(), None);
    }
}
