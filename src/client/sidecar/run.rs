//! From arguments and variables to an exit code.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::lifecycle::Step;
use crate::registration::{Registration, RegistrationConfig};
use crate::sidecar::config;
use crate::sidecar::log::{self, Level};

/// Runs the sidecar until it is told to end. `arguments` are those after the program's name, `variable` gives the value of
/// an environment variable. Returns the exit code: 0, 1 (it could not go on), 2 (usage) or 78 (configuration).
pub fn run(arguments: &[String], variable: impl Fn(&str) -> Option<String>) -> u8 {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => serve(variable),
        ["-h" | "--help"] => say(&USAGE),
        ["-V" | "--version"] => say(&concat!("vertice-sidecar ", env!("CARGO_PKG_VERSION"), "\n")),
        _ => {
            complain(&format_args!("unknown arguments: {}\n\n{USAGE}", arguments.join(" ")));
            EXIT_USAGE
        }
    }
}

fn serve(variable: impl Fn(&str) -> Option<String>) -> u8 {
    let config = match config::read(variable) {
        Ok(config) => config,
        Err(mistakes) => {
            complain(&mistakes);
            return EXIT_CONFIG;
        }
    };
    match keep_registered(config) {
        Ok(()) => 0,
        Err(error) => {
            log::line(Level::Error, &error);
            EXIT_RUNTIME
        }
    }
}

fn keep_registered(config: RegistrationConfig) -> io::Result<()> {
    // First of all, so that a signal that comes early finds us listening.
    let mut signals = signals()?;
    log::line(Level::Info, &introduction(&config));
    let registration = Registration::start(config, |step: &Step| {
        log::line(if step.is_warning() { Level::Warn } else { Level::Info }, step);
    })?;
    wait_for_signal(&mut signals, &registration)?;
    registration.stop();
    Ok(())
}

/// A stream that gets a byte with each SIGTERM and SIGINT.
fn signals() -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_read_timeout(Some(LOOK_AFTER_WORKER))?;
    pipe::register(SIGTERM, writer.try_clone()?)?;
    pipe::register(SIGINT, writer)?;
    Ok(reader)
}

fn wait_for_signal(signals: &mut UnixStream, registration: &Registration) -> io::Result<()> {
    loop {
        match signals.read(&mut [0]) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                // Better to be restarted than to look alive and do nothing.
                if registration.is_finished() {
                    return Err(io::Error::other("failed to keep the service registered: the worker ended by itself"));
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn introduction(config: &RegistrationConfig) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let registries = config.registry.as_slice().join(", ");
    format!("vertice-sidecar {version} for {} at {}, registry {registries}", config.service_name, config.endpoint)
}

fn say(text: &impl fmt::Display) -> u8 {
    match write!(io::stdout(), "{text}") {
        Ok(()) => 0,
        Err(_) => EXIT_RUNTIME,
    }
}

/// Nobody can be told when standard error is gone.
fn complain(message: &impl fmt::Display) {
    let _ = writeln!(io::stderr(), "vertice-sidecar: {message}");
}

const EXIT_RUNTIME: u8 = 1;
const EXIT_USAGE: u8 = 2;
/// `EX_CONFIG` of sysexits.h.
const EXIT_CONFIG: u8 = 78;
const LOOK_AFTER_WORKER: Duration = Duration::from_secs(5);

const USAGE: &str = "\
Registers the service next to it with the Vertice Gateway and keeps it registered.

Usage: vertice-sidecar [--help | --version]

Environment:
  SERVICE_NAME             name of the service, like osint_service (required)
  SERVICE_HOST             host under which the gateway reaches it (required)
  SERVICE_PORT             its port [8080]
  SERVICE_HEALTH_ENDPOINT  its health path; ready when it answers 200 [/health]
  REGISTRY_URL             registries, comma-separated [http://vertice-register-lb:80]
  HEARTBEAT_INTERVAL       time from one heartbeat to the next [30]
  INITIAL_WAIT_TIMEOUT     how long to wait for the first 200 before registering anyway [60]
  VERTICE_REGISTRY_TOKEN   token of the registry, if it wants one (also REGISTRY_AUTH_TOKEN)
  SIDECAR_HEALTH_GATE      report: an unhealthy service is reported as such;
                           strict: its heartbeats stop and the lease lapses [report]
  SIDECAR_INSTANCE_ID      identity of this instance [SERVICE_HOST:SERVICE_PORT]
  SERVICE_TTL              length of the lease in seconds, 5 to 3600 [the registry's]
  SERVICE_WEIGHT           share of the traffic, 0 to 1000 [the registry's]
  SERVICE_ZONE             where it runs (also ZONE)
  SERVICE_TAGS             words to select it by, comma-separated

Times are seconds (30, 0.5) or have a unit (500ms, 30s, 5m).
Exit codes: 0 told to end, 1 runtime, 2 usage, 78 configuration.
";
