//! A pair of sockets that carries notes, and descriptors with them. One packet is one note.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;

use rustix::cmsg_space;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

use super::Note;

/// Descriptors that come with one note. The kernel takes 253.
pub const DESCRIPTORS_MAX: usize = 64;
const NOTE_BYTES_MAX: usize = 64 * 1024;
/// How long a note that is waited for in blocking fashion may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// An end that waits without blocking. It is a stream to the runtime only, which has no name for a socket of packets.
pub struct Channel(UnixStream);

impl Channel {
    /// This process's end, and one for another process.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self::new(ours)?, theirs))
    }

    /// Within a runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = StdUnixStream::from(socket);
        socket.set_nonblocking(true)?;
        UnixStream::from_std(socket).map(Self)
    }

    pub async fn tell(&self, note: &Note, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.0.async_io(Interest::WRITABLE, || send(&self.0, note, descriptors)).await
    }

    pub async fn note(&self) -> io::Result<Note> {
        self.0.async_io(Interest::READABLE, || receive(&self.0)).await.map(|(note, _)| note)
    }
}

/// Waits for a note with descriptors, before there is a runtime.
pub fn wait(socket: &OwnedFd) -> io::Result<(Note, Vec<OwnedFd>)> {
    set_socket_timeout(socket, Timeout::Recv, Some(PATIENCE))?;
    receive(socket)
}

fn send(socket: impl AsFd, note: &Note, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let text = serde_json::to_vec(note)?;
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::other("too many descriptors for one note"));
    }
    // Not a signal, should the other one have ended.
    sendmsg(socket.as_fd(), &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(socket: impl AsFd) -> io::Result<(Note, Vec<OwnedFd>)> {
    let mut text = vec![0; NOTE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    if received.bytes == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other gateway has ended"));
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::other("a note came in part only: is the limit on open files too low?"));
    }
    let note = serde_json::from_slice(text.get(..received.bytes).unwrap_or_default())?;
    Ok((note, descriptors))
}
