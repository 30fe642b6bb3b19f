//! Peers that misbehave, die or come back: nobody else notices, and whoever must know is told.

use std::time::Duration;

use crate::support::raw::RawClient;
use crate::support::*;
use allhands_common::frame::{Header, Kind};
use allhands_common::net::access::Role;
use allhands_common::net::cause::{Cause, CloseCode, PeerCode};
use allhands_common::net::endpoint::{Endpoint, Expected};
use allhands_common::net::link::LinkError;
use bytes::Bytes;

/// A deterministic stream of bytes without any order in it.
fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_bytes_disturb_nobody_else() {
    let ca = authority(1);
    let mut server = serve_echo(identity(&ca, Role::Coordinator, "c1"));
    let endpoint = bind(identity(&ca, Role::Client, "alice"));
    let connection = soon(dial(&endpoint, server.address)).await.unwrap();
    let mut link = soon(open(&connection)).await.unwrap();

    let hostile = RawClient::with_certificate(&files(&ca, Role::Client, "mallory"));
    for seed in 0..200 {
        let attack = soon(hostile.connect(server.address, &ca)).await.unwrap();
        let (mut send, _receive) = soon(attack.open_bi()).await.unwrap();
        let mut bytes: Vec<u8> = noise(seed).take((seed as usize * 37) % 5_000).collect();
        // One in two looks like a frame of ours at first.
        if seed % 2 == 0 && bytes.len() >= 16 {
            let kind = Kind::ALL[seed as usize % Kind::ALL.len()];
            bytes[..12].copy_from_slice(&Header::new(kind, 9, 0).unwrap().encode()[..12]);
        }
        // The server may stop the stream before all is written.
        let _ = soon(send.write_all(&bytes)).await;
        let _ = send.finish();
        let told = soon(server.refusals.recv()).await.unwrap();
        assert!(told.contains("client mallory at"), "{told}");
        soon(assert_echoes(&mut link, "undisturbed", Bytes::from_static(&[7; 10_000]))).await;
    }
    assert_eq!(connection.close_cause(), None);
}

#[tokio::test]
async fn an_oversized_frame_is_refused_from_its_header() {
    let ca = authority(1);
    let mut server = serve_echo(identity(&ca, Role::Coordinator, "c1"));
    let client = RawClient::with_certificate(&files(&ca, Role::Client, "mallory"));
    let connection = soon(client.connect(server.address, &ca)).await.unwrap();
    let (mut send, _receive) = soon(connection.open_bi()).await.unwrap();
    let mut header = Header::new(Kind::Hello, 0, 0).unwrap().encode();
    header[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
    // The head itself is never sent: the refusal must not wait for it.
    send.write_all(&header).await.unwrap();
    let told = soon(server.refusals.recv()).await.unwrap();
    assert!(
        told.ends_with("head of a Hello frame is 4294967295 bytes long, the limit is 16384"),
        "{told}"
    );
    let cause = Cause::of(&soon(connection.closed()).await);
    assert_eq!(
        cause.to_string(),
        "the peer closed the connection (we broke the protocol): head of a Hello frame is 4294967295 \
         bytes long, the limit is 16384"
    );
    assert!(!cause.retry_can_help());
}

#[tokio::test]
async fn a_link_that_turns_hostile_is_cut() {
    let ca = authority(1);
    let mut server = serve_echo(identity(&ca, Role::Coordinator, "c1"));
    let client = RawClient::with_certificate(&files(&ca, Role::Client, "mallory"));
    let connection = soon(client.connect(server.address, &ca)).await.unwrap();
    let (mut send, mut receive) = soon(raw_hello(&connection, &ca)).await;
    let mut welcome = [0; 16];
    soon(receive.read_exact(&mut welcome)).await.unwrap();
    assert_eq!(Header::decode(&welcome).unwrap().kind(), Kind::Welcome);

    let wrong_role = Header::new(Kind::WorkerToCoordinator, 0, 0).unwrap();
    send.write_all(&wrong_role.encode()).await.unwrap();
    let told = soon(server.refusals.recv()).await.unwrap();
    assert!(
        told.ends_with(
            "a frame of kind WorkerToCoordinator on a link that carries ClientToCoordinator"
        ),
        "{told}"
    );
    let cause = Cause::of(&soon(connection.closed()).await);
    assert!(matches!(
        cause,
        Cause::ClosedByPeer { code: PeerCode::Known(CloseCode::Protocol), .. }
    ));
}

async fn raw_hello(
    connection: &quinn::Connection,
    ca: &allhands_common::net::authority::Authority,
) -> (quinn::SendStream, quinn::RecvStream) {
    let (mut send, receive) = connection.open_bi().await.unwrap();
    let hello = allhands_common::net::handshake::Hello {
        cluster: ca.cluster(),
        purpose: allhands_common::net::access::Purpose::Client,
        build: String::new(),
    };
    let mut head = Vec::new();
    allhands_common::codec::encode(&hello, &mut head).unwrap();
    send.write_all(&Header::new(Kind::Hello, head.len(), 0).unwrap().encode()).await.unwrap();
    send.write_all(&head).await.unwrap();
    (send, receive)
}

#[tokio::test]
async fn a_close_is_noticed_with_its_reason() {
    let ca = authority(1);
    let server = bind(identity(&ca, Role::Coordinator, "c1"));
    let endpoint = bind(identity(&ca, Role::Worker, "w1"));
    let address = server.local_address().unwrap();
    let (near, far) = tokio::join!(soon(dial(&endpoint, address)), async {
        soon(server.accept()).await.unwrap().establish().await.unwrap()
    });
    let near = near.unwrap();
    assert_eq!(far.peer().to_string(), "worker w1");
    far.close(CloseCode::Refused, "certificate revoked");
    let cause = soon(near.closed()).await;
    assert_eq!(
        cause,
        Cause::ClosedByPeer {
            code: PeerCode::Known(CloseCode::Refused),
            reason: "certificate revoked".to_owned()
        }
    );
    assert_eq!(
        cause.to_string(),
        "the peer closed the connection (we are refused): certificate revoked"
    );
    assert!(!cause.in_order() && !cause.retry_can_help());
    assert_eq!(soon(far.closed()).await, Cause::ClosedHere);
}

#[tokio::test]
async fn an_endpoint_that_shuts_down_ends_links_in_order() {
    let ca = authority(1);
    let server = bind(identity(&ca, Role::Coordinator, "c1"));
    let endpoint = bind(identity(&ca, Role::Worker, "w1"));
    let address = server.local_address().unwrap();
    let (near, _far) = tokio::join!(soon(dial(&endpoint, address)), async {
        soon(server.accept()).await.unwrap().establish().await.unwrap()
    });
    soon(server.close("update")).await;
    let cause = soon(near.unwrap().closed()).await;
    assert!(cause.in_order() && cause.retry_can_help(), "{cause:?}");
    assert_eq!(cause.to_string(), "the peer closed the connection (it is shutting down): update");
    assert!(soon(server.accept()).await.is_none());
}

/// With 64 handshakes under way a newcomer must first prove its address; whoever does so gets in.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_at_the_door_gets_in() {
    const CROWD: usize = 80;
    let ca = authority(1);
    let server = bind(identity(&ca, Role::Coordinator, "c1"));
    let endpoint = bind(identity(&ca, Role::Worker, "w1"));
    let address = server.local_address().unwrap();
    let dials: Vec<_> = (0..CROWD)
        .map(|_| {
            let endpoint = endpoint.clone();
            tokio::spawn(async move { dial(&endpoint, address).await })
        })
        .collect();
    // Nobody is let in before everybody has knocked, so that the later ones find the door crowded.
    let mut arriving = Vec::new();
    for _ in 0..CROWD {
        arriving.push(soon(server.accept()).await.unwrap());
    }
    let mut inside = Vec::new();
    for one in arriving {
        inside.push(soon(one.establish()).await.unwrap());
    }
    for dial in dials {
        soon(dial).await.unwrap().unwrap();
    }
}

/// A coordinator in a runtime of its own, which can be torn down without a word to anybody, as by a kill.
struct Mortal {
    runtime: tokio::runtime::Runtime,
    address: std::net::SocketAddr,
}

impl Mortal {
    fn start(
        identity: allhands_common::net::identity::Identity,
        address: std::net::SocketAddr,
    ) -> Result<Self, allhands_common::net::endpoint::BindError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let endpoint = {
            let _guard = runtime.enter();
            Endpoint::bind(identity, address)?
        };
        let address = endpoint.local_address().unwrap();
        runtime.spawn(async move {
            while let Some(arriving) = endpoint.accept().await {
                tokio::spawn(async move {
                    let connection = arriving.establish().await.unwrap();
                    connection.closed().await
                });
            }
        });
        Ok(Self { runtime, address })
    }

    async fn kill(self) {
        tokio::task::spawn_blocking(|| self.runtime.shutdown_timeout(DEADLINE)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_peer_is_noticed() {
    let ca = authority(1);
    let server = Mortal::start(identity(&ca, Role::Coordinator, "c1"), LOOPBACK).unwrap();
    let endpoint = bind(identity(&ca, Role::Worker, "w1"));
    let connection = soon(dial(&endpoint, server.address)).await.unwrap();
    server.kill().await;
    let cause = soon(connection.closed()).await;
    assert_eq!(cause, Cause::Silent);
    let error = LinkError::Lost { peer: connection.label().clone(), source: cause };
    assert!(error.retry_can_help());
}

/// A peer that comes back on its address with its folder disowns the connections of its former life,
/// which is sooner than any idle timeout. A machine too busy to bring it back within that timeout gets
/// another try.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_peer_is_noticed_at_once() {
    let ca = authority(1);
    let coordinator = identity(&ca, Role::Coordinator, "c1");
    let endpoint = bind(identity(&ca, Role::Worker, "w1"));
    let mut server = Mortal::start(coordinator.clone(), LOOPBACK).unwrap();
    for _ in 0..20 {
        let address = server.address;
        let expected = Expected { role: Role::Coordinator, name: Some("c1") };
        let connection = soon(endpoint.connect(address, expected, DEADLINE)).await.unwrap();
        server.kill().await;
        server = soon(async {
            loop {
                match Mortal::start(coordinator.clone(), address) {
                    Ok(server) => return server,
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        })
        .await;
        if soon(connection.closed()).await == Cause::Restarted {
            return server.kill().await;
        }
    }
    panic!("never told that the peer was restarted");
}
