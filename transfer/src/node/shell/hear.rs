//! What has happened, in the exchange's words.

use std::sync::Arc;

use allhands_common::blob::BlobId;
use allhands_common::chain::chain;
use allhands_common::wire::data::{Answer, Ask, FAILED_MAX, HAVE_OTHERS_MAX, Holder};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::super::asking::Heard;
use super::super::error::FetchError;
use super::super::jobs::{self, Kept, Opened};
use super::super::pending::{Paged, Part, Pending};
use super::super::repair;
use super::super::serving::{self, Outgoing};
use super::super::{Fetched, Report};
use super::expected::Expected;
use super::{Input, NewWant, Shell, Waiter};
use crate::exchange::{Event, Known, Peer, Refused, Request, Ticket, Want, Wanted};
use crate::store::{Found, StoreError};

/// Manifests read for others at a time: each page is 1 MiB.
const MANIFESTS_READ_MAX: usize = 16;

impl Shell {
    pub(super) fn take(&mut self, input: Input) {
        match input {
            Input::Want(new) => self.want(*new),
            Input::Unwant(want) => {
                self.blobs.values_mut().for_each(|blob| drop(blob.waiters.remove(&want)));
                self.blobs.retain(|_, blob| !blob.waiters.is_empty());
                self.tell(Event::Unwant { want });
            }
            Input::Holders { blob, holders } => {
                if let Some(awaited) = self.blobs.get_mut(&blob) {
                    awaited.expected.add(&holders);
                }
                let holders = self.peers_of(holders);
                self.tell(Event::Holders { blob, holders });
            }
            Input::Connected(connection) => {
                let peer = self.peers.of_connection(&connection);
                let (counter, inputs) = (self.counter.clone(), self.inputs.clone());
                self.tasks.spawn(serving::connection(peer, connection, counter, inputs));
                self.came(peer);
            }
            Input::Disconnected(peer) => self.peers.disconnected(peer),
            Input::Answered { peer, link, answer } => {
                if self.asking.get(&peer).is_some_and(|asking| asking.link == link) {
                    match answer {
                        Heard::Chunk { request, pieces } => self.chunk_came(peer, request, pieces),
                        Heard::Other(answer) => self.answered(peer, answer),
                    }
                }
            }
            Input::AskingEnded { peer, link, why } => self.asking_ended(peer, link, &why),
            Input::ChunkKept { request, blob, chunk, kept } => match kept {
                Kept::Yes(()) => self.tell(Event::Stored { request, blob, chunk }),
                Kept::Wrong => self.tell(Event::Wrong { request }),
                Kept::Failed(error) => self.store_failed(blob, error),
            },
            Input::ManifestKept { request, blob, kept } => match kept {
                Kept::Yes(Opened { manifest, present, hold }) => {
                    let bytes = manifest.bytes();
                    if let Some(awaited) = self.blobs.get_mut(&blob) {
                        awaited.fetched.get_or_insert(Fetched { manifest, hold });
                    }
                    self.part_from_other_lengths(blob, bytes);
                    self.tell(Event::ManifestCame { request, blob, bytes, present });
                }
                Kept::Wrong => self.tell(Event::Wrong { request }),
                Kept::Failed(error) => self.store_failed(blob, error),
            },
            Input::Asked { peer, ask, answers } => self.asked(peer, ask, &answers),
            Input::AskerEnded { peer, answers } => {
                if self.askers.get(&peer).is_some_and(|held| held.same_channel(&answers)) {
                    self.askers.remove(&peer);
                    self.tell(Event::AskerGone { peer });
                }
            }
            Input::ChunkRead { ticket, blob, chunk, found } => match found {
                Found::Whole(bytes) => {
                    let answer = Answer::Chunk { request: ticket.request, bytes: bytes.into() };
                    self.answer(ticket.peer, Outgoing { answer, settles: Some(ticket) });
                }
                Found::Absent => self.tell(Event::Served { ticket, found: false }),
                Found::Damaged => {
                    // First: if it is fetched again anyway, whoever asked waits for it.
                    self.tell(Event::Damaged { blob, chunk });
                    self.tell(Event::Served { ticket, found: false });
                    self.report(Report::Damaged { blob, chunk });
                    self.repair(blob, chunk, ticket.peer);
                }
            },
            Input::Repaired { blob, chunk } => self.repairs.end(blob, chunk),
            Input::ManifestRead { ticket, first, page } => {
                self.manifests_read -= 1;
                let request = ticket.request;
                let answer = match page {
                    Some((bytes, ids)) => {
                        Answer::Manifest { request, bytes, first, ids: ids.into() }
                    }
                    None => Answer::NotHere { request },
                };
                self.answer(ticket.peer, Outgoing { answer, settles: None });
            }
            Input::Happened(event) => self.tell(event),
        }
    }

    fn want(&mut self, new: NewWant) {
        let NewWant { want, fetch, known, repair, done } = new;
        let blob = fetch.blob;
        let mut expected = Expected::default();
        expected.add(&fetch.holders);
        let holders = self.peers_of(fetch.holders);
        let awaited = self.blobs.get(&blob).and_then(|awaited| awaited.fetched.as_ref());
        let known_bytes = awaited.map(|fetched| fetched.manifest.bytes());
        let bytes = known.as_ref().map(|opened| opened.manifest.bytes()).or(known_bytes);
        if let Some(bytes) = bytes.filter(|bytes| *bytes != fetch.length) {
            let error = FetchError::Length { blob, expected: fetch.length, bytes };
            // Whoever asked may have gone in this moment.
            let _ = done.send(Err(error));
            return;
        }
        let awaited = self.blobs.entry(blob).or_default();
        let waiter = Waiter { length: fetch.length, bytes: fetch.bytes.clone(), done };
        awaited.waiters.insert(want, waiter);
        awaited.expected.join(expected);
        let known = known.map(|Opened { manifest, present, hold }| {
            let bytes = manifest.bytes();
            awaited.fetched.get_or_insert(Fetched { manifest, hold });
            Known { bytes, present }
        });
        let deadline = self.now() + fetch.within;
        let wanted = Wanted { blob, bytes: fetch.bytes, holders, known, deadline, repair };
        self.tell(Event::Want { want, wanted });
    }

    /// The manifest is right, so whoever waits for a blob of another length waits in vain.
    fn part_from_other_lengths(&mut self, blob: BlobId, bytes: u64) {
        let Some(awaited) = self.blobs.get_mut(&blob) else { return };
        let others = awaited.waiters.extract_if(.., |_, waiter| waiter.length != bytes);
        let others: Vec<(Want, Waiter)> = others.collect();
        for (want, Waiter { length, done, .. }) in others {
            // Whoever asked may have gone in this moment.
            let _ = done.send(Err(FetchError::Length { blob, expected: length, bytes }));
            self.tell(Event::Unwant { want });
        }
        if self.blobs.get(&blob).is_some_and(|awaited| awaited.waiters.is_empty()) {
            self.blobs.remove(&blob);
        }
    }

    /// Fetches a chunk again that was damaged when `asker` wanted it.
    fn repair(&mut self, blob: BlobId, chunk: u32, asker: Peer) {
        let Some(holder) = self.peers.named(asker) else { return };
        if self.repairs.begin(blob, chunk) {
            let (store, inputs) = (Arc::clone(&self.store.0), self.inputs.clone());
            let numbers = self.numbers.clone();
            self.tasks.spawn(repair::run((blob, chunk), holder, store, numbers, inputs));
        }
    }

    fn peers_of(&mut self, holders: Vec<(Holder, bool)>) -> Vec<(Peer, bool)> {
        let others = holders.into_iter().filter(|(holder, _)| !self.is_us(holder));
        let others: Vec<_> = others.collect();
        let mut peers = Vec::new();
        for (holder, whole) in others {
            peers.extend(self.peers.of_holder(holder).into_iter().map(|peer| (peer, whole)));
        }
        peers
    }

    fn is_us(&self, holder: &Holder) -> bool {
        let own = self.endpoint.identity().own();
        holder.node.role == own.role && holder.node.name == own.name
    }

    fn store_failed(&mut self, blob: BlobId, error: StoreError) {
        tracing::warn!(%blob, error = chain(&error), "a blob that is being fetched cannot be kept");
        if let Some(awaited) = self.blobs.get_mut(&blob) {
            awaited.failure = Some(Arc::new(error));
        }
        self.tell(Event::StoreFailed { blob });
    }

    fn chunk_came(&mut self, peer: Peer, request: u64, pieces: Vec<Bytes>) {
        let Some(Pending { blob, part, .. }) = self.requests.take(peer, request) else { return };
        let request = Request(request);
        let Part::Chunk { chunk, id } = part else {
            return self.tell(Event::Wrong { request });
        };
        let (store, inputs) = (Arc::clone(&self.store.0), self.inputs.clone());
        self.tasks.spawn(async move {
            let kept = jobs::keep_chunk(store, (blob, chunk), id, pieces).await;
            // A loop that has ended has no use for it.
            let _ = inputs.send(Input::ChunkKept { request, blob, chunk, kept }).await;
        });
    }

    fn answered(&mut self, peer: Peer, answer: Answer) {
        match answer {
            // The link's reader has made it [`Heard::Chunk`].
            Answer::Chunk { request, bytes } => self.chunk_came(peer, request, vec![bytes.bytes]),
            Answer::Manifest { request, bytes, first, ids } => {
                let Some(mut pending) = self.requests.take(peer, request) else { return };
                let Part::Manifest(pages) = &mut pending.part else {
                    return self.tell(Event::Wrong { request: Request(request) });
                };
                let blob = pending.blob;
                let Some(awaited) = self.blobs.get_mut(&blob) else { return };
                if awaited.waiters.values().all(|waiter| waiter.length != bytes) {
                    // Either may be wrong, so that it is asked again: another who waits may say the same.
                    if awaited.lengths.insert(peer, bytes).is_none()
                        && let Some(node) = self.peers.node(peer).cloned()
                    {
                        tracing::warn!(%node, %blob, bytes, "a blob is said to have another length");
                        self.report(Report::OtherLength { node, blob, bytes });
                    }
                    let (request, why) = (Request(request), Refused::NotHere);
                    return self.tell(Event::Refused { request, why });
                }
                let wanted = awaited.hull();
                match pages.add(bytes, first, &ids.bytes) {
                    Paged::Wrong => self.tell(Event::Wrong { request: Request(request) }),
                    Paged::More(first) => {
                        self.requests.insert(Request(request), pending);
                        self.ask(peer, Ask::Manifest { request, blob, first });
                    }
                    Paged::Whole(bytes, ids) => {
                        let (store, inputs) = (Arc::clone(&self.store.0), self.inputs.clone());
                        self.tasks.spawn(async move {
                            let kept = jobs::keep_manifest(store, blob, (bytes, ids), wanted).await;
                            let request = Request(request);
                            // A loop that has ended has no use for it.
                            let _ = inputs.send(Input::ManifestKept { request, blob, kept }).await;
                        });
                    }
                }
            }
            Answer::Redirect { request, holder } => {
                if self.requests.take(peer, request).is_none() {
                    return;
                }
                let request = Request(request);
                match self.peers_of(vec![(holder, false)]).first() {
                    Some((to, _)) => self.tell(Event::Redirected { request, to: *to }),
                    // To us, or to somebody who is not there.
                    None => self.tell(Event::Refused { request, why: Refused::NotHere }),
                }
            }
            Answer::NotHere { request } => self.refused(peer, request, Refused::NotHere),
            Answer::Busy { request } => self.refused(peer, request, Refused::Busy),
            Answer::Have { blob, chunks, mut others } => {
                others.truncate(HAVE_OTHERS_MAX);
                let others = others.into_iter().map(|other| (other, false)).collect();
                let others = self.peers_of(others).into_iter().map(|(peer, _)| peer).collect();
                self.tell(Event::Have { peer, blob, chunks, others });
            }
        }
    }

    fn refused(&mut self, peer: Peer, request: u64, why: Refused) {
        if self.requests.take(peer, request).is_some() {
            self.tell(Event::Refused { request: Request(request), why });
        }
    }

    fn asked(&mut self, peer: Peer, ask: Ask, answers: &mpsc::Sender<Outgoing>) {
        if let Ask::Here { addresses } = ask {
            let reachable = !addresses.is_empty();
            self.peers.may_be_dialled(peer, addresses);
            self.askers.insert(peer, answers.clone());
            return self.tell(Event::AskerCame { peer, reachable });
        }
        // What a link says that was replaced, or that never said where its asker is, counts for nothing.
        if self.askers.get(&peer).is_none_or(|held| !held.same_channel(answers)) {
            return;
        }
        match ask {
            Ask::Here { .. } => {}
            Ask::Manifest { request, blob, first } => {
                if self.manifests_read >= MANIFESTS_READ_MAX {
                    let answer = Answer::Busy { request };
                    return self.answer(peer, Outgoing { answer, settles: None });
                }
                self.manifests_read += 1;
                let (store, inputs) = (Arc::clone(&self.store.0), self.inputs.clone());
                let ticket = Ticket { peer, request };
                self.tasks.spawn(async move {
                    let page = jobs::manifest_page(store, blob, first).await;
                    // A loop that has ended has no use for it.
                    let _ = inputs.send(Input::ManifestRead { ticket, first, page }).await;
                });
            }
            Ask::Chunk { request, blob, chunk, failed } => {
                let failed = failed.into_iter().take(FAILED_MAX);
                let failed = failed.filter_map(|node| self.peers.numbered(&node)).collect();
                let ticket = Ticket { peer, request };
                self.tell(Event::Asked { ticket, blob, chunk, failed });
            }
            Ask::Cancel { request } => {
                self.tell(Event::Withdrawn { ticket: Ticket { peer, request } });
            }
            Ask::Follow { blob } => self.tell(Event::Followed { peer, blob }),
            Ask::Unfollow { blob } => self.tell(Event::Unfollowed { peer, blob }),
        }
    }
}
