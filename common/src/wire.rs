//! The messages of each link, one enum a direction. A link is opened by a handshake
//! (`net::handshake`); then only its two enums travel on it, so that what a peer may say follows from
//! what its certificate let it open.
//!
//! Variants and fields are only appended, never edited: their order is the encoding.

pub mod admin;
pub mod client;
pub mod data;
pub mod executor;
pub mod needs;
pub mod note;
pub mod record;
pub mod worker;

mod kinds {
    //! Which frame carries which enum.

    use crate::frame::{Kind, Message};
    use crate::wire::{admin, client, data, worker};

    impl Message for client::FromClient {
        const KIND: Kind = Kind::ClientToCoordinator;
    }

    impl Message for client::ToClient {
        const KIND: Kind = Kind::CoordinatorToClient;
    }

    impl Message for worker::FromWorker {
        const KIND: Kind = Kind::WorkerToCoordinator;
    }

    impl Message for worker::ToWorker {
        const KIND: Kind = Kind::CoordinatorToWorker;
    }

    impl Message for admin::Question {
        const KIND: Kind = Kind::AdminRequest;
    }

    impl Message for admin::Answer {
        const KIND: Kind = Kind::AdminReply;
    }

    impl Message for data::Ask {
        const KIND: Kind = Kind::ChunkRequest;
    }

    impl Message for data::Answer {
        const KIND: Kind = Kind::ChunkReply;
    }
}
