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
}
