//! The gateway under test.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::lane::Lane;
use super::metrics::Metrics;
use super::net;
use super::process::Process;
use super::{Contract, PATIENCE, Request, Response, Upstream, get, now, post};

/// Path of the program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_vertice-gateway");

/// What a gateway shall be started with.
#[derive(Clone)]
pub(crate) struct Builder {
    env: Vec<(String, String)>,
    config: Option<String>,
    address: IpAddr,
    dir: Option<Arc<TempDir>>,
    open_files: Option<u32>,
    lane: Lane,
}

impl Builder {
    /// Adds a variable; a later one wins.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.retain(|(other, _)| other != name);
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Writes this configuration file.
    pub(crate) fn config(mut self, toml: &str) -> Self {
        self.config = Some(toml.to_owned());
        self
    }

    /// Listens on this address instead of one of its own.
    pub(crate) fn address(mut self, address: impl Into<IpAddr>) -> Self {
        self.address = address.into();
        self
    }

    /// Sends plain requests this way, whichever way the other tests of this run send them.
    pub(crate) fn lane(mut self, lane: Lane) -> Self {
        self.lane = lane;
        self
    }

    /// Serves everything with one thread. Each has its own connections to instances, and so only then whoever asks next is sure to
    /// find the one that was kept.
    pub(crate) fn one_worker(self) -> Self {
        self.env("VERTICE_GATEWAY__WORKERS", "1")
    }

    /// Lets it have so many descriptors and no more.
    pub(crate) fn open_files(mut self, limit: u32) -> Self {
        self.open_files = Some(limit);
        self
    }

    /// Shares the directory, and so the store, of another gateway.
    pub(crate) fn in_dir_of(mut self, other: &Gateway) -> Self {
        self.dir = Some(other.dir.clone());
        self
    }

    #[track_caller]
    pub(crate) fn start(self) -> Gateway {
        let dir = self.dir.clone().unwrap_or_else(|| Arc::new(tempfile::tempdir().unwrap()));
        let ports = [SocketAddr::new(self.address, 0); 2];
        let (process, [gateway, registry], ports) = self.launch(dir.path(), ports);
        Gateway { process, gateway, registry, ports, dir, builder: self, contracts: [const { OnceLock::new() }; 2] }
    }

    /// Starts the program on these addresses and waits for it to accept.
    #[track_caller]
    fn launch(&self, dir: &Path, addresses: [SocketAddr; 2]) -> (Process, [SocketAddr; 2], Value) {
        let ports_file = tempfile::Builder::new().prefix("ports").tempdir_in(dir).unwrap().keep().join("ports.json");
        let mut command = match self.open_files {
            Some(limit) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\""), PROGRAM]);
                shell
            }
            None => Command::new(PROGRAM),
        };
        command.arg("run");
        if let Some(toml) = &self.config {
            let path = dir.join("vertice.toml");
            std::fs::write(&path, toml).unwrap();
            command.arg("--config").arg(path);
        }
        let mut env = vec![
            ("VERTICE_GATEWAY__LISTEN".to_owned(), addresses[0].to_string()),
            ("VERTICE_REGISTRY__LISTEN".to_owned(), addresses[1].to_string()),
            ("VERTICE_STORE__PATH".to_owned(), dir.join("data").to_string_lossy().into_owned()),
            ("VERTICE_SERVER__PORT_FILE".to_owned(), ports_file.to_string_lossy().into_owned()),
        ];
        env.extend(self.lane.variable());
        env.extend(self.env.iter().cloned());
        let mut process = Process::start(command, &env, "gateway", dir);
        let ports = wait_for_ports(&mut process, &ports_file);
        let main = ["gateway", "registry"].map(|name| first(&ports, name));
        (process, main, ports)
    }
}

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) process: Process,
    /// Where the data plane listens.
    pub(crate) gateway: SocketAddr,
    /// Where the registry listens.
    pub(crate) registry: SocketAddr,
    /// Everywhere it listens.
    ports: Value,
    dir: Arc<TempDir>,
    builder: Builder,
    /// What the listeners say of themselves.
    contracts: [OnceLock<Contract>; 2],
}

impl Gateway {
    pub(crate) fn builder() -> Builder {
        let env = vec![("VERTICE_LOG__ACCESS".to_owned(), "off".to_owned())];
        // Of its own, so that nobody has its ports when it starts again.
        let (address, lane) = (net::loopback().into(), Lane::of_this_run());
        Builder { env, config: None, address, dir: None, open_files: None, lane }
    }

    /// A gateway with the defaults.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::builder().start()
    }

    /// Where its first listener of that kind listens, by the name in the port file.
    #[track_caller]
    pub(crate) fn listener(&self, kind: &str) -> SocketAddr {
        first(&self.ports, kind)
    }

    /// The directory of its files.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where its store is.
    pub(crate) fn store(&self) -> PathBuf {
        self.dir().join("data")
    }

    /// Starts it again, on the addresses it had, after it ended.
    #[track_caller]
    pub(crate) fn start_again(&mut self) {
        let addresses = [self.gateway, self.registry];
        let (process, addresses, ports) = self.builder.launch(self.dir.path(), addresses);
        (self.process, self.ports) = (process, ports);
        [self.gateway, self.registry] = addresses;
    }

    /// Kills it without warning and starts it again.
    #[track_caller]
    pub(crate) fn crash_and_restart(&mut self) {
        self.process.kill();
        self.start_again();
    }

    /// Asks the data plane.
    #[track_caller]
    pub(crate) fn data(&self, request: Request) -> Response {
        self.ask(&request, self.gateway, &self.contracts[0])
    }

    /// Asks the registry.
    #[track_caller]
    pub(crate) fn api(&self, request: Request) -> Response {
        self.ask(&request, self.registry, &self.contracts[1])
    }

    /// Asks a listener, and checks that its description announces such an answer.
    #[track_caller]
    fn ask(&self, request: &Request, listener: SocketAddr, contract: &OnceLock<Contract>) -> Response {
        let response = request.send(listener);
        if !request.path().starts_with("/v2") {
            if contract.get().is_none()
                && let Some(fetched) = Contract::of(listener)
            {
                contract.get_or_init(|| fetched);
            }
            let verdict = contract.get().map_or(Ok(()), |contract| contract.check(request, &response));
            verdict.unwrap_or_else(|error| panic!("/openapi.json: {error}\n{request:?}\n{response:?}"));
        }
        response
    }

    /// What the registry's listener says of itself.
    #[track_caller]
    pub(crate) fn contract(&self) -> Contract {
        Contract::of(self.registry).expect("a description")
    }

    /// Registers an instance, whose id is its address, and checks that this works.
    #[track_caller]
    pub(crate) fn register(&self, service: &str, upstream: &Upstream) {
        self.register_at(service, &upstream.url());
    }

    #[track_caller]
    pub(crate) fn register_at(&self, service: &str, endpoint: &str) {
        let id = endpoint.trim_start_matches("http://").replace('/', "_");
        let body = json!({"service_name": service, "endpoint": endpoint, "instance_id": id});
        self.api(post("/register", &body)).expect(201);
    }

    /// `GET /services`.
    #[track_caller]
    pub(crate) fn services(&self) -> Vec<String> {
        serde_json::from_value(self.api(get("/services")).expect(200).json()).unwrap()
    }

    /// `GET /services/{name}`.
    #[track_caller]
    pub(crate) fn service(&self, name: &str) -> Value {
        self.api(get(&format!("/services/{name}"))).expect(200).json()
    }

    /// `GET /health`, whatever its status.
    #[track_caller]
    pub(crate) fn health(&self) -> Value {
        self.api(get("/health")).json()
    }

    /// `GET /gateway/status`.
    #[track_caller]
    pub(crate) fn status(&self) -> Value {
        self.data(get("/gateway/status")).expect(200).json()
    }

    /// What `/gateway/status` says of the service's instances.
    #[track_caller]
    pub(crate) fn instances(&self, service: &str) -> Vec<Value> {
        let status = self.status();
        let services = status["services"].as_array().unwrap();
        let found = services.iter().find(|entry| entry["service_name"] == service);
        found.and_then(|entry| entry["instances"].as_array().cloned()).unwrap_or_default()
    }

    /// The breaker of the service's only instance.
    #[track_caller]
    pub(crate) fn breaker(&self, service: &str) -> String {
        let instances = self.instances(service);
        assert_eq!(instances.len(), 1, "{instances:?}");
        instances[0]["breaker"].as_str().unwrap().to_owned()
    }

    /// Metrics of the data plane.
    #[track_caller]
    pub(crate) fn metrics(&self) -> Metrics {
        Metrics::parse(&self.data(get("/metrics")).expect(200).text())
    }

    /// Metrics of the registry.
    #[track_caller]
    pub(crate) fn registry_metrics(&self) -> Metrics {
        Metrics::parse(&self.api(get("/metrics")).expect(200).text())
    }

    /// Checks that it lives and never panicked.
    #[track_caller]
    pub(crate) fn assert_sound(&mut self) {
        assert!(self.process.is_alive(), "the gateway ended");
        assert_eq!(self.metrics().sum("vertice_panics_total", &[]), 0.0, "{}", self.process.stderr());
    }
}

/// The first listener of a kind.
#[track_caller]
fn first(ports: &Value, kind: &str) -> SocketAddr {
    let address = ports[kind][0].as_str().unwrap_or_else(|| panic!("no {kind} in {ports}"));
    address.parse().unwrap()
}

/// Waits for the port file: it is written once both listeners accept.
#[track_caller]
fn wait_for_ports(process: &mut Process, file: &Path) -> Value {
    let start = now();
    loop {
        if let Ok(text) = std::fs::read_to_string(file) {
            return serde_json::from_str(&text).unwrap_or_else(|e| panic!("bad port file ({e}): {text}"));
        }
        assert!(process.is_alive(), "the gateway ended instead of starting");
        assert!(start.elapsed() < PATIENCE, "no port file after {PATIENCE:?}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
