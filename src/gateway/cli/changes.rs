//! What has changed between two states of a service.

use super::colour::Tone;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use vertice_api::{Instance, ServiceInfo};

/// The new state of one service.
#[derive(Debug)]
pub(super) enum Change {
    /// It has these instances.
    Present(Box<ServiceInfo>),
    /// It has none any more.
    Gone(String),
}

impl Change {
    /// Reads what a stream of changes says of one service.
    pub(super) fn read(text: &str) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Gone {
            service_name: String,
            #[serde(default)]
            deleted: bool,
        }
        let gone: Gone = serde_json::from_str(text)?;
        if gone.deleted { Ok(Self::Gone(gone.service_name)) } else { serde_json::from_str(text).map(Self::Present) }
    }

    /// Which service it is about.
    pub(super) fn service(&self) -> &str {
        match self {
            Self::Present(info) => &info.service_name,
            Self::Gone(service) => service,
        }
    }
}

/// One thing that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// Which instance; empty when the service as a whole is meant.
    pub(super) instance: String,
    /// What.
    pub(super) what: What,
}

/// What is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// It is there, at this address, and says this of its health.
    Registered(String, String),
    /// It was there, and has registered anew.
    RegisteredAgain,
    /// It is not there any more.
    Removed,
    /// This fact had one value and has another.
    Fact(&'static str, String, String),
    /// Its metadata.
    Metadata,
    /// Nothing that the registry lists: a name's addresses, for example.
    Unlisted,
}

impl What {
    /// How good that is.
    pub(super) fn tone(&self) -> Tone {
        match self {
            Self::Registered(..) => Tone::Good,
            Self::Removed => Tone::Bad,
            Self::Fact("status" | "breaker", _, to) => Tone::of(to),
            Self::RegisteredAgain | Self::Fact(..) | Self::Metadata | Self::Unlisted => Tone::Plain,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered(endpoint, status) => write!(f, "registered at {endpoint}, {status}"),
            Self::RegisteredAgain => f.write_str("registered again"),
            Self::Removed => f.write_str("removed"),
            Self::Fact(name, from, to) => write!(f, "{name} {from} -> {to}"),
            Self::Metadata => f.write_str("metadata changed"),
            Self::Unlisted => f.write_str("changed"),
        }
    }
}

/// The services as they were last seen.
#[derive(Debug, Default)]
pub(super) struct Board(BTreeMap<String, ServiceInfo>);

impl Board {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes the change in, and tells what is different; nothing, when that is nothing that can be seen.
    pub(super) fn apply(&mut self, change: Change) -> Vec<Difference> {
        match change {
            Change::Gone(service) => diff(&self.0.remove(&service).map(|info| info.instances).unwrap_or_default(), &[]),
            Change::Present(info) => {
                let before = self.0.get(&info.service_name).map_or(&[][..], |known| &known.instances);
                let differences = diff(before, &info.instances);
                self.0.insert(info.service_name.clone(), *info);
                differences
            }
        }
    }

    /// Which of the known services are missing in a whole list.
    pub(super) fn missing<'l>(&self, listed: impl Iterator<Item = &'l str>) -> Vec<String> {
        let listed: BTreeSet<&str> = listed.collect();
        self.0.keys().filter(|known| !listed.contains(known.as_str())).cloned().collect()
    }
}

fn diff(before: &[Instance], after: &[Instance]) -> Vec<Difference> {
    let (old, new) = (by_id(before), by_id(after));
    let mut differences = Vec::new();
    let mut note = |instance: &str, what| differences.push(Difference { instance: instance.to_owned(), what });
    for id in old.keys().filter(|id| !new.contains_key(*id)) {
        note(id, What::Removed);
    }
    for (id, now) in &new {
        match old.get(id) {
            None => note(id, What::Registered(now.endpoint.clone(), now.status.clone())),
            Some(was) => compare(was, now).into_iter().for_each(|what| note(id, what)),
        }
    }
    differences
}

fn by_id(instances: &[Instance]) -> BTreeMap<&str, &Instance> {
    instances.iter().map(|instance| (instance.instance_id.as_str(), instance)).collect()
}

fn compare(was: &Instance, now: &Instance) -> Vec<What> {
    let unsaid = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
    let mut differences = Vec::new();
    #[expect(clippy::float_cmp, reason = "both are the same figure of the same registry, or they are not")]
    if was.registered_at != now.registered_at {
        differences.push(What::RegisteredAgain);
    }
    for (name, from, to) in [
        ("status", was.status.clone(), now.status.clone()),
        ("breaker", was.breaker.clone(), now.breaker.clone()),
        ("endpoint", was.endpoint.clone(), now.endpoint.clone()),
        ("weight", was.weight.to_string(), now.weight.to_string()),
        ("zone", unsaid(&was.zone), unsaid(&now.zone)),
        ("version", unsaid(&was.version), unsaid(&now.version)),
        ("health path", was.health_endpoint.clone(), now.health_endpoint.clone()),
    ] {
        if from != to {
            differences.push(What::Fact(name, from, to));
        }
    }
    if was.metadata != now.metadata {
        differences.push(What::Metadata);
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn instance(id: &str) -> Value {
        json!({
            "instance_id": id, "endpoint": "http://a:1", "health_endpoint": "/", "metadata": {}, "weight": 100, "zone": null,
            "version": "1", "status": "healthy", "breaker": "closed", "registered_at": 1.5, "last_heartbeat": 2.5, "ttl_remaining": 60
        })
    }

    fn service(name: &str, instances: &[Value]) -> Change {
        let value = json!({
            "service_name": name, "endpoint": "http://a:1", "health_endpoint": "/", "registered_at": 1, "last_heartbeat": 1,
            "ttl_remaining": 60, "instances": instances, "of a later version": true
        });
        Change::read(&value.to_string()).unwrap()
    }

    fn told(differences: Vec<Difference>) -> Vec<String> {
        differences.into_iter().map(|difference| format!("{} {}", difference.instance, difference.what)).collect()
    }

    #[test]
    fn instances_come_and_go() {
        let mut board = Board::default();
        assert_eq!(
            told(board.apply(service("x", &[instance("b"), instance("a")]))),
            ["a registered at http://a:1, healthy", "b registered at http://a:1, healthy"]
        );
        assert_eq!(
            told(board.apply(service("x", &[instance("c"), instance("a")]))),
            ["b removed", "c registered at http://a:1, healthy"]
        );
        let gone = || Change::read(r#"{"service_name":"x","deleted":true}"#).unwrap();
        assert_eq!(told(board.apply(gone())), ["a removed", "c removed"]);
        assert_eq!(told(board.apply(gone())), [""; 0]);
    }

    #[test]
    fn facts_change() {
        let mut board = Board::default();
        board.apply(service("x", &[instance("a")]));
        let mut other = instance("a");
        for (name, value) in [("last_heartbeat", json!(9.5)), ("ttl_remaining", json!(3))] {
            other[name] = value;
        }
        assert_eq!(told(board.apply(service("x", &[other.clone()]))), [""; 0]);
        for (name, value) in [
            ("status", json!("draining")),
            ("breaker", json!("open")),
            ("zone", json!("z")),
            ("weight", json!(1)),
            ("registered_at", json!(2.5)),
            ("metadata", json!({"k": "v"})),
        ] {
            other[name] = value;
        }
        let differences = board.apply(service("x", &[other]));
        assert_eq!(differences[2].what.tone(), Tone::Bad);
        assert_eq!(
            told(differences),
            [
                "a registered again",
                "a status healthy -> draining",
                "a breaker closed -> open",
                "a weight 100 -> 1",
                "a zone none -> z",
                "a metadata changed"
            ]
        );
    }

    #[test]
    fn a_list_tells_who_is_missing() {
        let mut board = Board::default();
        for name in ["x", "y", "z"] {
            board.apply(service(name, &[instance("a")]));
        }
        assert_eq!(board.missing(["y"].into_iter()), ["x", "z"]);
        assert_eq!(board.len(), 3);
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for bad in ["", "[]", "{}", r#"{"service_name":"x"}"#] {
            assert!(Change::read(bad).is_err(), "{bad}");
        }
    }
}
