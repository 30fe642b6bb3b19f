//! Every way of not being let in, over real QUIC on loopback: each is a clear sentence, on the side that
//! can act on it.

use std::net::SocketAddr;

use crate::support::raw::{self, RawClient};
use crate::support::*;
use allhands_common::frame::{FrameError, HEADER_BYTES, Header, Kind, PROTOCOL_VERSION};
use allhands_common::net::access::{Purpose, Role};
use allhands_common::net::cause::Cause;
use allhands_common::net::endpoint::{ConnectError, Expected};
use allhands_common::net::handshake::{OpenError, Refusal, open_link};
use allhands_common::net::link::LinkError;

fn cause(error: &ConnectError) -> &Cause {
    match error {
        ConnectError::Failed { source, .. } => source,
        other => panic!("another error: {other:?}"),
    }
}

/// Dials `server` as a client of `ca` and expects that it fails.
async fn refused(ca_seed: u8, address: SocketAddr) -> ConnectError {
    let endpoint = bind(identity(&authority(ca_seed), Role::Client, "alice"));
    soon(dial(&endpoint, address)).await.unwrap_err()
}

#[tokio::test]
async fn nothing_listens() {
    let free = std::net::UdpSocket::bind(LOOPBACK).unwrap().local_addr().unwrap();
    let error = refused(1, free).await;
    assert_eq!(*cause(&error), Cause::NoAnswer);
    assert!(error.retry_can_help());
    assert!(chain(&error).starts_with(&format!("no connection to {free}: nothing answers: check")));
}

#[tokio::test]
async fn a_server_of_another_cluster() {
    let server = serve_echo(identity(&authority(2), Role::Coordinator, "c1"));
    let error = refused(1, server.address).await;
    assert_eq!(*cause(&error), Cause::PeerOfOtherCluster);
    assert!(!error.retry_can_help());
    assert!(chain(&error).ends_with("it belongs to another cluster"), "{}", chain(&error));
}

#[tokio::test]
async fn an_expired_server() {
    let ca = authority(1);
    let server = serve_echo(expired(&ca, Role::Coordinator, "c1"));
    let endpoint = bind(identity(&ca, Role::Client, "alice"));
    let error = soon(dial(&endpoint, server.address)).await.unwrap_err();
    assert!(matches!(cause(&error), Cause::PeerExpired { .. }), "{error:?}");
    assert!(chain(&error).contains("the peer's certificate is out of date"), "{}", chain(&error));
}

#[tokio::test]
async fn a_server_of_another_role() {
    let ca = authority(1);
    let server = serve_echo(identity(&ca, Role::Worker, "w1"));
    let endpoint = bind(identity(&ca, Role::Client, "alice"));
    let error = soon(dial(&endpoint, server.address)).await.unwrap_err();
    assert!(matches!(cause(&error), Cause::PeerOfOtherRole { .. }), "{error:?}");
    let text = chain(&error);
    assert!(text.contains("coordinator.") && text.contains("worker."), "names both: {text}");
}

#[tokio::test]
async fn a_server_of_another_name() {
    let ca = authority(1);
    let server = serve_echo(identity(&ca, Role::Coordinator, "c2"));
    let endpoint = bind(identity(&ca, Role::Client, "alice"));
    let expected = Expected { role: Role::Coordinator, name: Some("c1") };
    let error = soon(endpoint.connect(server.address, expected, DEADLINE)).await.unwrap_err();
    let address = server.address;
    assert_eq!(
        error.to_string(),
        format!("{address} is coordinator c2, not coordinator c1; correct the address")
    );
}

#[tokio::test]
async fn an_expired_client_learns_it_at_its_first_link() {
    let ca = authority(1);
    let mut server = serve_echo(identity(&ca, Role::Coordinator, "c1"));
    let endpoint = bind(expired(&ca, Role::Client, "alice"));
    let connection = soon(dial(&endpoint, server.address)).await.unwrap();
    let error = soon(open(&connection)).await.unwrap_err();
    assert!(!error.retry_can_help());
    assert!(
        chain(&error).contains("the peer refused our certificate as out of date"),
        "{}",
        chain(&error)
    );
    let told = soon(server.refusals.recv()).await.unwrap();
    assert!(told.contains("the peer's certificate is out of date"), "{told}");
}

#[tokio::test]
async fn a_client_without_a_certificate() {
    let ca = authority(1);
    let mut server = serve_echo(identity(&ca, Role::Coordinator, "c1"));
    let client = RawClient::without_certificate(&files(&ca, Role::Client, "alice"));
    let connection = soon(client.connect(server.address, &ca)).await.unwrap();
    let error = soon(connection.closed()).await;
    assert_eq!(Cause::of(&error), Cause::WeShowedNone);
    assert!(soon(server.refusals.recv()).await.unwrap().contains("the handshake with 127.0.0.1:"));
}

#[tokio::test]
async fn a_client_of_another_cluster_that_trusts_ours() {
    let (ours, theirs) = (authority(1), authority(2));
    let mut server = serve_echo(identity(&ours, Role::Coordinator, "c1"));
    let mut mixed = files(&theirs, Role::Client, "mallory");
    mixed.ca_pem = files(&ours, Role::Client, "alice").ca_pem;
    let client = RawClient::with_certificate(&mixed);
    let connection = soon(client.connect(server.address, &ours)).await.unwrap();
    let error = soon(connection.closed()).await;
    assert_eq!(Cause::of(&error), Cause::WeAreOfOtherCluster);
    let told = soon(server.refusals.recv()).await.unwrap();
    assert!(told.contains("the peer's certificate was issued by another authority"), "{told}");
}

#[tokio::test]
async fn another_application_protocol() {
    let ca = authority(1);
    let server = serve_echo(identity(&ca, Role::Coordinator, "c1"));
    let mut client = RawClient::with_certificate(&files(&ca, Role::Client, "alice"));
    client.alpn = b"h3".to_vec();
    let error = soon(client.connect(server.address, &ca)).await.unwrap_err();
    assert_eq!(Cause::of(&error), Cause::OtherProtocol);
    assert!(Cause::of(&error).to_string().contains("this one speaks allhands/1"));
}

#[tokio::test]
async fn a_worker_may_not_open_a_client_link_but_goes_on() {
    let ca = authority(1);
    let mut server = serve_echo(identity(&ca, Role::Coordinator, "c1"));
    let endpoint = bind(identity(&ca, Role::Worker, "w1"));
    let connection = soon(dial(&endpoint, server.address)).await.unwrap();
    for _ in 0..2 {
        let error = soon(open(&connection)).await.unwrap_err();
        let refusal = Refusal::Role {
            opener: Role::Worker,
            purpose: Purpose::Client,
            acceptor: Role::Coordinator,
        };
        assert!(
            matches!(&error, OpenError::Refused { source, .. } if *source == refusal),
            "{error:?}"
        );
        let address = server.address;
        assert_eq!(
            chain(&error),
            format!(
                "coordinator c1 at {address} refused the link: a worker may not open a client link \
                 to a coordinator; use an identity of another role"
            )
        );
        let told = soon(server.refusals.recv()).await.unwrap();
        assert!(told.starts_with("a link of worker w1 at "), "{told}");
    }
    assert_eq!(connection.close_cause(), None);
}

#[tokio::test]
async fn an_admin_may_open_a_client_link() {
    let ca = authority(1);
    let server = serve_echo(identity(&ca, Role::Coordinator, "c1"));
    let endpoint = bind(identity(&ca, Role::Admin, "root"));
    let connection = soon(dial(&endpoint, server.address)).await.unwrap();
    let mut link = soon(open(&connection)).await.unwrap();
    soon(assert_echoes(&mut link, "hello", bytes::Bytes::new())).await;
}

#[tokio::test]
async fn types_that_do_not_fit_the_purpose_are_a_bug_and_say_so() {
    let ca = authority(1);
    let server = serve_echo(identity(&ca, Role::Coordinator, "c1"));
    let endpoint = bind(identity(&ca, Role::Client, "alice"));
    let connection = soon(dial(&endpoint, server.address)).await.unwrap();
    let error =
        soon(open_link::<Down, Up>(&connection, Purpose::Client, "test")).await.unwrap_err();
    assert!(matches!(error, OpenError::Kinds { .. }));
}

/// One that this build does not speak.
const NEXT_VERSION: u16 = PROTOCOL_VERSION + 1;

/// A header of `kind` as the next protocol version would write it.
fn header_of_next_version(kind: Kind) -> [u8; HEADER_BYTES] {
    let mut bytes = Header::new(kind, 0, 0).unwrap().encode();
    bytes[4..6].copy_from_slice(&NEXT_VERSION.to_le_bytes());
    bytes
}

#[tokio::test]
async fn an_opener_of_another_version_is_refused_with_both_versions() {
    let ca = authority(1);
    let mut server = serve_echo(identity(&ca, Role::Coordinator, "c1"));
    let client = RawClient::with_certificate(&files(&ca, Role::Client, "alice"));
    let connection = soon(client.connect(server.address, &ca)).await.unwrap();
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&header_of_next_version(Kind::Hello)).await.unwrap();
    let mut answer = [0; HEADER_BYTES];
    soon(receive.read_exact(&mut answer)).await.unwrap();
    // Magic, version and kind stand where every version looks for them.
    let [low, high] = PROTOCOL_VERSION.to_le_bytes();
    assert_eq!(answer[..8], [b'A', b'H', b'N', b'D', low, high, 3, 0]);
    assert_eq!(Header::decode(&answer).unwrap().kind(), Kind::Refused);
    let told = soon(server.refusals.recv()).await.unwrap();
    let both = format!(
        "the opener speaks protocol {NEXT_VERSION}, the acceptor protocol {PROTOCOL_VERSION}"
    );
    assert!(told.contains(&both), "{told}");
}

#[tokio::test]
async fn an_acceptor_of_another_version_is_named_with_both_versions() {
    let ca = authority(1);
    let server = raw::serve(&files(&ca, Role::Coordinator, "c1"));
    let address = server.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let connection = server.accept().await.unwrap().await.unwrap();
        let (mut send, _receive) = connection.accept_bi().await.unwrap();
        send.write_all(&header_of_next_version(Kind::Refused)).await.unwrap();
        connection.closed().await
    });
    let endpoint = bind(identity(&ca, Role::Client, "alice"));
    let connection = soon(dial(&endpoint, address)).await.unwrap();
    let error = soon(open(&connection)).await.unwrap_err();
    let expected = FrameError::Version { theirs: NEXT_VERSION, ours: PROTOCOL_VERSION };
    assert!(
        matches!(
            &error,
            OpenError::Link { source: LinkError::Frame { source, .. } } if *source == expected
        ),
        "{error:?}"
    );
    let both = format!(
        "the peer speaks protocol {NEXT_VERSION}, this process speaks protocol {PROTOCOL_VERSION}"
    );
    assert!(chain(&error).contains(&both));
    drop((connection, endpoint));
    serving.abort();
}
