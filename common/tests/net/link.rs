//! Links over real QUIC on loopback and inside the process: the same behaviour on both.

use crate::support::*;
use allhands_common::frame::{FrameError, Kind};
use allhands_common::net::access::Role;
use allhands_common::net::link::{Link, LinkError};
use bytes::Bytes;

const BULK_BYTES_MAX: usize = Kind::ClientToCoordinator.bulk_bytes_max() as usize;

/// One end of a link whose other end echoes, and what keeps that end alive.
async fn quic() -> (Link<Up, Down>, impl Sized) {
    let ca = authority(1);
    let server = serve_echo(identity(&ca, Role::Coordinator, "c1"));
    let endpoint = bind(identity(&ca, Role::Client, "alice"));
    let connection = dial(&endpoint, server.address).await.unwrap();
    (open(&connection).await.unwrap(), (server, endpoint, connection))
}

fn local() -> (Link<Up, Down>, impl Sized) {
    let (near, far) = Link::<Up, Down>::pair(4);
    let echo = tokio::spawn(async move {
        let (mut sender, mut receiver) = far.split();
        while let Some((Up(text), bulk)) = receiver.recv().await.unwrap() {
            sender.send(Down(text), bulk).await.unwrap();
        }
        sender.finish().await.unwrap();
    });
    (near, echo)
}

fn pattern(bytes: usize) -> Bytes {
    (0..bytes).map(|at| (at * 31 + at / 251) as u8).collect::<Vec<_>>().into()
}

async fn echoes_every_size(mut link: Link<Up, Down>) {
    for bytes in [0, 1, 4 << 10, (4 << 10) + 1, 100_000, 4 << 20, BULK_BYTES_MAX] {
        assert_echoes(&mut link, "size", pattern(bytes)).await;
    }
    assert_echoes(&mut link, &"head ".repeat(100_000), Bytes::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quic_echoes_every_size() {
    let (link, _alive) = soon(quic()).await;
    soon(echoes_every_size(link)).await;
}

#[tokio::test]
async fn local_echoes_every_size() {
    let (link, _alive) = local();
    soon(echoes_every_size(link)).await;
}

/// Feeds many frames, some with bulk, finishes, and expects all of them in order and then the end.
async fn keeps_order_to_the_end(link: Link<Up, Down>) {
    let (mut sender, mut receiver) = link.split();
    let feeding = async move {
        for number in 0..5_000 {
            let bulk = if number % 10 == 0 { pattern(number * 3) } else { Bytes::new() };
            sender.feed(Up(number.to_string()), bulk).await.unwrap();
        }
        sender.finish().await.unwrap();
    };
    let receiving = async move {
        for number in 0..5_000 {
            let (Down(text), bulk) = receiver.recv().await.unwrap().unwrap();
            assert_eq!(text, number.to_string());
            assert_eq!(bulk, if number % 10 == 0 { pattern(number * 3) } else { Bytes::new() });
        }
        assert_eq!(receiver.recv().await.unwrap(), None);
        assert_eq!(receiver.recv().await.unwrap(), None, "the end stays the end");
    };
    tokio::join!(feeding, receiving);
}

#[tokio::test(flavor = "multi_thread")]
async fn quic_keeps_order_to_the_end() {
    let (link, _alive) = soon(quic()).await;
    soon(keeps_order_to_the_end(link)).await;
}

#[tokio::test]
async fn local_keeps_order_to_the_end() {
    let (link, _alive) = local();
    soon(keeps_order_to_the_end(link)).await;
}

/// Drops a `recv` again and again in the middle of a frame.
async fn receives_whole_frames_when_interrupted(link: Link<Up, Down>) {
    let (mut sender, mut receiver) = link.split();
    let sending = async move {
        for _ in 0..3 {
            sender.send(Up("big".to_owned()), pattern(BULK_BYTES_MAX)).await.unwrap();
        }
        sender
    };
    let receiving = async move {
        let mut received = 0;
        while received < 3 {
            let frame = tokio::select! {
                biased;
                frame = receiver.recv() => frame.unwrap().unwrap(),
                () = tokio::task::yield_now() => continue,
            };
            assert_eq!(frame, (Down("big".to_owned()), pattern(BULK_BYTES_MAX)));
            received += 1;
        }
    };
    tokio::join!(sending, receiving);
}

#[tokio::test(flavor = "multi_thread")]
async fn quic_receives_whole_frames_when_interrupted() {
    let (link, _alive) = soon(quic()).await;
    soon(receives_whole_frames_when_interrupted(link)).await;
}

#[tokio::test]
async fn local_receives_whole_frames_when_interrupted() {
    let (link, _alive) = local();
    soon(receives_whole_frames_when_interrupted(link)).await;
}

/// What is too large is refused before anything is sent, and the link goes on.
async fn refuses_to_send_too_much(mut link: Link<Up, Down>) {
    let error = link.send(Up("x".to_owned()), pattern(BULK_BYTES_MAX + 1)).await.unwrap_err();
    assert!(
        matches!(&error, LinkError::Oversized { source: FrameError::BulkTooLong { .. }, .. }),
        "{error:?}"
    );
    assert!(!error.retry_can_help());
    assert_echoes(&mut link, "still there", Bytes::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quic_refuses_to_send_too_much() {
    let (mut link, _alive) = soon(quic()).await;
    let max = Kind::ClientToCoordinator.head_bytes_max();
    let error = soon(link.send(Up("x".repeat(max as usize)), Bytes::new())).await.unwrap_err();
    let text = chain(&error);
    assert!(text.contains("head of a ClientToCoordinator frame is"), "{text}");
    assert!(text.contains(&max.to_string()), "{text}");
    soon(refuses_to_send_too_much(link)).await;
}

#[tokio::test]
async fn local_refuses_to_send_too_much() {
    let (link, _alive) = local();
    soon(refuses_to_send_too_much(link)).await;
}

/// A sender that is dropped did not finish: frames may be missing, and the other side must know.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_sender_is_not_an_orderly_end() {
    let (near, far) = Link::<Up, Down>::pair(4);
    drop(near);
    let (_sender, mut receiver) = far.split();
    assert!(matches!(receiver.recv().await, Err(LinkError::Abandoned { .. })));

    let ca = authority(1);
    let mut server = serve_echo(identity(&ca, Role::Coordinator, "c1"));
    let endpoint = bind(identity(&ca, Role::Client, "alice"));
    let connection = soon(dial(&endpoint, server.address)).await.unwrap();
    let mut link = soon(open(&connection)).await.unwrap();
    soon(assert_echoes(&mut link, "established", Bytes::new())).await;
    drop(link);
    let told = soon(server.refusals.recv()).await.unwrap();
    assert!(told.starts_with("client alice at 127.0.0.1:"), "{told}");
    assert!(told.ends_with("gave the link up before its end"), "{told}");
}

#[tokio::test]
async fn a_sender_learns_that_nobody_receives() {
    let (mut near, far) = Link::<Up, Down>::pair(1);
    drop(far);
    let error = near.send(Up(String::new()), Bytes::new()).await.unwrap_err();
    assert!(matches!(error, LinkError::Stopped { .. }));
}

/// The bound of an in-process link holds: whoever does not receive stops whoever sends.
#[tokio::test]
async fn a_full_local_link_makes_its_sender_wait() {
    let (mut near, mut far) = Link::<Up, Down>::pair(2);
    for number in 0..2 {
        near.send(Up(number.to_string()), Bytes::new()).await.unwrap();
    }
    {
        let mut third = std::pin::pin!(near.send(Up("2".to_owned()), Bytes::new()));
        tokio::select! {
            biased;
            _ = &mut third => panic!("sent beyond the bound"),
            () = tokio::task::yield_now() => {}
        }
    }
    // The send was dropped while it waited: its frame is queued, and goes with the next flush.
    assert_eq!(far.recv().await.unwrap().unwrap().0, Up("0".to_owned()));
    let (mut sender, _receiver) = near.split();
    sender.flush().await.unwrap();
    assert_eq!(far.recv().await.unwrap().unwrap().0, Up("1".to_owned()));
    assert_eq!(far.recv().await.unwrap().unwrap().0, Up("2".to_owned()));
}

/// The load that `link::pace` is for. Without it this takes four times as long (6.2 s against 1.5 s), and
/// with a larger congestion window to start from the connection died of its own idle timeout.
#[tokio::test(flavor = "multi_thread")]
async fn tiny_frames_flushed_one_by_one_do_not_choke_the_connection() {
    let (link, _alive) = soon(quic()).await;
    let (mut sender, mut receiver) = link.split();
    let sending = tokio::spawn(async move {
        for _ in 0..200_000 {
            sender.send(Up(String::new()), Bytes::new()).await.unwrap();
        }
        sender.finish().await.unwrap();
    });
    let receiving = async {
        let mut received = 0;
        while receiver.recv().await.unwrap().is_some() {
            received += 1;
        }
        assert_eq!(received, 200_000);
    };
    soon(receiving).await;
    sending.await.unwrap();
}
