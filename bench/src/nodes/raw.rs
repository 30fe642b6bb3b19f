//! What chunks are compared with: one stream from memory, whose bytes are dropped where they arrive, or kept with
//! nothing else done.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use allhands_common::blob::CHUNK_BYTES;
use allhands_common::id::ClusterId;
use allhands_common::net::access::Role;
use allhands_common::net::endpoint::{Endpoint, Expected};
use allhands_common::net::identity::IdentityFiles;
use anyhow::Context as _;
use bytes::Bytes;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::measure::complain;

const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Pieces of a stream that are taken at a time, as links do.
const PIECES: usize = 32;

/// Pieces that wait for the keeper: a chunk or so.
const PIECES_WAITING: usize = 1024;

/// Bytes that are read from a TLS stream at a time.
const READ_BYTES: usize = 1 << 18;

/// Sends `content` on the first stream of the first connection.
pub(super) fn serve_quinn(endpoint: Endpoint, content: Bytes) -> anyhow::Result<SocketAddr> {
    let address = endpoint.local_address()?;
    tokio::spawn(async move {
        let sent: anyhow::Result<()> = async {
            let arriving = endpoint.accept().await.context("the endpoint is closed")?;
            let connection = arriving.establish().await?;
            let (mut stream, mut asked) = connection.quinn().accept_bi().await?;
            asked.read_to_end(1).await?;
            for chunk in content.chunks(CHUNK_BYTES as usize) {
                stream.write_chunk(content.slice_ref(chunk)).await?;
            }
            stream.finish()?;
            stream.stopped().await?;
            Ok(())
        }
        .await;
        if let Err(error) = sent {
            complain(&error);
        }
    });
    Ok(address)
}

pub(super) async fn take_quinn(
    endpoint: Endpoint,
    address: SocketAddr,
    bytes: u64,
) -> anyhow::Result<Duration> {
    let mut received = 0;
    let begun = read_quinn(endpoint, address, |piece| {
        received += piece.len() as u64;
        Ok(())
    })
    .await?;
    let took = begun.elapsed();
    anyhow::ensure!(received == bytes, "{received} of {bytes} bytes have come");
    Ok(took)
}

/// Hands each piece that arrives to `each`; when it asked for the first.
async fn read_quinn(
    endpoint: Endpoint,
    address: SocketAddr,
    mut each: impl FnMut(Bytes) -> anyhow::Result<()>,
) -> anyhow::Result<Instant> {
    let expected = Expected { role: Role::Worker, name: None };
    let connection = endpoint.connect(address, expected, CONNECT_MAX).await?;
    let begun = Instant::now();
    let (mut ask, mut stream) = connection.quinn().open_bi().await?;
    ask.write_all(b"?").await?;
    ask.finish()?;
    let mut pieces = [const { Bytes::new() }; PIECES];
    while let Some(read) = stream.read_chunks(&mut pieces).await? {
        pieces[..read].iter_mut().try_for_each(|piece| each(std::mem::take(piece)))?;
    }
    Ok(begun)
}

/// A thread that hashes chunks, compares the hashes, and writes the chunks to a file.
pub(super) struct Keeper {
    pieces: SyncSender<Bytes>,
    kept: JoinHandle<anyhow::Result<()>>,
}

impl Keeper {
    /// `hashes` are those of the chunks that are to come, which make up `bytes` bytes.
    pub(super) fn start(
        folder: &Path,
        bytes: u64,
        hashes: Vec<blake3::Hash>,
    ) -> anyhow::Result<Self> {
        let mut file = tempfile::tempfile_in(folder)?;
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
        let (pieces, come) = sync_channel::<Bytes>(PIECES_WAITING);
        let keep = move || {
            let (mut chunk, mut hashes) =
                (Vec::with_capacity(CHUNK_BYTES as usize), hashes.into_iter());
            let mut keep = |chunk: &mut Vec<u8>| {
                anyhow::ensure!(hashes.next() == Some(blake3::hash(chunk)), "a byte is wrong");
                file.write_all(chunk)?;
                chunk.clear();
                Ok(())
            };
            // A piece is a packet's worth: to write each would cost more than to gather them.
            for mut piece in come {
                while !piece.is_empty() {
                    let room = CHUNK_BYTES as usize - chunk.len();
                    chunk.extend_from_slice(&piece.split_to(room.min(piece.len())));
                    if chunk.len() == CHUNK_BYTES as usize {
                        keep(&mut chunk)?;
                    }
                }
            }
            if !chunk.is_empty() {
                keep(&mut chunk)?;
            }
            anyhow::ensure!(hashes.next().is_none(), "bytes are missing");
            Ok(())
        };
        let kept = std::thread::Builder::new().name("keeper".into()).spawn(keep)?;
        Ok(Self { pieces, kept })
    }
}

pub(super) async fn keep_quinn(
    endpoint: Endpoint,
    address: SocketAddr,
    keeper: Keeper,
) -> anyhow::Result<Duration> {
    let Keeper { pieces, kept } = keeper;
    // A runtime of several threads: that this one waits for the keeper does not hold up the others.
    let begun = read_quinn(endpoint, address, |piece| Ok(pieces.send(piece)?)).await?;
    drop(pieces);
    let kept = tokio::task::spawn_blocking(move || kept.join()).await?;
    kept.map_err(|_panic| anyhow::anyhow!("the keeper has panicked"))??;
    Ok(begun.elapsed())
}

fn certificate(
    files: &IdentityFiles,
) -> anyhow::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain = vec![CertificateDer::from_pem_slice(&files.cert_pem)?];
    Ok((chain, PrivateKeyDer::from_pem_slice(&files.key_pem)?))
}

/// Sends `content` to the first who connects, from a thread of its own.
pub(super) fn serve_tls(
    files: &IdentityFiles,
    ip: IpAddr,
    content: Bytes,
) -> anyhow::Result<SocketAddr> {
    let (chain, key) = certificate(files)?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let listener = TcpListener::bind((ip, 0))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        let send = || -> anyhow::Result<()> {
            let (socket, _) = listener.accept()?;
            let connection = rustls::ServerConnection::new(Arc::new(config))?;
            let mut stream = rustls::StreamOwned::new(connection, socket);
            stream.read_exact(&mut [0])?;
            stream.write_all(&content)?;
            stream.conn.send_close_notify();
            stream.flush()?;
            Ok(())
        };
        if let Err(error) = send() {
            complain(&error);
        }
    });
    Ok(address)
}

pub(super) fn take_tls(
    files: &IdentityFiles,
    address: SocketAddr,
    bytes: u64,
) -> anyhow::Result<Duration> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&files.ca_pem)?)?;
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // The name that is in a worker's certificate.
    let name = ServerName::try_from(format!("worker.{}.allhands", ClusterId([1; 16])))?;
    let connection = rustls::ClientConnection::new(Arc::new(config), name)?;
    let mut stream = rustls::StreamOwned::new(connection, TcpStream::connect(address)?);
    // The handshake is not counted.
    stream.conn.complete_io(&mut stream.sock)?;
    let begun = Instant::now();
    stream.write_all(b"?")?;
    let (mut received, mut buffer) = (0, vec![0; READ_BYTES]);
    while received < bytes {
        let read = stream.read(&mut buffer)?;
        anyhow::ensure!(read > 0, "{received} of {bytes} bytes have come");
        received += read as u64;
    }
    Ok(begun.elapsed())
}
