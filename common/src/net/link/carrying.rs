//! Messages that know their bulk, on a link: over QUIC the bulk is taken out and rides behind the
//! message, inside a process it stays where it is.

use bytes::Bytes;

use super::{LinkError, LinkReceiver, LinkSender, ReceiverKind, SenderKind};
use crate::bulk::{self, Carries};
use crate::frame::Message;

impl<Out: Message + Carries> LinkSender<Out> {
    /// As [`LinkSender::feed`], bulk included.
    ///
    /// # Errors
    /// As [`LinkSender::feed`].
    pub async fn say(&mut self, mut message: Out) -> Result<(), LinkError> {
        let bulk = match self.0 {
            SenderKind::Quic(_) => bulk::gather(&mut message),
            SenderKind::Local(_) => Bytes::new(),
        };
        self.feed(message, bulk).await
    }
}

impl<In: Message + Carries> LinkReceiver<In> {
    /// As [`LinkReceiver::recv`], bulk in place.
    ///
    /// # Errors
    /// As [`LinkReceiver::recv`], and when the bulk is not what the message announces.
    pub async fn hear(&mut self) -> Result<Option<In>, LinkError> {
        let Some((mut message, bulk)) = self.recv().await? else { return Ok(None) };
        match &self.0 {
            ReceiverKind::Quic(reader) => reader.attach(&mut message, bulk)?,
            ReceiverKind::Local(_) => {}
        }
        Ok(Some(message))
    }

    /// As [`Self::hear`], but bulk that came over a network stays in the pieces in which it came, one after
    /// the other, uncopied. They keep whole receive buffers alive: join them soon, with [`bulk::attach`] or
    /// otherwise. Inside a process, and without bulk, there are none.
    ///
    /// # Errors
    /// As [`Self::hear`].
    pub async fn hear_scattered(&mut self) -> Result<Option<(In, Vec<Bytes>)>, LinkError> {
        match &mut self.0 {
            ReceiverKind::Quic(reader) => {
                let Some((mut message, pieces)) = reader.scattered().await? else {
                    return Ok(None);
                };
                reader.check(&mut message, pieces.iter().map(Bytes::len).sum())?;
                Ok(Some((message, pieces)))
            }
            ReceiverKind::Local(receiver) => {
                Ok(receiver.message().await?.map(|(message, _)| (message, Vec::new())))
            }
        }
    }
}
