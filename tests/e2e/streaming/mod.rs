//! Bodies flow as they come, both ways, and other protocols flow through (SPEC §4).

mod bodies;
mod interim;
mod live;
mod old;
mod upgrade;
