//! What clients and instances may speak besides plain HTTP/1, and how either side leaves.

mod departures;
mod http2;
mod instances;
mod tls;
mod websocket;
