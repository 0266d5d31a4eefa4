//! What can be typed.

use super::colour::When;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use clap_complete::Shell;
use std::path::PathBuf;
use std::time::Duration;
use vertice_api::paths::query;
use vertice_client::RegistryUrls;
use vertice_client::span;

/// The commands that ask a running gateway.
#[derive(Debug, Subcommand)]
pub enum Call {
    /// Show how a running gateway is: build, health, services, open breakers, store.
    #[command(after_help = STATUS_HELP)]
    Status {
        /// Who is asked.
        #[command(flatten)]
        access: Access,
    },
    /// List the registered services.
    #[command(after_help = SERVICES_HELP)]
    Services {
        /// Which of them.
        #[command(flatten)]
        filter: Filter,
        /// Who is asked.
        #[command(flatten)]
        access: Access,
    },
    /// List the instances of one service, or of all.
    #[command(after_help = INSTANCES_HELP)]
    Instances {
        /// Only this service.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        service: Option<String>,
        /// Who is asked.
        #[command(flatten)]
        access: Access,
    },
    /// Show changes of one service, or of all, as they happen.
    #[command(after_help = WATCH_HELP)]
    Watch {
        /// Only this service.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        service: Option<String>,
        /// Who is asked.
        #[command(flatten)]
        access: Access,
    },
    /// Give a service, or one instance of it, no new requests for a while.
    #[command(after_help = DRAIN_HELP)]
    Drain {
        /// The service.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        service: String,
        /// Only this instance.
        #[arg(long, value_name = "ID", value_parser = NonEmptyStringValueParser::new())]
        instance: Option<String>,
        /// How long: 1s to 24h.
        #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = drain_time)]
        span: Duration,
        /// End a drain that is under way.
        #[arg(long, conflicts_with = "span")]
        undo: bool,
        /// Who is asked.
        #[command(flatten)]
        access: Access,
    },
    /// Have the gateway read its configuration again.
    #[command(after_help = RELOAD_HELP)]
    Reload {
        /// Who is asked.
        #[command(flatten)]
        access: Access,
    },
    /// Print the script with which a shell completes these commands.
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Which gateway is asked, and how its answer is shown.
#[derive(Debug, Args)]
pub struct Access {
    /// Registries, separated by commas: the next one is asked when one does not answer. Only http, no TLS. Without it
    /// VERTICE_REGISTRY_URL counts, else http://127.0.0.1:8888.
    #[arg(long, value_name = "URL", value_parser = RegistryUrls::parse)]
    pub(super) url: Option<RegistryUrls>,
    /// A file that holds the registry token. Without it VERTICE_REGISTRY_TOKEN or REGISTRY_AUTH_TOKEN counts.
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// How long one registry may take to answer.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = timeout)]
    pub(super) timeout: Duration,
    /// Print the registry's own JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// Whether to use colour. NO_COLOR in the environment turns `auto` off.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(super) color: When,
}

/// Which services are wanted: those with an instance that has all of these, and of them those instances.
#[derive(Debug, Args)]
pub struct Filter {
    /// Only instances with this tag.
    #[arg(long)]
    tag: Option<String>,
    /// Only instances in this zone.
    #[arg(long)]
    zone: Option<String>,
    /// Only instances of this version.
    #[arg(long)]
    version: Option<String>,
    /// Only instances of this status: starting, healthy, degraded, unhealthy or draining.
    #[arg(long)]
    status: Option<String>,
}

impl Filter {
    /// The filters as query parameters.
    pub(super) fn parameters(&self) -> Vec<(&'static str, &str)> {
        let all = [
            (query::TAG, &self.tag),
            (query::ZONE, &self.zone),
            (query::VERSION, &self.version),
            (query::STATUS, &self.status),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }
}

fn timeout(text: &str) -> Result<Duration, String> {
    let span = span::parse(text).map_err(|error| error.to_string())?;
    if span.is_zero() { Err("must be longer than nothing".to_owned()) } else { Ok(span) }
}

fn drain_time(text: &str) -> Result<Duration, String> {
    let span = span::parse(text).map_err(|error| error.to_string())?;
    if span < Duration::from_secs(1) { Err("must be at least 1s; --undo ends a drain".to_owned()) } else { Ok(span) }
}

macro_rules! help {
    ($examples:literal, $codes:literal) => {
        concat!(
            "Examples:\n",
            $examples,
            "\n\nExit codes: ",
            $codes,
            " 2 wrong arguments; 78 a bad token file or environment variable."
        )
    };
}

const STATUS_HELP: &str = help!(
    "  vertice-gateway status\n  vertice-gateway status --url http://10.0.0.1:8888,http://10.0.0.2:8888\n  \
     vertice-gateway status --json | jq -r .health.status",
    "0 it serves, healthy or degraded; 1 it drains, cannot serve, or does not answer;"
);

const SERVICES_HELP: &str = help!(
    "  vertice-gateway services --zone eu-1 --status healthy\n  vertice-gateway services --json | jq -r '.[].service_name'",
    "0 shown, even when there are none; 1 no registry answered, or it refused;"
);

const INSTANCES_HELP: &str = help!(
    "  vertice-gateway instances\n  vertice-gateway instances osint_service --json | jq '.instances | length'",
    "0 shown; 1 no registry answered, or there is no such service;"
);

const WATCH_HELP: &str = help!(
    "  vertice-gateway watch\n  vertice-gateway watch osint_service --json | while read -r change; do …; done\n\n\
     One line per change; with --json one JSON object per line: the service, or {\"service_name\":…,\"deleted\":true}.\n\
     A broken connection is made again, and what happened meanwhile is shown. Ctrl-C ends it by the signal (130 in a shell).",
    "0 the reader of its output has gone; 1 no registry answered at first, or it refused;"
);

const DRAIN_HELP: &str = help!(
    "  vertice-gateway drain osint_service --instance 10.0.0.7:8049 --for 2m\n  vertice-gateway drain osint_service --undo\n\n\
     An instance that registers again takes requests again.",
    "0 done; 1 no registry answered, or there is no such service or instance;"
);

const RELOAD_HELP: &str = help!(
    "  vertice-gateway reload\n\n\
     A configuration with mistakes changes nothing. What waits for a restart is named.",
    "0 done; 1 no registry answered, or the configuration has mistakes;"
);

const COMPLETIONS_HELP: &str = "Examples:\n  vertice-gateway completions bash > /etc/bash_completion.d/vertice-gateway\n  \
     vertice-gateway completions zsh > \"${fpath[1]}/_vertice-gateway\"\n  \
     vertice-gateway completions fish > ~/.config/fish/completions/vertice-gateway.fish";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Whole {
        #[command(subcommand)]
        call: Call,
    }

    fn parse(line: &str) -> Result<Call, String> {
        let parsed = Whole::try_parse_from(std::iter::once("x").chain(line.split(' ')));
        parsed.map(|whole| whole.call).map_err(|error| error.to_string())
    }

    #[test]
    fn filters_become_parameters() {
        let Ok(Call::Services { filter, .. }) = parse("services --version 1.2 --tag a") else { panic!("not services") };
        assert_eq!(filter.parameters(), [("tag", "a"), ("version", "1.2")]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for (line, says) in [
            ("status --url ftp://a", "\"ftp://a\""),
            ("status --url https://a", "no TLS"),
            ("status --timeout 0", "longer than nothing"),
            ("status --color sometimes", "[possible values: auto, always, never]"),
            ("drain a --for 0", "--undo"),
            ("drain a --for 25h", "at most 24h"),
            ("drain a --for 5s --undo", "cannot be used with"),
            ("completions tcsh", "[possible values: bash, elvish, fish, powershell, zsh]"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(says), "{line}: {error}");
        }
    }

    #[test]
    fn a_drain_takes_30_s_unless_told_otherwise() {
        for (line, seconds) in [("drain a", 30), ("drain a --for 2m", 120)] {
            let Ok(Call::Drain { span, .. }) = parse(line) else { panic!("not drain") };
            assert_eq!(span, Duration::from_secs(seconds));
        }
    }
}
