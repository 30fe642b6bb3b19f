//! Forty pages are fetched from a server that takes its time: tasks that wait rather than compute run
//! as threads of one executor, twenty at once.
//!
//! ```text
//! cargo run --release --example fetch_urls
//! ```
//! The server is this program's own, on loopback.
#![expect(clippy::print_stdout, reason = "an example shows what it did")]
#![expect(clippy::disallowed_methods, reason = "sleeping stands for work")]

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use allhands::Failure;
use allhands::prelude::*;

/// How long the server thinks about each page.
const THINKING: Duration = Duration::from_millis(100);

/// Fetches a page; its length.
fn fetch(server: SocketAddr, page: String) -> Result<usize, Failure> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let request = format!("GET {page} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let (head, body) = response
        .split_once("\r\n\r\n")
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    if !head.starts_with("HTTP/1.1 200") {
        return Err(io::Error::other(head.lines().next().unwrap_or_default().to_owned()).into());
    }
    Ok(body.len())
}

/// Answers one request, once it is read to its end: closing a socket with something unread resets it,
/// and the answer may be lost with it.
fn answer(mut stream: &TcpStream) -> io::Result<()> {
    let (mut request, mut reader) = (String::new(), BufReader::new(stream));
    while !request.ends_with("\r\n\r\n") && reader.read_line(&mut request)? > 0 {}
    thread::sleep(THINKING);
    let page = request.split(' ').nth(1).unwrap_or("/");
    let body = format!("This is page {page}.");
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Connections of the server: open now, and at once at most.
static OPEN: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// Starts the server.
fn serve() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                MOST.fetch_max(OPEN.fetch_add(1, Relaxed) + 1, Relaxed);
                let answered = answer(&stream);
                // Whoever has the answer may come again: this one counts no more when it is closed.
                OPEN.fetch_sub(1, Relaxed);
                answered
            });
        }
    });
    Ok(address)
}

#[allhands::main]
fn main() -> Result<(), Failure> {
    let server = serve()?;
    let started = Instant::now();
    let lengths = Parallel::new()
        .n_jobs(20)
        .prefer(Prefer::Threads)
        .run((0..40).map(|n| delayed(fetch)(server, format!("/page/{n}"))))?;
    let (fetched, missing): (Vec<_>, Vec<_>) = lengths.into_iter().partition(Result::is_ok);
    let fetched: Vec<usize> = fetched.into_iter().flatten().collect();
    missing
        .into_iter()
        .filter_map(Result::err)
        .for_each(|error| println!("a page is missing: {error}"));
    println!("{} connections at once", MOST.load(Relaxed));
    println!(
        "{} pages, {} bytes in {:.1?} (one after the other: {:.1?})",
        fetched.len(),
        fetched.iter().sum::<usize>(),
        started.elapsed(),
        THINKING * 40
    );
    Ok(())
}
