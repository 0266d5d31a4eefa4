//! Rate limits of a request: which hold for it, what it is told apart by, and what it is told.

use super::client::Client;
use super::fail::Failure;
use super::fields::{Fields, Sink};
use crate::rates::{self, Rate};
use crate::telemetry::metrics::Metrics;
use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use vertice_core::limiter::{By, RateLimit, Standing, Verdict};
use vertice_core::name::ServiceName;
use vertice_core::reason::Reason;
use vertice_core::time::{Moment, seconds_up};

/// Longer values of header fields are told apart by their hash.
const VALUE_MAX: usize = 128;

/// What of a request its limits look at.
#[derive(Debug)]
pub struct Asked<'a, F> {
    /// Where it goes.
    pub service: &'a ServiceName,
    /// The name of its route, unless it came under `/v2/`.
    pub route: Option<&'a str>,
    /// Who sent it.
    pub client: Option<&'a Client>,
    /// Its header fields.
    pub fields: &'a F,
}

/// How a request stands with the limit that is nearest to its end: what `RateLimit` says.
#[derive(Clone, Debug)]
pub struct Quoted {
    rate: Arc<Rate>,
    standing: Standing,
}

/// Counts a request with every limit that holds for it, or with none: the first that refuses it is told.
///
/// # Errors
/// `rate_limited`, with the time after which one request would be admitted.
pub fn admit(
    rates: &[Arc<Rate>],
    asked: &Asked<'_, impl Fields>,
    now: Moment,
    metrics: &Metrics,
) -> (Option<Quoted>, Result<(), Failure>) {
    let mut nearest: Option<Quoted> = None;
    for (at, rate) in rates.iter().enumerate() {
        if !asked.is_held_by(rate) {
            continue;
        }
        let standing = match asked.key(&rate.limit.by, |key| rate.admit(key, now, metrics)) {
            Verdict::Admitted(standing) => standing,
            Verdict::Refused { retry, reset } => {
                for earlier in rates[..at].iter().filter(|rate| asked.is_held_by(rate)) {
                    asked.key(&earlier.limit.by, |key| earlier.give_back(key));
                }
                let quoted = Quoted { rate: rate.clone(), standing: Standing { remaining: 0, reset } };
                return (Some(quoted), Err(refusal(rate, retry, metrics)));
            }
        };
        if nearest.as_ref().is_none_or(|nearest| standing.remaining < nearest.standing.remaining) {
            nearest = Some(Quoted { rate: rate.clone(), standing });
        }
    }
    (nearest, Ok(()))
}

impl<F: Fields> Asked<'_, F> {
    fn is_held_by(&self, rate: &Rate) -> bool {
        rate.limit.holds_for(self.service, self.route.unwrap_or(RateLimit::V2))
    }

    /// What tells the request apart from others; on the stack, because most are known already.
    fn key<T>(&self, by: &By, look: impl FnOnce(&[u8]) -> T) -> T {
        match by {
            By::Service => look(self.service.as_str().as_bytes()),
            By::Route => look(self.route.unwrap_or(RateLimit::V2).as_bytes()),
            By::Client => self.client_key(look),
            By::Header(name) => match self.fields.first(name) {
                Some(value) if !value.is_empty() => value_key(value, look),
                _ => self.client_key(look),
            },
        }
    }

    fn client_key<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        let mut key = [rates::CLIENT, 0, 0, 0, 0, 0, 0, 0, 0];
        match self.client.map(|client| client.address) {
            Some(IpAddr::V4(address)) => {
                key[1..5].copy_from_slice(&address.octets());
                look(&key[..5])
            }
            Some(IpAddr::V6(address)) => {
                key[1..].copy_from_slice(&address.octets()[..8]);
                look(&key)
            }
            None => look(&key[..1]),
        }
    }
}

fn value_key<T>(value: &[u8], look: impl FnOnce(&[u8]) -> T) -> T {
    let mut key = [rates::VALUE; 1 + VALUE_MAX];
    let hash;
    let value = if value.len() <= VALUE_MAX {
        value
    } else {
        hash = rates::digest(value);
        &hash[..]
    };
    key[1..=value.len()].copy_from_slice(value);
    look(&key[..=value.len()])
}

fn refusal(rate: &Rate, retry: Duration, metrics: &Metrics) -> Failure {
    metrics.limit_hit("rate_limit");
    let seconds = seconds_up(retry).max(1);
    let detail = format!("More requests than the limit '{}' allows. Try again in {seconds} s.", rate.limit.name);
    Failure { retry_after_s: Some(seconds), ..Failure::new(Reason::RateLimited, detail) }
}

impl Quoted {
    /// Writes the fields `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers): the limit's name, `q` requests in
    /// `w` seconds; `r` that would be admitted at once, and `t` seconds until the whole burst would be.
    pub fn write(&self, sink: &mut impl Sink) {
        let Standing { remaining, reset } = self.standing;
        sink.field("RateLimit-Policy", |out| out.extend_from_slice(self.rate.policy.as_bytes()));
        sink.field("RateLimit", |out| {
            // Memory takes whatever is written to it.
            let _ = write!(out, "\"{}\";r={remaining};t={}", self.rate.limit.name, seconds_up(reset));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rates::Rates;
    use http::{HeaderMap, HeaderValue};
    use vertice_core::limiter::Quota;

    struct Rig {
        rates: Vec<Arc<Rate>>,
        metrics: Arc<Metrics>,
    }

    impl Rig {
        fn new(limits: &[(&str, By, u32)]) -> Self {
            let metrics = Arc::new(Metrics::new().unwrap());
            let limit = |(name, by, burst): &(&str, By, u32)| RateLimit {
                name: (*name).into(),
                quota: Quota::new(1, Duration::from_secs(1), *burst).unwrap(),
                by: by.clone(),
                services: Vec::new(),
                routes: Vec::new(),
                is_shared: false,
                keys_max: 100,
            };
            let limits: Vec<_> = limits.iter().map(limit).collect();
            Self { rates: Rates::new(metrics.clone()).adopt(&limits, Moment::ZERO), metrics }
        }

        fn ask(&self, service: &str, client: &str, field: Option<&str>) -> (Option<Quoted>, Result<(), Failure>) {
            let address: IpAddr = client.parse().unwrap();
            let client = Client { peer: address, address, is_trusted: false };
            let mut fields = HeaderMap::new();
            if let Some(value) = field {
                fields.insert("x-api-key", HeaderValue::from_str(value).unwrap());
            }
            let service = ServiceName::parse(service).unwrap();
            let asked = Asked { service: &service, route: None, client: Some(&client), fields: &fields };
            admit(&self.rates, &asked, Moment::ZERO, &self.metrics)
        }

        fn admits(&self, service: &str, client: &str, field: Option<&str>) -> bool {
            self.ask(service, client, field).1.is_ok()
        }
    }

    #[test]
    fn clients_are_told_apart_and_networks_of_ipv6_are_one() {
        let rig = Rig::new(&[("a", By::Client, 1)]);
        assert!(rig.admits("svc", "192.0.2.1", None) && !rig.admits("other", "192.0.2.1", None));
        assert!(rig.admits("svc", "192.0.2.2", None));
        assert!(rig.admits("svc", "2001:db8::1", None) && !rig.admits("svc", "2001:db8::ffff:2", None));
        assert!(rig.admits("svc", "2001:db8:0:1::1", None));
    }

    #[test]
    fn values_are_told_apart_and_who_has_none_is_its_client() {
        let rig = Rig::new(&[("a", By::Header("x-api-key".into()), 1)]);
        let long = |end: &str| format!("{}{end}", "x".repeat(500));
        for value in [None, Some("k1"), Some("k2"), Some(&*long("1")), Some(&*long("2"))] {
            assert!(rig.admits("svc", "192.0.2.1", value) && !rig.admits("svc", "192.0.2.1", value), "{value:?}");
        }
        assert!(rig.admits("svc", "192.0.2.9", None), "another client without a key");
        assert!(!rig.admits("svc", "192.0.2.9", Some("k1")), "another client with a known key");
    }

    #[test]
    fn who_is_refused_by_one_limit_is_not_counted_by_the_others() {
        let rig = Rig::new(&[("wide", By::Service, 3), ("narrow", By::Client, 1)]);
        assert!(rig.admits("svc", "192.0.2.1", None));
        for _ in 0..10 {
            assert!(!rig.admits("svc", "192.0.2.1", None));
        }
        assert!(rig.admits("svc", "192.0.2.2", None) && rig.admits("svc", "192.0.2.3", None));
        assert!(!rig.admits("svc", "192.0.2.4", None));
    }

    #[test]
    fn the_fields_tell_of_the_limit_that_is_nearest() {
        let rig = Rig::new(&[("wide", By::Service, 30), ("narrow", By::Client, 2)]);
        let told = |answer: (Option<Quoted>, Result<(), Failure>)| {
            let mut lines = Vec::new();
            answer.0.unwrap().write(&mut lines);
            String::from_utf8(lines).unwrap()
        };
        assert_eq!(
            told(rig.ask("svc", "192.0.2.1", None)),
            "RateLimit-Policy: \"narrow\";q=1;w=1\r\nRateLimit: \"narrow\";r=1;t=1\r\n"
        );
        rig.ask("svc", "192.0.2.1", None).1.unwrap();
        let (quoted, refusal) = rig.ask("svc", "192.0.2.1", None);
        assert_eq!(told((quoted, Ok(()))), "RateLimit-Policy: \"narrow\";q=1;w=1\r\nRateLimit: \"narrow\";r=0;t=2\r\n");
        let refusal = refusal.unwrap_err();
        assert_eq!((refusal.reason, refusal.retry_after_s), (Reason::RateLimited, Some(1)));
        assert!(Rig::new(&[]).ask("svc", "192.0.2.1", None).0.is_none());
    }
}
