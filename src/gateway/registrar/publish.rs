//! The one door to the routing table.

use super::retired::Retired;
use crate::clock;
use crate::noticeboard::NoticeBoard;
use crate::upstream::{Hung, Service, Table};
use std::sync::Arc;
use vertice_core::name::ServiceName;
use vertice_core::registry::Registry;

/// Publishes every service that changed; tells whether there was any.
///
/// What is replaced is `retired`: its readers are not to free it.
pub(super) fn publish(table: &Table, registry: &mut Registry, hung: &Hung, board: &NoticeBoard, retired: &mut Retired) -> bool {
    let changed = registry.take_changed();
    if changed.is_empty() {
        return false;
    }
    let started = clock::mono();
    let old = table.load_full();
    let mut gone = Vec::new();
    let mut news = Vec::new();
    let build = |(name, changed_at): (ServiceName, u64)| {
        let before = old.get(name.as_str());
        before.into_iter().for_each(|service| retired.keep_service(service, &hung.metrics));
        let after = registry.build(&name, changed_at, before, hung).map(Arc::new);
        match (&after, before) {
            (Some(service), _) => service.x.set_instances(service.instances.len(), service.usable.len()),
            (None, Some(service)) => gone.push(service.clone()),
            (None, None) => {}
        }
        // Fallbacks are not listed, so what happens to them is no news.
        let is_listed = [before, after.as_ref()].into_iter().flatten().any(|service| !service.is_fallback);
        if is_listed {
            news.push((changed_at, name.clone()));
        }
        (name, after)
    };
    let changes: Vec<(ServiceName, Option<Arc<Service>>)> = changed.into_iter().map(build).collect();
    let new = old.with(registry.generation(), changes);
    let metrics = &hung.metrics;
    metrics.generation.set(i64::try_from(new.generation()).unwrap_or(i64::MAX));
    metrics.active_services.set(i64::try_from(registry.service_count()).unwrap_or(i64::MAX));
    metrics.active_instances.set(i64::try_from(registry.instance_count()).unwrap_or(i64::MAX));
    table.store(Arc::new(new));
    retired.keep_table(old, metrics);
    board.post(registry.generation(), news);
    gone.iter().for_each(|service| service.x.remove());
    metrics.publish_duration.observe(clock::mono().since(started).as_secs_f64());
    true
}
