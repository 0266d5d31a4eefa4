//! The binary: arguments and environment in, exit code out.

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;
use vertice_gateway::cli;
use vertice_gateway::config::{self, Config, LogFormat, Source};
use vertice_gateway::demo;
use vertice_gateway::descriptors;
use vertice_gateway::server::Gateway;
use vertice_gateway::telemetry::log;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What clap ends with, too.
const EXIT_USAGE: u8 = 2;
/// The configuration is bad (`EX_CONFIG` of sysexits.h).
const EXIT_CONFIG: u8 = 78;

/// With what it was built from.
static VERSION: LazyLock<String> =
    LazyLock::new(|| format!("{} (build {})", env!("CARGO_PKG_VERSION"), vertice_gateway::BUILD));

/// Reverse proxy and service registry in one process.
#[derive(Parser)]
#[command(
    version = VERSION.as_str(),
    after_help = "Configuration: --config FILE, else VERTICE_CONFIG, else /etc/vertice/vertice.toml if it \
exists, else defaults. VERTICE_SECTION__KEY overrides any key. conf/vertice.toml documents them all."
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Call>,
    #[command(flatten)]
    options: Options,
}

#[derive(Args, Default)]
struct Options {
    /// The configuration file.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Call {
    /// Serve; what happens without a command, too.
    Run(Options),
    /// Check the configuration and exit: 0 when it is good, 78 with every mistake when it is not.
    Check(Options),
    /// Ask the gateway with this configuration on this host whether it serves: 0 when every listener says so, else 1. It wants
    /// the configuration that the gateway was started with, for the addresses.
    Healthcheck(Options),
    /// Serve together with a small service that registers itself, to try things out.
    Demo {
        /// Send the demonstration's requests, print PASS and exit.
        #[arg(long)]
        once: bool,
        #[command(flatten)]
        options: Options,
    },
    #[command(flatten)]
    Ask(cli::Call),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    #[expect(clippy::disallowed_methods, reason = "the environment is read here, once")]
    let env: BTreeMap<String, String> =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
    match cli.command.unwrap_or_default() {
        Call::Ask(_) if cli.options.config.is_some() => misused("--config is not for commands that ask a running gateway"),
        Call::Ask(call) => cli::run(&call, &env, Cli::command),
        Call::Check(options) => options.or(cli.options).load(&env, |config| check(&config)),
        Call::Healthcheck(options) => options.or(cli.options).load(&env, |config| {
            let listeners = [config.gateway.listen.first(), config.registry.listen.first()];
            cli::check_health(&listeners.into_iter().flatten().copied().collect::<Vec<_>>(), &env)
        }),
        Call::Run(options) => {
            let options = options.or(cli.options);
            let source = Source::new(options.config.clone(), env.clone());
            options.load(&env, |config| {
                start_log(&config);
                descriptors::raise_limit();
                finish(Gateway::prepare(config, Some(source)).and_then(Gateway::run))
            })
        }
        Call::Demo { once, options } => options.or(cli.options).load(&env, |config| {
            start_log(&config);
            descriptors::raise_limit();
            finish(demo::run(config, once))
        }),
    }
}

impl Default for Call {
    fn default() -> Self {
        Self::Run(Options::default())
    }
}

impl Options {
    /// The same option may stand before the command and after it.
    fn or(self, before: Self) -> Self {
        Self { config: self.config.or(before.config) }
    }

    fn load(self, env: &BTreeMap<String, String>, command: impl FnOnce(Config) -> ExitCode) -> ExitCode {
        match config::load(self.config.as_deref(), env) {
            Ok(config) => command(config),
            Err(mistakes) => {
                complain(&mistakes);
                ExitCode::from(EXIT_CONFIG)
            }
        }
    }
}

fn misused(message: &str) -> ExitCode {
    let error = Cli::command().error(ErrorKind::ArgumentConflict, message);
    // Whoever closed standard error does not want to know.
    let _ = error.print();
    ExitCode::from(EXIT_USAGE)
}

fn start_log(config: &Config) {
    let is_json = match config.log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::IsTerminal::is_terminal(&std::io::stderr()),
    };
    log::start(config.log.level.as_str(), if is_json { log::Format::Json } else { log::Format::Text });
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
}

#[expect(clippy::print_stdout, reason = "this is the command's answer")]
fn check(config: &Config) -> ExitCode {
    for warning in &config.warnings {
        println!("warning: {warning}");
    }
    match &config.file {
        Some(file) => println!("{}: good", file.display()),
        None => println!("defaults and environment: good"),
    }
    ExitCode::SUCCESS
}

fn finish<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the last words of a process that could not start")]
fn complain(error: &impl std::fmt::Display) {
    eprintln!("{error}");
}
