//! `tollgate health`: whether a running gateway is ready, for the health check of a container.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

use super::{EXIT_FAILED, complain, print};
use crate::clock;

/// How long all of it may take.
const TIMEOUT: Duration = Duration::from_secs(3);
/// How much of the answer is read, in bytes: the status line is at its start.
const ANSWER_BYTES_MAX: usize = 1024;

pub fn health(admin: SocketAddr) -> ExitCode {
    match ready(admin, TIMEOUT) {
        Ok(200) => {
            print("ready\n");
            return ExitCode::SUCCESS;
        }
        Ok(status) => complain(&format!("tollgate health: {admin} is not ready: it answers {status}\n")),
        Err(error) => complain(&format!("tollgate health: {admin} does not answer: {error}\n")),
    }
    ExitCode::from(EXIT_FAILED)
}

/// The status of `GET /ready`.
fn ready(admin: SocketAddr, timeout: Duration) -> io::Result<u16> {
    let started = clock::now();
    let mut stream = TcpStream::connect_timeout(&admin, timeout)?;
    stream.set_write_timeout(Some(timeout))?;
    // In one piece: a server that answers early may have closed before a second one.
    let request = format!("GET /ready HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    let mut piece = [0_u8; ANSWER_BYTES_MAX];
    while !answer.contains(&b'\n') && answer.len() < ANSWER_BYTES_MAX {
        let left = timeout.saturating_sub(clock::now().saturating_duration_since(started));
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece)? {
            0 => break,
            read => answer.extend_from_slice(piece.get(..read).unwrap_or_default()),
        }
    }
    status(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "this is not HTTP"))
}

/// The number in `HTTP/1.1 200 OK`.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// The result of asking a server that answers `answer` and keeps the connection open until the end.
    fn asked(answer: &'static str, timeout: Duration) -> io::Result<u16> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            let mut request = Vec::new();
            stream.read_to_end(&mut request).unwrap();
            String::from_utf8(request).unwrap()
        });
        let result = ready(address, timeout);
        let request = server.join().unwrap();
        assert!(request.starts_with("GET /ready HTTP/1.1\r\nHost: 127.0.0.1:") && request.ends_with("\r\n\r\n"));
        result
    }

    #[test]
    fn the_status_line_decides() {
        assert_eq!(asked("HTTP/1.1 200 OK\r\n\r\n", TIMEOUT).unwrap(), 200);
        assert_eq!(asked("HTTP/1.1 503 Service Unavailable\r\n\r\n", TIMEOUT).unwrap(), 503);
        assert_eq!(asked("SSH-2.0-x\r\n", TIMEOUT).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn silence_ends_at_the_timeout() {
        let error = asked("", Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut), "{error}");
    }
}
