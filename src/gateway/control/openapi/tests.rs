use super::super::fields::{HEALTH_PATH_PATTERN, LABEL_PATTERN, health_path, label};
use super::*;
use proptest::prelude::*;
use regex::Regex;
use vertice_core::endpoint::Endpoint;
use vertice_core::name::{InstanceId, ServiceName};

const EVERYTHING: View = View { role: Role::Registry, registry_on_gateway: true, needs_token: false };

/// `METHOD /path` of everything in the document.
fn listed(document: &Value) -> BTreeSet<String> {
    let paths = document["paths"].as_object().unwrap().iter();
    let methods = |(path, methods): (&String, &Value)| {
        let methods: Vec<String> =
            methods.as_object().unwrap().keys().map(|m| format!("{} {path}", m.to_uppercase())).collect();
        methods
    };
    paths.flat_map(methods).collect()
}

fn called(role: Role, registry_on_gateway: bool) -> BTreeSet<String> {
    let calls = CALLS.iter().filter(|entry| entry.exists(role, registry_on_gateway));
    calls.map(|entry| format!("{} {}", entry.method, entry.template())).collect()
}

#[test]
fn a_listener_lists_the_calls_it_takes_and_no_other() {
    for (role, registry_on_gateway) in
        [(Role::Registry, false), (Role::Registry, true), (Role::Gateway, false), (Role::Gateway, true)]
    {
        let document = document(View { role, registry_on_gateway, needs_token: false });
        assert_eq!(listed(&document), called(role, registry_on_gateway), "{role:?} {registry_on_gateway}");
    }
    let all = listed(&document(EVERYTHING));
    assert_eq!(all.len(), CALLS.len());
    assert!(all.contains("DELETE /deregister/{name}") && all.contains("GET /openapi.json"), "{all:?}");
}

#[test]
fn every_reference_leads_somewhere_and_every_component_is_used() {
    let document = document(EVERYTHING);
    let mut used = BTreeSet::new();
    visit(&document, &mut |key, value| {
        if let (Some("$ref"), Some(target)) = (key, value.as_str()) {
            let pointer = target.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{target} is nowhere");
            used.insert(pointer.to_owned());
        }
    });
    for kind in ["schemas", "responses", "headers"] {
        for name in document["components"][kind].as_object().unwrap().keys() {
            assert!(used.contains(&format!("/components/{kind}/{name}")), "{kind} {name} is not used");
        }
    }
}

#[test]
fn a_default_is_what_the_schema_allows() {
    fn look(value: &Value) {
        let object = value.as_object();
        if let Some((fixed, default)) = object.and_then(|object| object.get("const").zip(object.get("default"))) {
            assert_eq!(fixed, default, "{value}");
        }
        object.into_iter().flat_map(serde_json::Map::values).chain(value.as_array().into_iter().flatten()).for_each(look);
    }
    look(&document(EVERYTHING));
}

#[test]
fn descriptions_are_for_people_who_know_no_rust() {
    visit(&document(EVERYTHING), &mut |key, value| {
        if let (Some("description" | "summary"), Some(text)) = (key, value.as_str()) {
            for foreign in ["[`", "::", "`None`", "Some("] {
                assert!(!text.contains(foreign), "{text}");
            }
        }
    });
}

#[test]
fn a_token_is_optional_while_none_is_configured() {
    let security = |needs_token| document(View { needs_token, ..EVERYTHING })["paths"]["/register"]["post"]["security"].clone();
    assert!(security(false).as_array().unwrap().contains(&json!({})));
    assert!(!security(true).as_array().unwrap().contains(&json!({})));
    assert_eq!(document(EVERYTHING)["paths"]["/services"]["get"]["security"], Value::Null);
}

#[test]
fn operations_have_names_of_their_own_and_links_lead_to_them() {
    let document = document(EVERYTHING);
    let operations = document["paths"].as_object().unwrap().values().flat_map(|methods| methods.as_object().unwrap().values());
    let ids: BTreeSet<&str> = operations.map(|operation| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), CALLS.len());
    let links = document["paths"]["/register"]["post"]["responses"]["201"]["links"].as_object().unwrap();
    let targets: Vec<&str> = links.values().map(|link| link["operationId"].as_str().unwrap()).collect();
    assert!(targets.len() == 3 && targets.iter().all(|id| ids.contains(id)), "{targets:?}");
}

fn visit(value: &Value, seen: &mut impl FnMut(Option<&str>, &Value)) {
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| {
            seen(Some(key), value);
            visit(value, seen);
        }),
        Value::Array(items) => items.iter().for_each(|item| visit(item, seen)),
        _ => {}
    }
}

/// Texts near the edge of every rule.
fn nearly() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,80}",
        "[a-z0-9_A-Z:.\\[\\]-]{0,140}",
        "[a-z][a-z0-9_-]{0,70}",
        "/[/.a#é ?=%{}~!-]{0,8}",
        "[hH][tT]tps?://[a-z0-9.:_\\[\\]-]{1,12}(/[a-z./%?#@]{0,8})?",
        "[\\x00-\\x20\\x7f-\\xa1a]{0,4}",
        Just(format!("/{}", "x".repeat(255))),
    ]
}

proptest! {
    #[test]
    fn the_patterns_are_the_parsers(text in nearly()) {
        let fits = |pattern: &str| Regex::new(pattern).unwrap().is_match(&text);
        prop_assert_eq!(fits(ServiceName::PATTERN), ServiceName::parse(&text).is_ok());
        prop_assert_eq!(fits(InstanceId::PATTERN), InstanceId::parse(&text).is_ok());
        prop_assert_eq!(fits(HEALTH_PATH_PATTERN) && text.len() <= 255, health_path(&text).is_ok());
        prop_assert_eq!(fits(LABEL_PATTERN) && text.chars().count() <= 64, label(&text, 64).is_ok());
        prop_assert!(fits(Endpoint::PATTERN) || Endpoint::parse(&text).is_err());
    }
}
