//! `drain`: no new requests for a while.

use super::age;
use super::failure::Failure;
use super::output::Output;
use super::reply::Reply;
use super::text::clean;
use std::time::Duration;
use vertice_api::gateway::Drained;
use vertice_api::{ServiceInfo, paths};
use vertice_client::{Answer, RegistryClient};

/// Drains a service or one of its instances for that long; no time at all ends a drain.
pub(super) fn drain(
    client: &RegistryClient,
    service: &str,
    instance: Option<&str>,
    span: Duration,
    is_json: bool,
    output: &mut Output,
) -> Result<(), Failure> {
    let doing = if span.is_zero() { format!("end the drain of {service}") } else { format!("drain {service}") };
    let answer = client.post(&paths::drain_for(service, instance, span));
    if answer.as_ref().is_ok_and(|answer| answer.status == 404) && is_registered(client, service, instance) {
        let cause = "this gateway has no such call here: it is older than this command, or the URL is not its registry's";
        return Err(Failure::Call { doing, cause: cause.to_owned() });
    }
    let reply = Reply::new(&doing, answer)?;
    if is_json {
        return reply.print(output);
    }
    let drained: Drained = reply.read()?;
    output.line(&clean(&sentence(service, drained.instances.len(), span)))?;
    drained.instances.iter().try_for_each(|instance| output.line(&format!("  {}", clean(instance))))
}

fn sentence(service: &str, count: usize, span: Duration) -> String {
    let (s, get, take) = if count == 1 { ("", "gets", "takes") } else { ("s", "get", "take") };
    if span.is_zero() {
        format!("{service}: {count} instance{s} {take} requests again, as far as the status allows")
    } else {
        format!("{service}: {count} instance{s} {get} no new requests for {}", age::compact(span.as_secs_f64()))
    }
}

/// Whether the registry knows what it says it does not know: then it is the call that it does not know.
fn is_registered(client: &RegistryClient, service: &str, instance: Option<&str>) -> bool {
    let found = client.get(&paths::service(service)).and_then(Answer::good).ok();
    let service: Option<ServiceInfo> = found.and_then(|answer| serde_json::from_slice(&answer.body).ok());
    service.is_some_and(|found| instance.is_none_or(|id| found.instances.iter().any(|other| other.instance_id == id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_many() {
        let sentence = |count, seconds| sentence("a_service", count, Duration::from_secs(seconds));
        assert_eq!(sentence(1, 90), "a_service: 1 instance gets no new requests for 1m30s");
        assert_eq!(sentence(2, 30), "a_service: 2 instances get no new requests for 30s");
        assert_eq!(sentence(1, 0), "a_service: 1 instance takes requests again, as far as the status allows");
        assert_eq!(sentence(2, 0), "a_service: 2 instances take requests again, as far as the status allows");
    }
}
