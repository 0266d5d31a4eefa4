//! The calls there are: one table, which finds them, says who may make them where, and is what `/openapi.json` lists.

use super::Role;
use http::Method;
use vertice_api::paths;

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Register,
    Heartbeat,
    Deregister,
    Services,
    Service,
    Health,
    Livez,
    Readyz,
    Metrics,
    Status,
    HealthCheck,
    Drain,
    Reload,
    OpenApi,
}

/// What a call is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The registry: on the gateway's listener only when configured so.
    Registry,
    /// What operators ask; its writes are taken by the registry's listener only.
    Admin,
    /// What load balancers and monitoring ask.
    Process,
}

/// What is known of a call before it is made.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) call: Call,
    /// The path, or the part before the name.
    path: &'static str,
    /// Whether one more segment, a service's name, belongs to the path.
    pub(super) takes_name: bool,
    /// `GET` means `HEAD`, too.
    pub(super) method: Method,
    pub(super) part: Part,
    /// Whether it changes something, and so needs the right to.
    pub(super) is_write: bool,
    /// The label in `registry_operations_total`; the predecessor's words.
    pub(super) operation: Option<&'static str>,
}

/// A call as it was made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made<'p> {
    pub(super) entry: &'static Entry,
    /// The name in its path; empty when it takes none.
    pub(super) name: &'p str,
}

/// Every call.
pub(super) static CALLS: [Entry; 14] = [
    write(Call::Register, paths::REGISTER, Part::Registry, Method::POST, "register"),
    write(Call::Heartbeat, paths::HEARTBEAT, Part::Registry, Method::POST, "heartbeat"),
    write(Call::Deregister, paths::DEREGISTER, Part::Registry, Method::DELETE, "deregister").named(),
    read(Call::Services, paths::SERVICES, Part::Registry, Some("list")),
    read(Call::Service, paths::SERVICES, Part::Registry, Some("lookup")).named(),
    read(Call::Health, paths::HEALTH, Part::Process, None),
    read(Call::Livez, paths::LIVEZ, Part::Process, None),
    read(Call::Readyz, paths::READYZ, Part::Process, None),
    read(Call::Metrics, paths::METRICS, Part::Process, None),
    read(Call::Status, paths::GATEWAY_STATUS, Part::Admin, None),
    read(Call::HealthCheck, paths::GATEWAY_HEALTH_CHECK, Part::Admin, None).named(),
    write(Call::Drain, paths::GATEWAY_DRAIN, Part::Admin, Method::POST, "drain").named(),
    write(Call::Reload, paths::GATEWAY_RELOAD, Part::Admin, Method::POST, "reload"),
    read(Call::OpenApi, paths::OPENAPI, Part::Process, None),
];

/// The call at that path, whatever the method.
pub(super) fn find(path: &str) -> Option<Made<'_>> {
    CALLS.iter().find_map(|entry| entry.made_by(path))
}

impl Entry {
    /// Whether a listener of that role has it.
    pub(super) fn exists(&self, role: Role, registry_on_gateway: bool) -> bool {
        role == Role::Registry
            || match self.part {
                Part::Registry => registry_on_gateway,
                Part::Admin => !self.is_write,
                Part::Process => true,
            }
    }

    pub(super) fn allows(&self, method: &Method) -> bool {
        self.method == *method || (self.method == Method::GET && *method == Method::HEAD)
    }

    /// The methods there are, for `Allow`.
    pub(super) fn allowed(&self) -> &'static str {
        match self.method {
            Method::POST => "POST",
            Method::DELETE => "DELETE",
            _ => "GET, HEAD",
        }
    }

    /// The path with `{name}` in the place of the name.
    pub(super) fn template(&self) -> String {
        if self.takes_name { format!("{}/{{name}}", self.path) } else { self.path.to_owned() }
    }

    fn made_by<'p>(&'static self, path: &'p str) -> Option<Made<'p>> {
        let rest = path.strip_prefix(self.path)?;
        let name = match self.takes_name {
            true => rest.strip_prefix('/').filter(|name| !name.contains('/'))?,
            false => Some(rest).filter(|rest| rest.is_empty())?,
        };
        Some(Made { entry: self, name })
    }

    const fn named(mut self) -> Self {
        self.takes_name = true;
        self
    }
}

const fn write(call: Call, path: &'static str, part: Part, method: Method, operation: &'static str) -> Entry {
    Entry { call, path, takes_name: false, method, part, is_write: true, operation: Some(operation) }
}

const fn read(call: Call, path: &'static str, part: Part, operation: Option<&'static str>) -> Entry {
    Entry { call, path, takes_name: false, method: Method::GET, part, is_write: false, operation }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_calls() {
        let found = |path| find(path).map(|made: Made<'static>| (made.entry.call, made.name));
        assert_eq!(found("/services"), Some((Call::Services, "")));
        assert_eq!(found("/services/nmap_service"), Some((Call::Service, "nmap_service")));
        assert_eq!(found("/services/"), Some((Call::Service, "")));
        assert_eq!(found("/services/a/b"), None);
        assert_eq!(found("/gateway/health-check/x"), Some((Call::HealthCheck, "x")));
        assert_eq!(found("/gateway/health-check"), None);
        assert_eq!(found("/gateway/canary/x"), None);
        assert_eq!(found("/registered"), None);
    }

    #[test]
    fn listeners_have_what_is_theirs() {
        let on_gateway = |with_registry| {
            let exists = CALLS.iter().filter(|entry| entry.exists(Role::Gateway, with_registry));
            exists.map(|entry| entry.call).collect::<Vec<_>>()
        };
        assert!(CALLS.iter().all(|entry| entry.exists(Role::Registry, false)));
        assert!(on_gateway(true).contains(&Call::Register) && !on_gateway(false).contains(&Call::Register));
        assert!(on_gateway(false).contains(&Call::Status));
        assert!(!on_gateway(true).contains(&Call::Drain));
    }

    #[test]
    fn a_get_is_a_head_too() {
        let services = find("/services").unwrap().entry;
        assert!(services.allows(&Method::GET) && services.allows(&Method::HEAD) && !services.allows(&Method::POST));
        let register = find("/register").unwrap().entry;
        assert!(register.allows(&Method::POST) && !register.allows(&Method::HEAD) && !register.allows(&Method::GET));
    }
}
