//! Messages between processes of one machine, with open files beside them.
//!
//! A worker hands an executor its cell and its counter with the first bytes of their socket, and later, over
//! sockets of whole messages ([`pair`]), the files that it is to map.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};

/// Files beside one message, at most.
pub const FILES_MAX: usize = 2;

/// Two ends of a socket that keeps messages whole.
///
/// # Errors
/// The system refuses: too many files are open.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends `message`, and `files` beside it; how many of its bytes were taken, all of them on a socket of
/// whole messages.
///
/// # Errors
/// Nobody has the other end, or the system refuses; files beyond [`FILES_MAX`].
pub fn send(socket: impl AsFd, message: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<usize> {
    send_with(socket, message, files, SendFlags::NOSIGNAL)
}

/// [`send`], to somebody who may never read: what finds no room at once is not sent.
///
/// # Errors
/// As [`send`]; also if there is no room.
pub fn send_now(socket: impl AsFd, message: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<usize> {
    send_with(socket, message, files, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}

fn send_with(
    socket: impl AsFd,
    message: &[u8],
    files: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<usize> {
    let too_many = || io::Error::new(io::ErrorKind::InvalidInput, "too many files for one message");
    if files.len() > FILES_MAX {
        return Err(too_many());
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(too_many());
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(message)], &mut ancillary, flags) {
            Err(rustix::io::Errno::INTR) => {}
            sent => return Ok(sent?),
        }
    }
}

/// Waits for the next bytes, at most `bytes_max`, and the files beside them; no bytes once nobody has the
/// other end.
///
/// # Errors
/// The system refuses; a message was longer (`InvalidData`); or this process has too many files open, and those
/// beside the message are lost (`QuotaExceeded`).
pub fn receive(socket: impl AsFd, bytes_max: usize) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut bytes = vec![0; bytes_max];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
    let got = loop {
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match recvmsg(&socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            got => {
                let got = got?;
                let files = ancillary.drain().flat_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(files) => files.collect(),
                    _ => Vec::new(),
                });
                break (got, files.collect::<Vec<_>>());
            }
        }
    };
    let (got, files) = got;
    if got.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message is longer than it may be",
        ));
    }
    if got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many files are open"));
    }
    bytes.truncate(got.bytes);
    Ok((bytes, files))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    #[test]
    fn a_file_comes_beside_its_message() {
        let (one, other) = pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"content").unwrap();
        send(&one, b"first", &[file.as_fd()]).unwrap();
        send(&one, b"second", &[]).unwrap();
        let (message, files) = receive(&other, 64).unwrap();
        assert_eq!(message, b"first");
        let mut received = std::fs::File::from(files.into_iter().next().unwrap());
        received.rewind().unwrap();
        let mut content = String::new();
        received.read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        let (message, files) = receive(&other, 64).unwrap();
        assert_eq!((message.as_slice(), files.len()), (&b"second"[..], 0));
    }

    #[test]
    fn the_end_is_no_bytes_and_too_many_an_error() {
        let (one, other) = pair().unwrap();
        send(&one, &[7; 65], &[]).unwrap();
        assert!(receive(&other, 64).is_err());
        let three = [one.as_fd(), one.as_fd(), one.as_fd()];
        assert_eq!(send(&one, b"x", &three).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        // Nobody reads: what is sent to him who may never read comes to an end.
        let mut sent = 0;
        while send_now(&one, &[7; 64], &[]).is_ok() {
            sent += 1;
        }
        assert!(sent > 0);
        (0..sent).for_each(|_| drop(receive(&other, 64).unwrap()));
        drop(one);
        assert_eq!(receive(&other, 64).unwrap().0, b"");
    }
}
