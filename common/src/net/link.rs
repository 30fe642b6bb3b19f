//! A link: frames of one message type in each direction, in order, between two parties.
//!
//! The same type runs over a QUIC stream between processes and over a bounded channel inside one (the
//! embedded cluster), where a message is moved and never encoded. Whoever drives a link cannot tell which.
//!
//! Every method is cancel-safe, so that both halves can stand in a `select!`: a `recv` that is dropped
//! goes on where it was, a `feed` that is dropped has queued its frame or not, a `flush` that is dropped is
//! continued by the next. A message is never torn.
//!
//! A sender that is dropped without [`LinkSender::finish`] is *abandoned*: its peer gets an error, not the
//! orderly end, because frames may be missing.

use bytes::Bytes;

use crate::frame::Message;

mod carrying;
mod error;
mod local;
mod pace;
mod reader;
mod writer;

pub use error::LinkError;
pub(super) use reader::FrameReader;
pub(super) use writer::FrameWriter;

/// Both halves of a link.
#[derive(Debug)]
pub struct Link<Out, In> {
    sender: LinkSender<Out>,
    receiver: LinkReceiver<In>,
}

/// The half that sends.
#[derive(Debug)]
pub struct LinkSender<Out>(SenderKind<Out>);

/// The half that receives.
#[derive(Debug)]
pub struct LinkReceiver<In>(ReceiverKind<In>);

#[derive(Debug)]
enum SenderKind<Out> {
    Quic(FrameWriter),
    Local(local::Sender<Out>),
}

#[derive(Debug)]
enum ReceiverKind<In> {
    Quic(FrameReader),
    Local(local::Receiver<In>),
}

impl<Out: Message, In: Message> Link<Out, In> {
    /// Two ends of a link inside this process, each direction holding at most `frames_max` frames.
    pub fn pair(frames_max: usize) -> (Self, Link<In, Out>) {
        let (out_sender, out_receiver) = local::channel(frames_max);
        let (in_sender, in_receiver) = local::channel(frames_max);
        (
            Self {
                sender: LinkSender(SenderKind::Local(out_sender)),
                receiver: LinkReceiver(ReceiverKind::Local(in_receiver)),
            },
            Link {
                sender: LinkSender(SenderKind::Local(in_sender)),
                receiver: LinkReceiver(ReceiverKind::Local(out_receiver)),
            },
        )
    }

    pub(super) fn quic(writer: FrameWriter, reader: FrameReader) -> Self {
        Self {
            sender: LinkSender(SenderKind::Quic(writer)),
            receiver: LinkReceiver(ReceiverKind::Quic(reader)),
        }
    }

    /// The halves, for two tasks or two arms of a `select!`.
    pub fn split(self) -> (LinkSender<Out>, LinkReceiver<In>) {
        (self.sender, self.receiver)
    }

    /// The reverse of [`Link::split`].
    pub fn join(sender: LinkSender<Out>, receiver: LinkReceiver<In>) -> Self {
        Self { sender, receiver }
    }

    /// As [`LinkSender::send`].
    pub async fn send(&mut self, message: Out, bulk: Bytes) -> Result<(), LinkError> {
        self.sender.send(message, bulk).await
    }

    /// As [`LinkReceiver::recv`].
    pub async fn recv(&mut self) -> Result<Option<(In, Bytes)>, LinkError> {
        self.receiver.recv().await
    }
}

impl<Out: Message> LinkSender<Out> {
    /// Queues one frame. Several small frames fed in a row leave in one packet with the next [`Self::flush`];
    /// this waits only when more than 1 MiB (in-process: as many frames as the link holds) is queued already.
    pub async fn feed(&mut self, message: Out, bulk: Bytes) -> Result<(), LinkError> {
        match &mut self.0 {
            SenderKind::Quic(writer) => {
                writer.flush_if_full().await?;
                writer.queue(&message, bulk)
            }
            SenderKind::Local(sender) => {
                sender.flush_if_full().await?;
                sender.queue(message, bulk)
            }
        }
    }

    /// Waits until everything fed has been handed to the transport (not: received by the peer).
    pub async fn flush(&mut self) -> Result<(), LinkError> {
        match &mut self.0 {
            SenderKind::Quic(writer) => writer.flush().await,
            SenderKind::Local(sender) => sender.flush().await,
        }
    }

    /// [`Self::feed`] and [`Self::flush`].
    pub async fn send(&mut self, message: Out, bulk: Bytes) -> Result<(), LinkError> {
        self.feed(message, bulk).await?;
        self.flush().await
    }

    /// Ends this direction in order, and waits until the peer has all of it. A peer that reads nothing makes
    /// this wait until the connection ends: give it a deadline.
    pub async fn finish(self) -> Result<(), LinkError> {
        match self.0 {
            SenderKind::Quic(writer) => writer.finish().await,
            SenderKind::Local(sender) => sender.finish().await,
        }
    }
}

impl<In: Message> LinkReceiver<In> {
    /// The next frame, or `None` once the peer has finished in order. After an error there is nothing more
    /// to receive: drop the link.
    pub async fn recv(&mut self) -> Result<Option<(In, Bytes)>, LinkError> {
        match &mut self.0 {
            ReceiverKind::Quic(reader) => reader.message().await,
            ReceiverKind::Local(receiver) => receiver.message().await,
        }
    }
}
