//! A link that is kept, over real QUIC on loopback.

use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Mutex;

use crate::support::{Down as Back, Up, authority, chain, identity, serve_echo, soon};
use allhands_common::net::access::{Purpose, Role};
use allhands_common::net::authority::Authority;
use allhands_common::net::dial::{self, Dialler, Down, Event};
use allhands_common::net::endpoint::Endpoint;
use allhands_common::net::place::Place;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

fn place(addresses: Vec<SocketAddr>) -> Place {
    Place { name: "here".into(), addresses }
}

fn dialler(authority: &Authority, addresses: Vec<SocketAddr>) -> Dialler {
    let place = place(addresses);
    let identity = identity(authority, Role::Client, "alice");
    let endpoint = Endpoint::bind_to_dial(identity, std::slice::from_ref(&place)).unwrap();
    Dialler { endpoint, place, purpose: Purpose::Client, build: "test" }
}

/// A port of `ip` on which nobody answers.
fn deaf(ip: impl Into<std::net::IpAddr>) -> std::net::UdpSocket {
    std::net::UdpSocket::bind((ip.into(), 0)).unwrap()
}

#[tokio::test]
async fn a_kept_link_carries_both_ways_until_nobody_listens() {
    let authority = authority(1);
    let server = serve_echo(identity(&authority, Role::Coordinator, "coordinator-7"));
    let dialler = dialler(&authority, vec![server.address]);
    let (events, mut heard) = unbounded_channel();
    let out: Mutex<Option<UnboundedSender<Up>>> = Mutex::default();
    let kept = dialler.keep(|event: Event<Up, Back>| {
        let goes_on = match event {
            Event::Up { coordinator, out: new } => {
                new.send(Up("hello".into())).unwrap();
                *out.lock().unwrap() = Some(new);
                events.send(format!("up {coordinator:?}")).is_ok()
            }
            Event::Said(Back(text)) => {
                events.send(text).unwrap();
                out.lock().unwrap().take();
                false
            }
            Event::Down(down) => panic!("{down}"),
        };
        std::future::ready(goes_on)
    });
    soon(kept).await;
    assert_eq!(heard.recv().await.unwrap(), "up Some(CoordinatorId(7))");
    assert_eq!(heard.recv().await.unwrap(), "hello");
}

#[tokio::test]
async fn the_address_that_answers_is_found_among_those_of_a_name() {
    let authority = authority(1);
    let server = serve_echo(identity(&authority, Role::Coordinator, "c1"));
    let silent = deaf(std::net::Ipv4Addr::LOCALHOST).local_addr().unwrap();
    // As `localhost` is on most machines; one without IPv6 cannot dial it, which is no reason to fail.
    let v6 = (Ipv6Addr::LOCALHOST, silent.port()).into();
    let dialler = dialler(&authority, vec![v6, silent, server.address]);
    let (_, connection) = soon(dialler.dial::<Up, Back>()).await.unwrap();
    assert_eq!(connection.remote_address().port(), server.address.port());
}

#[tokio::test]
async fn who_answers_and_refuses_says_more_than_who_is_silent() {
    let server = serve_echo(identity(&authority(2), Role::Coordinator, "c1"));
    let silent = deaf(std::net::Ipv4Addr::LOCALHOST);
    let addresses = vec![silent.local_addr().unwrap(), server.address];
    let down = soon(dialler(&authority(1), addresses).dial::<Up, Back>()).await.unwrap_err();
    assert!(!down.retry_can_help() && chain(&down).contains("another cluster"), "{down:?}");

    let alone = vec![silent.local_addr().unwrap()];
    let down = soon(dialler(&authority(1), alone).dial::<Up, Back>()).await.unwrap_err();
    assert!(down.retry_can_help() && matches!(down, Down::Connect(_)), "{down:?}");
}

#[tokio::test]
async fn what_was_put_in_is_still_sent_when_nobody_listens_any_more() {
    let (near, far) = allhands_common::net::link::Link::<Up, Back>::pair(4);
    let (mut sender, mut receiver) = far.split();
    let out: Mutex<Option<UnboundedSender<Up>>> = Mutex::default();
    let served = dial::serve(near, None, |event| {
        let mut out = out.lock().unwrap();
        match event {
            Event::Up { out: new, .. } => *out = Some(new),
            Event::Said(_) => out.take().unwrap().send(Up("last words".into())).unwrap(),
            Event::Down(down) => panic!("{down}"),
        }
        std::future::ready(out.is_some())
    });
    let far = async {
        sender.say(Back("unheard".into())).await.unwrap();
        sender.flush().await.unwrap();
        assert_eq!(receiver.hear().await.unwrap(), Some(Up("last words".into())));
        receiver.hear().await.unwrap()
    };
    let (ended, rest) = soon(Box::pin(async { tokio::join!(served, far) })).await;
    assert!(ended.is_none() && rest.is_none());
}
