//! What has happened, in the exchange's words.

use std::sync::Arc;

use allhands_common::chain::chain;
use allhands_common::wire::data::{Answer, Ask, FAILED_MAX, HAVE_OTHERS_MAX, Holder};
use bytes::Bytes;
use tokio::sync::mpsc;

use super::super::asking::Heard;
use super::super::jobs::{self, Kept};
use super::super::pending::{Paged, Part, Pending};
use super::super::serving::{self, Outgoing};
use super::{Input, NewWant, Shell};
use crate::exchange::{Event, Known, Peer, Refused, Request, Ticket, Wanted};
use crate::store::StoreError;

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
                let holders = self.peers_of(holders);
                self.tell(Event::Holders { blob, holders });
            }
            Input::Connected(connection) => {
                let peer = self.peers.of_connection(&connection);
                self.tasks.spawn(serving::connection(peer, connection, self.inputs.clone()));
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
                Kept::Yes((manifest, present)) => {
                    let bytes = manifest.bytes();
                    if let Some(awaited) = self.blobs.get_mut(&blob) {
                        awaited.manifest.get_or_insert(manifest);
                    }
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
            Input::ChunkRead { ticket, bytes } => match bytes {
                Some(bytes) => {
                    let answer = Answer::Chunk { request: ticket.request, bytes: bytes.into() };
                    self.answer(ticket.peer, Outgoing { answer, settles: Some(ticket) });
                }
                None => self.tell(Event::Served { ticket, found: false }),
            },
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
        let NewWant { want, fetch, known, done } = new;
        let blob = fetch.blob;
        let holders = self.peers_of(fetch.holders);
        let awaited = self.blobs.entry(blob).or_default();
        awaited.waiters.insert(want, done);
        let known = known.map(|(manifest, present)| {
            let bytes = manifest.bytes();
            awaited.manifest.get_or_insert(manifest);
            Known { bytes, present }
        });
        let deadline = self.now() + fetch.within;
        let wanted = Wanted { blob, bytes: fetch.bytes, holders, known, deadline };
        self.tell(Event::Want { want, wanted });
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

    fn store_failed(&mut self, blob: allhands_common::blob::BlobId, error: StoreError) {
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
                match pages.add(bytes, first, &ids.bytes) {
                    Paged::Wrong => self.tell(Event::Wrong { request: Request(request) }),
                    Paged::More(first) => {
                        self.requests.insert(Request(request), pending);
                        self.ask(peer, Ask::Manifest { request, blob, first });
                    }
                    Paged::Whole(bytes, ids) => {
                        let (store, inputs) = (Arc::clone(&self.store.0), self.inputs.clone());
                        self.tasks.spawn(async move {
                            let kept = jobs::keep_manifest(store, blob, bytes, ids).await;
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
