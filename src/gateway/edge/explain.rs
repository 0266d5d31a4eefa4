//! `X-Vertice-Explain: 1`: who may ask.

use super::Edge;
use crate::proxy::ctx::Ctx;
use crate::proxy::explain::{EXPLAIN, Explanation};
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
