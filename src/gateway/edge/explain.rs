//! `X-Vertice-Explain: 1`: who may ask, and where the explanation goes.

use super::Edge;
use crate::clock;
use crate::control::TOKEN_FIELDS;
use crate::proxy::ctx::Ctx;
use crate::proxy::explain::{EXPLAIN, Explanation};
use http::HeaderValue;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

impl Edge {
    /// Begins an explanation when the client asks for one and may have it. Who may not is not told: the field is then one of
    /// the client's like any other, except that no service sees it.
    pub(super) fn explain(&self, session: &Session, ctx: &mut Ctx) {
        let fields = &session.req_header().headers;
        let Some(client) = ctx.client.filter(|_| fields.get(EXPLAIN).is_some_and(|value| value == "1")) else { return };
        if self.shared.control.load().access.may_look_inside(client.address, client.is_trusted, fields) {
            let generation = self.shared.table.load().generation();
            ctx.explanation = Some(Box::new(Explanation::new(ctx.started, generation)));
        }
    }
}

/// What is written about the request that is answered now; `ctx.reason` says whether by the gateway itself.
pub(super) fn field(ctx: &mut Ctx) -> Option<HeaderValue> {
    ctx.explanation.as_mut()?.field(ctx.reason, clock::mono())
}

/// Takes out what was meant for the gateway: the question, and the token that came with it.
pub(super) fn remove_question(ctx: &Ctx, upstream_request: &mut RequestHeader) {
    upstream_request.remove_header(EXPLAIN);
    if ctx.explanation.is_some() {
        TOKEN_FIELDS.into_iter().for_each(|name| drop(upstream_request.remove_header(name)));
    }
}
