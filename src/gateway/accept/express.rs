//! What the accept room asks of a lane that serves plain requests itself.

use vertice_core::pace::PaceLimit;

use super::connection::Connection;
use super::head::{FieldIndex, Head};

/// A request whose head has been read and checked, and stands at the front of its connection's bytes.
#[derive(Clone, Copy, Debug)]
pub struct Incoming<'a> {
    /// Its head.
    pub head: &'a Head,
    /// Where the fields of the head stand.
    pub fields: &'a FieldIndex,
    /// How fast its body must come.
    pub body_pace: Option<PaceLimit>,
    /// It had come before the answer to the one before it was written.
    pub is_pipelined: bool,
    /// The connection is to be closed after its answer.
    pub is_last: bool,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// It is not for this lane: nothing of it has been used, and nothing written.
    Untouched,
    /// It was answered, and what is left of the connection's bytes begins another request.
    Complete,
    /// The connection is of no more use.
    Ended {
        /// The client may still be sending the request: what was written is to reach it all the same.
        is_sending: bool,
    },
}

/// The lane that serves plain requests itself, asked before Pingora's proxy is.
pub trait ExpressLane: Send + Sync + 'static {
    /// Serves the request, unless it is not plain.
    fn serve(&self, connection: &mut Connection, request: Incoming<'_>) -> impl Future<Output = Served> + Send;
}

/// No such lane: everything is Pingora's.
impl ExpressLane for () {
    async fn serve(&self, _connection: &mut Connection, _request: Incoming<'_>) -> Served {
        Served::Untouched
    }
}
