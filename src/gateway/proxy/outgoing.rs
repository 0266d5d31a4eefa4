//! What the instance is asked: the target, which of the client's fields it gets, and what the gateway tells it itself.

use super::ctx::{Ctx, Forward};
use super::explain::EXPLAIN;
use super::fields::{Fields, Sink};
use super::forwarding::{Forwarding, is_lookalike};
use crate::request_id::RequestId;
use crate::upstream::Upstream;
use vertice_core::route;

/// A request as the instance of the attempt under way gets it.
#[derive(Debug)]
pub struct Outgoing<'a, F> {
    forward: &'a Forward,
    upstream: &'a Upstream,
    told: Told<'a, F>,
}

impl<'a, F: Fields> Outgoing<'a, F> {
    /// From the client's `fields`, which came over `scheme`. `None` when no attempt is under way.
    #[must_use]
    pub fn of(ctx: &'a Ctx, fields: &'a F, scheme: &'static str) -> Option<Self> {
        let forward = ctx.forward.as_ref()?;
        let upstream = forward.attempt.as_ref()?.upstream();
        let preserve = forward.route.as_ref().and_then(|route| route.preserve_host);
        let keeps_host = preserve.unwrap_or(forward.service.policy.preserve_host);
        let host = upstream.x.host.as_ref().filter(|_| !keeps_host).map(|host| host.as_bytes());
        let forwarding = ctx.client.as_ref().map(|client| Forwarding { client, fields, scheme });
        Some(Self { forward, upstream, told: Told { host, forwarding, request_id: &ctx.request_id } })
    }

    /// Appends the target, made from the client's.
    pub fn write_target(&self, target: &[u8], out: &mut Vec<u8>) {
        let head = self.forward.route.as_ref().and_then(|route| route.rewrite.as_deref()).unwrap_or_default();
        let rest = target.get(self.forward.rest_at..).unwrap_or_default();
        route::write_target(out, self.upstream.facts.endpoint.prefix(), head, rest);
    }

    /// Whether the client's field of that name is not passed on: the gateway says it itself, or it was meant for the gateway.
    /// What concerns only the connection to the client is the lane's business.
    #[must_use]
    pub fn replaces(&self, name: &[u8]) -> bool {
        self.told.replaces(name)
    }

    /// Whether it is not passed on, and the gateway says nothing in its place.
    #[must_use]
    pub fn withholds(&self, name: &[u8]) -> bool {
        self.told.withholds(name)
    }

    /// Writes the gateway's own fields.
    pub fn write(&self, sink: &mut impl Sink) {
        self.told.write(sink);
    }
}

/// What the instance is told by the gateway.
#[derive(Debug)]
struct Told<'a, F> {
    /// The instance's own name, unless it gets what the client said.
    host: Option<&'a [u8]>,
    forwarding: Option<Forwarding<'a, F>>,
    request_id: &'a RequestId,
}

impl<F: Fields> Told<'_, F> {
    fn replaces(&self, name: &[u8]) -> bool {
        let is = |ours: &str| name.eq_ignore_ascii_case(ours.as_bytes());
        // By length first, because every field of every request is asked about.
        match name.len() {
            4 => self.host.is_some() && is("host"),
            12 => is("x-request-id"),
            9 | 15..=17 => self.withholds(name) || (self.forwarding.is_some() && Forwarding::<F>::names(name)),
            _ => false,
        }
    }

    fn withholds(&self, name: &[u8]) -> bool {
        let is_lacking = || self.forwarding.as_ref().is_some_and(|forwarding| forwarding.lacks(name));
        name.eq_ignore_ascii_case(EXPLAIN.as_bytes()) || is_lookalike(name) || is_lacking()
    }

    fn write(&self, sink: &mut impl Sink) {
        if let Some(host) = self.host {
            sink.field("Host", |out| out.extend_from_slice(host));
        }
        if let Some(forwarding) = &self.forwarding {
            forwarding.write(sink);
        }
        sink.field("X-Request-ID", |out| out.extend_from_slice(self.request_id.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::client::Client;
    use crate::proxy::fields::tests::Sent;
    use std::net::{IpAddr, Ipv4Addr};

    #[test]
    fn the_client_s_own_words_are_replaced_and_lookalikes_withheld() {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let client = Client { peer: address, address, is_trusted: false };
        let (with_host, without) = (Sent(&[("host", "h")]), Sent(&[]));
        let forwarding = |fields| Some(Forwarding { client: &client, fields, scheme: "http" });
        let told = Told { host: Some(b"svc:1"), forwarding: forwarding(&with_host), request_id: &RequestId::UNKNOWN };
        for name in ["Host", "Forwarded", "X-Request-ID", "x-forwarded-for", "X-Forwarded-Host", "x-forwarded-proto"] {
            assert!(told.replaces(name.as_bytes()) && !told.withholds(name.as_bytes()), "{name}");
        }
        for name in ["X-Vertice-Explain", "x_forwarded_for", "x-forwarded_proto", "X_Forwarded-Host"] {
            assert!(told.replaces(name.as_bytes()) && told.withholds(name.as_bytes()), "{name}");
        }
        for name in ["x_request_id", "x_forwarded_fo", "x-forwarded-port", "accept", "from", "x-vertice-priority", ""] {
            assert!(!told.replaces(name.as_bytes()) && !told.withholds(name.as_bytes()), "{name}");
        }
        let kept = Told { host: None, forwarding: None, ..told };
        assert!(!kept.replaces(b"host") && !kept.replaces(b"x-forwarded-for") && kept.replaces(b"x_forwarded_for"));
        let hostless = Told { forwarding: forwarding(&without), ..told };
        assert!(hostless.withholds(b"x-forwarded-host"));
    }

    #[test]
    fn what_is_said_is_said_once_and_in_order() {
        let told: Told<'_, Sent<'_>> = Told { host: Some(b"svc:1"), forwarding: None, request_id: &RequestId::UNKNOWN };
        let mut out = Vec::new();
        told.write(&mut out);
        assert_eq!(out, b"Host: svc:1\r\nX-Request-ID: -\r\n");
    }
}
