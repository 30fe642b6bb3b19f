//! The one UDP socket of a process: it accepts and it dials.
//!
//! A driver task of quinn runs behind it on the tokio runtime in which it was bound. Nothing of it survives
//! a crash but the identity's `reset.key`, thanks to which peers of a restarted process learn at once that
//! their connections are gone.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::{ClientConfig, EndpointConfig, ServerConfig, TokioRuntime};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::access::Role;
use super::cause::{Cause, CloseCode};
use super::connection::Connection;
use super::identity::Identity;
use super::place::Place;
use super::transport::{self, Traffic};
use super::{peer, reset, tls};

mod error;

pub use super::tls::TlsError;
pub use error::{AcceptError, BindError, ConnectError};

/// Asked for, both ways; the kernel gives what its limits allow. The default of 208 KiB drops packets as
/// soon as two peers send a bundle at once.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Handshakes in progress. Beyond it newcomers are refused at once, at the price of one packet.
const HANDSHAKES_MAX: usize = 256;

/// From this many handshakes in progress on, a newcomer must first prove that it owns its address.
const HANDSHAKES_UNPROVEN: usize = 64;

/// First packets that wait for [`Endpoint::accept`], and the bytes that they may hold in all.
const INCOMING_MAX: usize = 256;
const INCOMING_BYTES_MAX: u64 = 1 << 20;

/// A handshake that takes longer is given up.
pub(super) const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// Stateless resets are at least so far apart: a restarted coordinator has thousands of peers to tell.
const RESET_INTERVAL: Duration = Duration::from_millis(1);

/// Accepts and dials connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Endpoint {
    quinn: quinn::Endpoint,
    identity: Identity,
    handshakes: Arc<Semaphore>,
}

/// Whom a dialler expects.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The role, checked in the TLS handshake.
    pub role: Role,
    /// The very peer, where it matters which (a Raft node, a holder of chunks).
    pub name: Option<&'a str>,
}

impl Endpoint {
    /// Binds `address` (port 0: any) as the holder of `identity`. Must be called inside a tokio runtime.
    ///
    /// There is no way to bind without an identity: see [`net`](super).
    pub fn bind(identity: Identity, address: SocketAddr) -> Result<Self, BindError> {
        Self::bind_for(Traffic::Control, identity, address)
    }

    /// As [`Self::bind`], for chunks: larger windows, and a socket of its own, so that bulk never delays
    /// what keeps a cluster alive.
    pub fn bind_bulk(identity: Identity, address: SocketAddr) -> Result<Self, BindError> {
        Self::bind_for(Traffic::Bulk, identity, address)
    }

    fn bind_for(
        traffic: Traffic,
        identity: Identity,
        address: SocketAddr,
    ) -> Result<Self, BindError> {
        let failed = |source| BindError::Socket { address, source };
        let unusable = |source| BindError::Tls { source };
        let provider = tls::provider();

        let mut config = EndpointConfig::new(reset::token_key(identity.reset_key()));
        let random = provider.secure_random;
        config.cid_generator(move || Box::new(reset::RandomIds(random)));
        config.min_reset_interval(RESET_INTERVAL);
        config
            .max_udp_payload_size(transport::UDP_PAYLOAD_BYTES_MAX)
            .map_err(|source| BindError::Config { source })?;

        let transport = transport::config(traffic);
        let mut server =
            ServerConfig::with_crypto(Arc::new(tls::server(&identity).map_err(unusable)?));
        server
            .transport_config(Arc::clone(&transport))
            .migration(false)
            .max_incoming(INCOMING_MAX)
            .incoming_buffer_size_total(INCOMING_BYTES_MAX);
        let mut client = ClientConfig::new(Arc::new(tls::client(&identity).map_err(unusable)?));
        client.transport_config(transport);

        let socket = socket(address).map_err(failed)?;
        let mut quinn =
            quinn::Endpoint::new(config, Some(server), socket.into(), Arc::new(TokioRuntime))
                .map_err(failed)?;
        quinn.set_default_client_config(client);
        Ok(Self { quinn, identity, handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)) })
    }

    /// Binds any port, to dial `places`: for both families, if one of them has an address of IPv6 and this
    /// machine speaks it. Must be called inside a tokio runtime.
    pub fn bind_to_dial(identity: Identity, places: &[Place]) -> Result<Self, BindError> {
        Self::bind_to_dial_for(Traffic::Control, identity, places)
    }

    /// As [`Self::bind_to_dial`], for chunks: to dial those who are where `places` are.
    pub fn bind_bulk_to_dial(identity: Identity, places: &[Place]) -> Result<Self, BindError> {
        Self::bind_to_dial_for(Traffic::Bulk, identity, places)
    }

    fn bind_to_dial_for(
        traffic: Traffic,
        identity: Identity,
        places: &[Place],
    ) -> Result<Self, BindError> {
        let mut addresses = places.iter().flat_map(|place| &place.addresses);
        if addresses.any(SocketAddr::is_ipv6) {
            let any = (Ipv6Addr::UNSPECIFIED, 0).into();
            let both = Self::bind_for(traffic, identity.clone(), any);
            if !matches!(both, Err(BindError::Socket { .. })) {
                return both;
            }
        }
        Self::bind_for(traffic, identity, (Ipv4Addr::UNSPECIFIED, 0).into())
    }

    /// Who this process is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The address in use, with the port that the system chose for port 0.
    pub fn local_address(&self) -> Result<SocketAddr, BindError> {
        self.quinn.local_addr().map_err(|source| BindError::Address { source })
    }

    /// Dials `address` and checks that a peer of our cluster with the expected role answers.
    ///
    /// The peer checks *our* certificate after this has returned; its refusal is the error of the first
    /// [`open_link`](super::handshake::open_link).
    pub async fn connect(
        &self,
        address: SocketAddr,
        expected: Expected<'_>,
        deadline: Duration,
    ) -> Result<Connection, ConnectError> {
        let host = peer::host_name(self.identity.own().cluster, expected.role);
        let connecting = self
            .quinn
            .connect(address, &host)
            .map_err(|source| ConnectError::Invalid { address, source })?;
        let quinn = tokio::time::timeout(deadline, connecting)
            .await
            .map_err(|_| ConnectError::Failed { address, source: Cause::NoAnswer })?
            .map_err(|error| ConnectError::Failed {
                address,
                source: match Cause::of(&error) {
                    Cause::Silent => Cause::NoAnswer,
                    cause => cause,
                },
            })?;
        let connection = Connection::identify(quinn, &self.identity)
            .map_err(|source| ConnectError::Stranger { address, source })?;
        let got = connection.peer();
        if got.role != expected.role || expected.name.is_some_and(|name| name != got.name) {
            let wanted = expected.name.unwrap_or("of any name");
            let expected = format!("{} {wanted}", expected.role);
            connection.close(CloseCode::Refused, &format!("looking for {expected}"));
            return Err(ConnectError::OtherPeer { address, expected, got: got.to_string() });
        }
        Ok(connection)
    }

    /// The next peer that knocks; `None` once the endpoint is closed.
    ///
    /// Run [`Arriving::establish`] in a task of its own, so that a slow handshake delays nobody.
    pub async fn accept(&self) -> Option<Arriving> {
        loop {
            let incoming = self.quinn.accept().await?;
            let under_way = HANDSHAKES_MAX - self.handshakes.available_permits();
            if under_way >= HANDSHAKES_UNPROVEN && incoming.may_retry() {
                if let Err(error) = incoming.retry() {
                    tracing::debug!(%error, "a newcomer could not be asked to prove its address");
                }
                continue;
            }
            match Arc::clone(&self.handshakes).try_acquire_owned() {
                Ok(permit) => {
                    let identity = self.identity.clone();
                    return Some(Arriving { incoming, identity, permit });
                }
                Err(_) => incoming.refuse(),
            }
        }
    }

    /// Closes every connection, tells the peers why, and waits until they know or cannot be told.
    pub async fn close(&self, reason: &str) {
        self.quinn.close(CloseCode::ShuttingDown.wire(), reason.as_bytes());
        self.quinn.wait_idle().await;
    }
}

/// A peer that has knocked and not yet shown who it is.
#[derive(Debug)]
pub struct Arriving {
    incoming: quinn::Incoming,
    identity: Identity,
    permit: OwnedSemaphorePermit,
}

impl Arriving {
    /// Completes the handshake: afterwards the peer's certificate is verified and read.
    pub async fn establish(self) -> Result<Connection, AcceptError> {
        let address = self.incoming.remote_address();
        let quinn = tokio::time::timeout(HANDSHAKE_DEADLINE, self.incoming)
            .await
            .map_err(|_| AcceptError::Failed { address, source: Cause::Silent })?
            .map_err(|error| AcceptError::Failed { address, source: Cause::of(&error) })?;
        drop(self.permit);
        Connection::identify(quinn, &self.identity)
            .map_err(|source| AcceptError::Stranger { address, source })
    }
}

fn socket(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
    socket.bind(&address.into())?;
    tracing::debug!(
        receive_bytes = socket.recv_buffer_size()?,
        send_bytes = socket.send_buffer_size()?,
        "socket buffers"
    );
    Ok(socket)
}
