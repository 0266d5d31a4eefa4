//! How this crate speaks HTTP.

use std::time::Duration;

use ureq::config::{Config, ConfigBuilder};
use ureq::typestate::AgentScope;
use ureq::unversioned::transport::DefaultConnector;

use crate::names::Names;

/// An agent whose calls end within `timeout` (resolving and connecting within 1 s each).
///
/// - It remembers where names led, see [`Names`].
/// - No pool: calls are many seconds apart, so a kept connection would nearly always have been closed by the other side.
/// - No redirects: the answer of the address we were given counts.
/// - No proxy: `HTTP_PROXY` is meant for the internet, the registry and the service are next door.
/// - Small buffers: ureq's 128 KiB each would be most of our memory.
pub(crate) fn agent(timeout: Duration) -> ureq::Agent {
    with(config(timeout).timeout_global(Some(timeout)).build())
}

/// An agent for an answer that never ends: its head comes within `timeout`, and after that it is never silent for longer
/// than `silence_max`.
pub(crate) fn endless(timeout: Duration, silence_max: Duration) -> ureq::Agent {
    let config = config(timeout).timeout_send_request(Some(timeout)).timeout_recv_response(Some(timeout));
    with(config.timeout_per_read(Some(silence_max)).build())
}

fn with(config: Config) -> ureq::Agent {
    ureq::Agent::with_parts(config, DefaultConnector::default(), Names::default())
}

fn config(timeout: Duration) -> ConfigBuilder<AgentScope> {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_resolve(Some(CONNECT_TIMEOUT.min(timeout)))
        .timeout_connect(Some(CONNECT_TIMEOUT.min(timeout)))
        .max_idle_connections(0)
        .max_idle_connections_per_host(0)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_response_header_size(BUFFER)
        .input_buffer_size(BUFFER)
        .output_buffer_size(BUFFER)
        .proxy(None)
        .user_agent(concat!("vertice-client/", env!("CARGO_PKG_VERSION")))
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const BUFFER: usize = 16 * 1024;
