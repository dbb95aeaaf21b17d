//! Pebble, the test authority of Let's Encrypt, with a name server for which every name leads to one address.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::net::TcpStream;

use super::tls::{Authority, Pair, TlsClient};
use super::{Client, Folder, Upstream, within};

const MISSING: &str = "pebble is not installed: `make test` installs it, or `apt-get install pebble`";

/// Addresses that are known before anybody listens there.
pub struct Site {
    pub ip: IpAddr,
    /// Where authorities ask by HTTP-01.
    pub http: u16,
    /// Where they ask by TLS-ALPN-01.
    pub tls: u16,
    /// Of the authority's directory.
    pub directory: u16,
    /// Vouches for the directory.
    pub ca: Authority,
}

impl Site {
    pub async fn new() -> Self {
        let ip = Upstream::dead_address().await.ip();
        let free = |ip: IpAddr| TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap().port();
        Self {
            ip,
            http: free(ip),
            tls: free(ip),
            directory: free([127, 0, 0, 1].into()),
            ca: Authority::new("the directory's"),
        }
    }

    pub fn http(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.http)
    }

    pub fn tls(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.tls)
    }

    /// `acme` of gateway.yaml, with more keys; the certificate that vouches for the directory is `acme-ca.pem`.
    pub fn acme(&self, port: u16, more: &str) -> String {
        format!(
            "acme: {{ directory: \"https://localhost:{port}/dir\", terms_agreed: true, ca: acme-ca.pem, \
             contact: [\"mailto:ops@example.com\"], retry_min: 1s{more} }}\n"
        )
    }
}

/// A running authority. Killed when dropped.
pub struct Pebble {
    management: SocketAddr,
    children: Vec<Child>,
    _folder: Folder,
}

impl Pebble {
    /// Certificates last for `seconds`; one in seven good nonces is refused.
    pub async fn start(site: &Site, seconds: u32, eab: Option<(&str, &str)>) -> Self {
        let Pair { certificate, key } = site.ca.issue(&["localhost"], "localhost");
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (management, names_management) = (free(), free());
        let names = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let folder = Folder::with(&[("cert.pem", &certificate.pem()), ("key.pem", &key.serialize_pem())]);
        let keys: serde_json::Map<String, serde_json::Value> =
            eab.iter().map(|(id, key)| ((*id).to_owned(), (*key).into())).collect();
        let configuration = serde_json::json!({ "pebble": {
            "listenAddress": format!("127.0.0.1:{}", site.directory),
            "managementListenAddress": management.to_string(),
            "certificate": folder.path("cert.pem"), "privateKey": folder.path("key.pem"),
            "httpPort": site.http, "tlsPort": site.tls, "ocspResponderURL": "",
            "externalAccountBindingRequired": eab.is_some(), "externalAccountMACKeys": keys,
            "certificateValidityPeriod": seconds,
        }});
        fs::write(folder.path("pebble.json"), configuration.to_string()).unwrap();
        let quiet = |command: &mut Command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect(MISSING)
        };
        let mut resolver = Command::new("pebble-challtestsrv");
        resolver.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv6", ""]);
        resolver.args(["-defaultIPv4", &site.ip.to_string(), "-dns01", &names.to_string()]);
        resolver.args(["-management", &names_management.to_string()]);
        let mut authority = Command::new("pebble");
        authority.arg("-config").arg(folder.path("pebble.json")).args(["-dnsserver", &names.to_string()]);
        authority.env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "15").env("PEBBLE_AUTHZREUSE", "0");
        let children = vec![quiet(&mut resolver), quiet(&mut authority)];
        for address in [names_management, management, SocketAddr::from(([127, 0, 0, 1], site.directory))] {
            within("pebble", async { while TcpStream::connect(address).await.is_err() {} }).await;
        }
        Self { management, children, _folder: folder }
    }

    /// The root of what it issues: a new one with each start.
    pub async fn root(&self, site: &Site) -> CertificateDer<'static> {
        let tunnel = TlsClient::trusting(&site.ca).tunnel(self.management, "localhost").await;
        let pem = Client::connect(tunnel).await.get("/roots/0").await;
        CertificateDer::from_pem_slice(&pem.body).expect("a root")
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
