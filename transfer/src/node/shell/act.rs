//! What the exchange wants done.

use std::sync::Arc;

use allhands_common::wire::data::{Answer, Ask, FAILED_MAX};
use tokio::sync::mpsc;

use super::super::asking::{self, ASKS_MAX, Way};
use super::super::error::FetchError;
use super::super::jobs;
use super::super::pending::{Pages, Part, Pending};
use super::super::serving::Outgoing;
use super::{Asking, Input, Report, Shell};
use crate::exchange::{Action, Event, Peer, Refused, Unfetched, Want};

impl Shell {
    /// Does one thing; what cannot be done is added to `failed`.
    pub(super) fn act(&mut self, action: Action, failed: &mut Vec<Event>) {
        match action {
            Action::AskManifest { peer, request, blob } => {
                let part = Part::Manifest(Pages::default());
                self.requests.insert(request, Pending { peer, blob, part });
                self.ask(peer, Ask::Manifest { request: request.0, blob, first: 0 });
            }
            Action::Ask { peer, request, blob, chunk, failed: tried } => {
                let fetched = self.blobs.get(&blob).and_then(|blob| blob.fetched.as_ref());
                let manifest = fetched.map(|fetched| &fetched.manifest);
                let Some(id) = manifest.and_then(|all| all.chunks().get(chunk as usize)) else {
                    // Its last waiter has left in this very step.
                    failed.push(Event::Refused { request, why: Refused::NotHere });
                    return;
                };
                let part = Part::Chunk { chunk, id: *id };
                self.requests.insert(request, Pending { peer, blob, part });
                let tried = tried.into_iter().filter_map(|peer| self.peers.node(peer));
                let failed = tried.take(FAILED_MAX).cloned().collect();
                self.ask(peer, Ask::Chunk { request: request.0, blob, chunk, failed });
            }
            Action::Cancel { peer, request } => {
                self.requests.cancel(request);
                if self.asking.contains_key(&peer) {
                    self.ask(peer, Ask::Cancel { request: request.0 });
                }
            }
            Action::Follow { peer, blob } => self.ask(peer, Ask::Follow { blob }),
            Action::Unfollow { peer, blob } => {
                if self.asking.contains_key(&peer) {
                    self.ask(peer, Ask::Unfollow { blob });
                }
            }
            Action::GiveUp { peer } => {
                if let Some(asking) = self.asking.remove(&peer) {
                    asking.task.abort();
                }
                self.requests.gone(peer);
            }
            Action::Report { peer, blob } => {
                if let Some(node) = self.peers.node(peer).cloned() {
                    tracing::warn!(%node, %blob, "wrong bytes were sent; not asked for this blob again");
                    self.report(Report::Wrong { node, blob });
                }
            }
            Action::Finish { want, result } => self.finish(want, result),
            Action::Serve { ticket, blob, chunk } => {
                let (store, inputs) = (Arc::clone(&self.store.0), self.inputs.clone());
                self.tasks.spawn(async move {
                    let found = jobs::read_chunk(store, blob, chunk).await;
                    // A loop that has ended has no use for it.
                    let _ = inputs.send(Input::ChunkRead { ticket, blob, chunk, found }).await;
                });
            }
            Action::Redirect { ticket, to } => {
                let request = ticket.request;
                let answer = match self.peers.holder(to) {
                    Some(holder) => Answer::Redirect { request, holder },
                    None => Answer::Busy { request },
                };
                self.answer(ticket.peer, Outgoing { answer, settles: None });
            }
            Action::Refuse { ticket, why } => {
                let request = ticket.request;
                let answer = match why {
                    Refused::NotHere => Answer::NotHere { request },
                    Refused::Busy => Answer::Busy { request },
                };
                self.answer(ticket.peer, Outgoing { answer, settles: None });
            }
            Action::LookUp { blob, peer } => {
                let (store, inputs) = (Arc::clone(&self.store.0), self.inputs.clone());
                self.tasks.spawn(async move {
                    let chunks = jobs::present(store, blob).await;
                    let event = Event::Present { peer, blob, chunks };
                    // A loop that has ended has no use for it.
                    let _ = inputs.send(Input::Happened(event)).await;
                });
            }
            Action::Tell { peer, blob, chunks, others } => {
                let others = others.into_iter().filter_map(|other| self.peers.holder(other));
                let answer = Answer::Have { blob, chunks, others: others.collect() };
                self.answer(peer, Outgoing { answer, settles: None });
            }
        }
    }

    pub(super) fn report(&mut self, report: Report) {
        // If nobody reads the reports, the log has them.
        let _ = self.reports.try_send(report);
    }

    /// Puts an ask on the link to `peer`, which is opened if there is none.
    pub(super) fn ask(&mut self, peer: Peer, ask: Ask) {
        if !self.asking.contains_key(&peer) {
            let Some((node, addresses, connection)) = self.peers.way_to(peer) else { return };
            let (asks, queue) = mpsc::channel(ASKS_MAX);
            self.links += 1;
            let link = self.links;
            let (endpoint, counter) = (self.endpoint.clone(), self.counter.clone());
            let way = Way { endpoint, node, addresses, connection, counter };
            let (here, inputs) = (self.options.addresses.clone(), self.inputs.clone());
            let task = self.tasks.spawn(asking::run((peer, link), way, here, queue, inputs));
            self.asking.insert(peer, Asking { link, asks, task });
        }
        let Some(asking) = self.asking.get(&peer) else { return };
        if let Err(mpsc::error::TrySendError::Full(_)) = asking.asks.try_send(ask) {
            // It ends, and the exchange learns that as of any other link.
            let (link, inputs) = (asking.link, self.inputs.clone());
            asking.task.abort();
            self.tasks.spawn(async move {
                let why = asking::Unasked::Ended;
                // A loop that has ended has no use for it.
                let _ = inputs.send(Input::AskingEnded { peer, link, why }).await;
            });
        }
        // A closed queue is that of a link that has ended: the news of it are on their way.
    }

    /// Puts an answer on the link of an asker, if there still is one.
    pub(super) fn answer(&mut self, peer: Peer, outgoing: Outgoing) {
        let Some(answers) = self.askers.get(&peer) else { return };
        if answers.try_send(outgoing).is_err() {
            // It does not read: its link ends with its queue, and the exchange forgets it.
            self.askers.remove(&peer);
            let (inputs, event) = (self.inputs.clone(), Event::AskerGone { peer });
            self.tasks.spawn(async move {
                // A loop that has ended has no use for it.
                let _ = inputs.send(Input::Happened(event)).await;
            });
        }
    }

    fn finish(&mut self, want: Want, result: Result<(), Unfetched>) {
        let holds = |blob: &super::Awaited| blob.waiters.contains_key(&want);
        let found = self.blobs.iter_mut().find(|(_, awaited)| holds(awaited));
        let Some((blob, awaited)) = found else { return };
        let blob = *blob;
        let Some(waiter) = awaited.waiters.remove(&want) else { return };
        let (fetched, failure) = (awaited.fetched.clone(), awaited.failure.clone());
        let expected = core::mem::take(&mut awaited.expected);
        let other_length = awaited.lengths.first_key_value().map(|(peer, bytes)| (*peer, *bytes));
        if awaited.waiters.is_empty() {
            self.blobs.remove(&blob);
        }
        let unreached = self.unreached(&expected);
        if let Some(awaited) = self.blobs.get_mut(&blob) {
            awaited.expected = expected;
        }
        let outcome = match result {
            Ok(()) => fetched.ok_or(FetchError::Stopped { blob }),
            Err(Unfetched::Lost { holders }) => {
                if fetched.is_none()
                    && let Some((peer, bytes)) = other_length
                    && let Some(node) = self.peers.node(peer).cloned()
                {
                    let expected = waiter.length;
                    let error = FetchError::OtherLength { node, blob, expected, bytes };
                    // Whoever asked may have gone in this moment.
                    let _ = waiter.done.send(Err(error));
                    return;
                }
                let nodes = holders.into_iter().filter_map(|peer| self.peers.node(peer));
                let holders = nodes.cloned().collect();
                Err(FetchError::BlobLost { blob, holders, unreached })
            }
            Err(Unfetched::Late { missing }) => Err(FetchError::Late { blob, missing }),
            Err(Unfetched::Store) => Err(failure
                .map_or(FetchError::Stopped { blob }, |source| FetchError::Store { blob, source })),
        };
        // Whoever asked may have gone in this moment.
        let _ = waiter.done.send(outcome);
    }
}
