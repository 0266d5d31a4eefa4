//! From arguments and variables to an exit code.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::lifecycle::Step;
use crate::registration::{Registration, RegistrationConfig};
use crate::sidecar::log::{self, Level};
use crate::sidecar::wake::Wake;
use crate::sidecar::{child, config, healthcheck, launcher};

/// Runs the sidecar until it is told to end. `arguments` are those after the program's name, `variable` gives the value of
/// an environment variable. Returns the exit code: 0, 1 (it could not go on), 2 (usage) or 78 (configuration), and with
/// `exec` that of the command.
pub fn run(arguments: &[OsString], variable: impl Fn(&str) -> Option<String>) -> u8 {
    match arguments.iter().map(|argument| argument.to_str().unwrap_or_default()).collect::<Vec<_>>().as_slice() {
        [] => serve(variable),
        ["-h" | "--help"] => say(&USAGE),
        ["-V" | "--version"] => say(&concat!("vertice-sidecar ", env!("CARGO_PKG_VERSION"), "\n")),
        ["healthcheck"] => check(variable),
        ["exec", "--", _, ..] => launch(&arguments[2..], variable),
        ["exec", ..] => {
            complain(&format_args!("exec wants a command: vertice-sidecar exec -- COMMAND [ARGUMENT…]\n\n{USAGE}"));
            EXIT_USAGE
        }
        [child::BECOME, ..] => child::become_command(&arguments[1..]),
        _ => {
            let arguments = arguments.join(OsStr::new(" "));
            complain(&format_args!("unknown arguments: {}\n\n{USAGE}", arguments.to_string_lossy()));
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
    exit_code(keep_registered(config).map(|()| 0))
}

fn check(variable: impl Fn(&str) -> Option<String>) -> u8 {
    match config::read(variable).map(|config| healthcheck::check(&config)) {
        Ok(Ok(found)) => say(&format_args!("{found}\n")),
        Ok(Err(why)) => {
            complain(&why);
            EXIT_RUNTIME
        }
        Err(mistakes) => {
            complain(&mistakes);
            EXIT_CONFIG
        }
    }
}

fn launch(command: &[OsString], variable: impl Fn(&str) -> Option<String>) -> u8 {
    let launch = match config::read_launch(variable) {
        Ok(launch) => launch,
        Err(mistakes) => {
            complain(&mistakes);
            return EXIT_CONFIG;
        }
    };
    exit_code(Wake::new().and_then(|wake| {
        log::line(Level::Info, &introduction(&launch.registration));
        launcher::run(command, launch, wake)
    }))
}

fn exit_code(result: io::Result<u8>) -> u8 {
    result.unwrap_or_else(|error| {
        log::line(Level::Error, &error);
        EXIT_RUNTIME
    })
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
       vertice-sidecar exec -- COMMAND [ARGUMENT…]
       vertice-sidecar healthcheck

healthcheck asks the registry, with the same environment: 0 when it lists this instance, else 1.
exec also starts the service, restarts it when it fails, and ends it when told to end.

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

Environment of exec (the command gets all of it, and SERVICE_PORT even when it is not set):
  SIDECAR_RESTART          which ends are followed by a restart: always, on-failure (all but
                           exit code 0) or never [on-failure]. Restarts wait 1, 2, 4 … 60 s;
                           after 60 s of good health the next one counts as the first
  SIDECAR_RESTART_MAX      restarts in a row before giving up, 0 is no limit [0]
  SIDECAR_UNHEALTHY_RESTART
                           restart it when it has been unhealthy for so long, or has not become
                           ready for so long after INITIAL_WAIT_TIMEOUT; at least 1s, or off [off]
  SIDECAR_DRAIN_WAIT       when told to end: from deregistration to the signal to the command,
                           for requests that are already on their way [1]
  SIDECAR_STOP_GRACE       from that signal to SIGKILL [10]

SIGTERM and SIGINT end it: the service is deregistered, gets the signal, and is waited for.
HUP, QUIT, USR1, USR2, WINCH, TSTP and CONT are passed on. Signals go to the command's process
group. The command is killed if the sidecar dies; what it started in turn is not, unless the
sidecar is PID 1: let a shell end in `exec`.

Times are seconds (30, 0.5) or have a unit (500ms, 30s, 5m).
Exit codes: 0 told to end, 1 runtime, 2 usage, 78 configuration. With exec: the command's, 128
and its signal, 126 when it is no program, 127 when it is not found.
";
