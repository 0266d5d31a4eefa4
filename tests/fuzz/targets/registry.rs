//! Bodies of the registry: what is accepted is one JSON object, says what it seems to say, and keeps within the bounds.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr};
use vertice_core::endpoint::{Endpoint, Guard};
use vertice_gateway::control::{Caller, Error, Role, parse_heartbeat, parse_registration};
use vertice_gateway::request_id::RequestId;

pub(crate) fn check(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    let body = Bytes::copy_from_slice(bytes);
    let caller = Caller {
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        is_trusted_proxy: false,
        role: Role::Registry,
        request_id: RequestId::UNKNOWN,
    };
    let plain = serde_json::from_slice::<Value>(bytes).ok();
    let said = |field: &str| plain.as_ref().and_then(|value| value[field].as_str().map(str::to_owned));
    match parse_registration(&headers, &body, &caller, &Guard::default()) {
        Ok(registration) => {
            assert_eq!(said("service_name").as_deref(), Some(registration.service.as_str()));
            let name = registration.service.as_str();
            assert!(
                (3..=64).contains(&name.len())
                    && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
            );
            if let Some(id) = &registration.id {
                assert_eq!(said("instance_id").as_deref(), Some(id.as_str()));
            }
            let written = registration.endpoint.to_string();
            let again = Endpoint::parse(&written).unwrap_or_else(|rule| panic!("{written} is refused: {rule:?}"));
            assert_eq!(again, registration.endpoint, "an endpoint is written down as what it is");
            assert!(registration.metadata.len() <= 32 && registration.weight <= 1000);
            assert!(registration.metadata.iter().all(|(key, value)| key.chars().count() <= 64 && value.chars().count() <= 512));
            assert!(registration.health_endpoint.starts_with('/') && !registration.health_endpoint.contains(char::is_control));
        }
        Err(error) => explained(&error),
    }
    match parse_heartbeat(&headers, &body, &caller) {
        Ok(renewal) => assert_eq!(said("service_name").as_deref(), Some(renewal.service.as_str())),
        Err(error) => explained(&error),
    }
}

/// Either the body as a whole is refused, or fields are, each with its name.
fn explained(error: &Error) {
    let status = error.reason.status();
    assert!(matches!(status, 400 | 413 | 415 | 422), "{error:?}");
    assert!(!error.detail.is_empty() && (status == 422) != error.errors.is_empty(), "{error:?}");
    assert!(error.errors.iter().all(|error| !error.field.is_empty() && !error.message.is_empty()));
}
