//! `vertice-sidecar exec` beside the real gateway: the sidecar is the parent of a service that really serves (SPEC §9).
//!
//! The service is this very program once more, so the tests need no other one: see [`the_service_serves`].

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::harness::process::Process;
use crate::harness::scripts::{script, text};
use crate::harness::sidecar::program;
use crate::harness::{After, Gateway, PATIENCE, Request, Upstream, eventually, get, net, post, wait_for};

/// Makes this program the service; the value is the directory of the files that tell it how to behave.
const SERVE: &str = "TEST_SERVICE_DIRECTORY";
/// A file that makes it answer its health probes with 503.
const ILL: &str = "ill";
/// A file that makes it end with this code as soon as it is asked for its health.
const QUIT: &str = "quit";

#[test]
fn the_service_serves() {
    if let Some(directory) = std::env::var_os(SERVE) {
        return serve(&PathBuf::from(directory));
    }
    let dir = tempfile::tempdir().unwrap();
    let service = Service::new("any_service", dir.path());
    let process = Process::start(service_command(), &service.env("http://127.0.0.1:1"), "service", dir.path());
    wait_for("its pid", || service.pid());
    assert_eq!(service.pid(), Some(process.id()));
}

/// Serves until it is ended.
fn serve(directory: &Path) {
    let variable = |name: &str| std::env::var_os(name).unwrap().into_string().unwrap();
    let address = format!("{}:{}", variable("SERVICE_HOST"), variable("SERVICE_PORT"));
    let directory = directory.to_owned();
    let (done, end) = std::sync::mpsc::sync_channel(1);
    let _upstream = Upstream::start_at(
        address.parse().unwrap(),
        script(move |exchange| {
            exchange.read_body()?;
            if exchange.seen.target == "/health" && directory.join(QUIT).exists() {
                done.send(()).ok();
                return Ok(After::Close);
            }
            let ill = exchange.seen.target == "/health" && directory.join(ILL).exists();
            if exchange.seen.target.ends_with("/slow") {
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            let status = if ill { "503 Ill" } else { "200 OK" };
            exchange.answer(status, &[], json!({"version": "1", "pid": std::process::id()}).to_string().as_bytes())?;
            Ok(After::KeepAlive)
        }),
    );
    // Signals end it before, without ceremony.
    end.recv().unwrap();
}

/// Starts the service without a sidecar.
pub(crate) fn service_command() -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(service_arguments());
    command
}

fn service_arguments() -> [&'static str; 3] {
    ["--exact", "sidecar_exec::the_service_serves", "--nocapture"]
}

/// A service that a sidecar starts.
pub(crate) struct Service {
    name: &'static str,
    address: SocketAddr,
    directory: PathBuf,
}

impl Service {
    pub(crate) fn new(name: &'static str, directory: &Path) -> Self {
        Self { name, address: net::closed(), directory: directory.to_owned() }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What its sidecar, and the harness, call it.
    pub(crate) fn id(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn env(&self, registry: &str) -> Vec<(String, String)> {
        [
            ("SERVICE_NAME", self.name.to_owned()),
            ("SERVICE_HOST", self.address.ip().to_string()),
            ("SERVICE_PORT", self.address.port().to_string()),
            ("REGISTRY_URL", registry.to_owned()),
            ("HEARTBEAT_INTERVAL", "1".to_owned()),
            (SERVE, self.directory.to_string_lossy().into_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    /// Starts it by way of a sidecar, and waits until the gateway sends to it.
    #[track_caller]
    fn launch(&self, gateway: &Gateway, more: &[(&str, &str)]) -> Process {
        self.launch_in(gateway, more, gateway.dir())
    }

    /// Like [`launch`](Self::launch), with the sidecar's output in `dir`.
    #[track_caller]
    pub(crate) fn launch_in(&self, gateway: &Gateway, more: &[(&str, &str)], dir: &Path) -> Process {
        let mut command = Command::new(program());
        command.args(["exec", "--"]).arg(std::env::current_exe().unwrap()).args(service_arguments());
        let mut env = self.env(&format!("http://{}", gateway.registry));
        env.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let sidecar = Process::start(command, &env, "sidecar", dir);
        eventually("the registration", || gateway.instances(self.name).iter().any(|one| one["instance_id"] == self.id()));
        gateway.data(self.request("x")).expect(200);
        sidecar
    }

    fn request(&self, path: &str) -> Request {
        get(&format!("/v2/{}/{path}", self.name))
    }

    /// The process that answers directly, if one does.
    pub(crate) fn pid(&self) -> Option<u32> {
        get("/x").try_send(self.address).ok()?.json()["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
    }

    /// The process that answers through the gateway, if one does.
    fn routed_pid(&self, gateway: &Gateway) -> Option<u64> {
        let answer = gateway.data(self.request("x"));
        (answer.status == 200).then(|| answer.json()["pid"].as_u64().unwrap())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

fn kill(process: u64) {
    assert!(Command::new("sh").args(["-c", &format!("kill -KILL {process}")]).status().unwrap().success());
}

fn is_gone(process: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"));
    stat.map_or(true, |stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])))
}

#[test]
fn it_starts_the_service_and_ends_it() {
    let gateway = Gateway::start();
    let service = Service::new("child_service", gateway.dir());
    let mut sidecar = service.launch(&gateway, &[]);
    let process = service.routed_pid(&gateway).unwrap();
    sidecar.terminate();
    // The service does not handle the signal.
    assert_eq!(sidecar.exit_within(PATIENCE).code(), Some(143));
    assert!(is_gone(process));
    assert_eq!(gateway.services(), Vec::<String>::new());
}

#[test]
fn a_killed_service_leaves_the_registry_at_once_and_comes_back() {
    let gateway = Gateway::start();
    let service = Service::new("mortal_service", gateway.dir());
    let mut sidecar = service.launch(&gateway, &[]);
    let first = service.routed_pid(&gateway).unwrap();
    kill(first);
    // The lease would be good for another minute.
    eventually("the deregistration", || gateway.services().is_empty());
    let second = wait_for("the service to be back", || service.routed_pid(&gateway));
    assert_ne!(first, second);
    assert!(sidecar.is_alive());
    assert!(sidecar.stdout().contains("Service was ended by SIGKILL, restarting in 1 seconds"), "{}", sidecar.stdout());
}

#[test]
fn a_drain_loses_no_request() {
    let gateway = Gateway::start();
    let service = Service::new("busy_service", gateway.dir());
    let mut sidecar = service.launch(&gateway, &[]);
    let process = service.routed_pid(&gateway).unwrap();
    let other = Upstream::start(text("other"));
    gateway.register("busy_service", &other);

    let ended = AtomicBool::new(false);
    let (service, gateway) = (&service, &gateway);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let client = || {
            let mut answers = Vec::new();
            while !ended.load(Ordering::SeqCst) {
                // A POST is not repeated elsewhere.
                answers.push(gateway.data(post("/v2/busy_service/slow", &json!({}))));
            }
            answers
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        eventually("both to be busy", || other.count() >= 20);
        sidecar.terminate();
        sidecar.exit_within(PATIENCE);
        ended.store(true, Ordering::SeqCst);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let lost: Vec<_> = answers.iter().filter(|answer| answer.status != 200 || !answer.complete).collect();
    assert!(lost.is_empty(), "{} of {} requests were lost: {lost:?}", lost.len(), answers.len());
    let own = answers.iter().filter(|answer| answer.text() != "other").count();
    assert!(own > 0, "the service that drained had nothing to do");
    assert!(is_gone(process));
    assert_eq!(gateway.data(service.request("x")).expect(200).text(), "other");
}

#[test]
fn an_unhealthy_service_is_restarted() {
    let gateway = Gateway::start();
    let service = Service::new("moody_child", gateway.dir());
    let mut sidecar = service.launch(&gateway, &[("SIDECAR_UNHEALTHY_RESTART", "1")]);
    let first = service.routed_pid(&gateway).unwrap();
    std::fs::write(service.file(ILL), "").unwrap();
    eventually("its end", || is_gone(first));
    std::fs::remove_file(service.file(ILL)).unwrap();
    let second = wait_for("the service to be back", || service.routed_pid(&gateway));
    assert_ne!(first, second);
    assert!(sidecar.is_alive());
    assert!(sidecar.stdout().contains("Service has not been healthy for"), "{}", sidecar.stdout());
}

#[test]
fn a_service_that_ends_by_itself_ends_the_sidecar() {
    let gateway = Gateway::start();
    let service = Service::new("short_service", gateway.dir());
    let mut sidecar = service.launch(&gateway, &[]);
    std::fs::write(service.file(QUIT), "").unwrap();
    assert_eq!(sidecar.exit_within(PATIENCE).code(), Some(0));
    assert_eq!(gateway.services(), Vec::<String>::new());
}

#[test]
fn a_killed_sidecar_takes_its_service_along() {
    let gateway = Gateway::builder().env("VERTICE_LEASE__TTL", "3s").start();
    let service = Service::new("bound_service", gateway.dir());
    let mut sidecar = service.launch(&gateway, &[]);
    let process = service.routed_pid(&gateway).unwrap();
    sidecar.kill();
    eventually("the end of the service", || is_gone(process));
    assert_eq!(service.pid(), None);
    eventually("the lease to end", || gateway.services().is_empty());
}

#[test]
fn a_command_that_is_not_there_is_not_tried_again() {
    let gateway = Gateway::start();
    let service = Service::new("no_service", gateway.dir());
    let mut command = Command::new(program());
    command.args(["exec", "--", "no-such-command"]);
    let env = service.env(&format!("http://{}", gateway.registry));
    let mut sidecar = Process::start(command, &env, "sidecar", gateway.dir());
    assert_eq!(sidecar.exit_within(PATIENCE).code(), Some(127));
    assert!(sidecar.stderr().contains("failed to start no-such-command"), "{}", sidecar.stderr());
    assert_eq!(gateway.services(), Vec::<String>::new());
}
