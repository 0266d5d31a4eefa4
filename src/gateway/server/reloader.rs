//! Puts another configuration in force without stopping: reads it, and hands each room its part.
//!
//! What lives (breakers, averages, leases, requests in flight, pooled connections, open tunnels) hangs on what is not replaced.
//! A request that has begun keeps the rules it began with.

use super::in_force::{Health, Identity, InForce};
use super::{Certificates, affordable};
use crate::accept::{AcceptSettings, Drain};
use crate::clock;
use crate::config::{Config, ConfigErrors, FileWatch, Revision, Source};
use crate::control::{Control, Role, paths_on_gateway};
use crate::lanes::Shared;
use crate::proxy::admit::{OwnPaths, Routing};
use crate::proxy::overload::Process;
use crate::proxy::rules::Rules;
use crate::random::random;
use crate::registrar::Handle;
use crate::reloads::{Mistake, Reloads};
use crate::telemetry::log;
use arc_swap::ArcSwap;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use vertice_core::command::Command;
use vertice_core::endpoint::{Endpoint, Guard};
use vertice_core::name::ServiceName;

/// How often a watched file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// And while it changes, until it has come to rest.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// How long services remain that the configuration no longer names: requests that began before it changed still go there.
const FAREWELL: Duration = Duration::from_secs(1);
/// Before the registrar's full queue is tried again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(10);

/// See the module.
pub(super) struct Reloader {
    /// None where the configuration did not come from a file and variables.
    pub(super) source: Option<Source>,
    pub(super) identity: Identity,
    pub(super) running: Arc<ArcSwap<Config>>,
    /// Of the files of the start, from just after they were read.
    pub(super) watch: FileWatch,
    pub(super) reloads: Arc<Reloads>,
    pub(super) shared: Arc<Shared>,
    pub(super) registrar: Handle,
    pub(super) guard: Arc<ArcSwap<Guard>>,
    pub(super) accept: Vec<(Role, Arc<ArcSwap<AcceptSettings>>)>,
    pub(super) certificates: Certificates,
    pub(super) drain: Arc<Drain>,
}

impl Reloader {
    /// Reloads whenever it is asked to, or a watched file changes.
    pub(super) async fn run(&self) {
        let mut watch = self.watch.clone();
        loop {
            let asked = tokio::select! {
                asked = self.reloads.asked() => asked,
                () = changed(&mut watch), if self.running.load().server.watch_config => {
                    tracing::info!("the configuration file has changed");
                    self.reloads.ask()
                }
            };
            // From before it is read: a change during that is another one.
            let mut looked = self.watch_anew();
            self.reload(asked).await;
            if looked.files() != self.running.load().files() {
                looked = self.watch_anew();
            }
            watch = looked;
        }
    }

    fn watch_anew(&self) -> FileWatch {
        FileWatch::new(self.running.load().files())
    }

    async fn reload(&self, asked: u64) {
        let Some(source) = self.source.clone() else {
            let message = "the configuration was made by the program and cannot be read again".to_owned();
            return self.refuse(asked, vec![Mistake { place: "configuration".to_owned(), message }]);
        };
        let running = self.running.load_full();
        // Files may be on a disk that takes its time.
        match tokio::task::spawn_blocking(move || source.load_again(running.file.as_deref())).await {
            Ok(Ok(read)) => self.accept(asked, read).await,
            Ok(Err(errors)) => self.refuse(asked, mistakes(&errors)),
            Err(error) => self.refuse(asked, vec![Mistake { place: "configuration".to_owned(), message: error.to_string() }]),
        }
    }

    fn refuse(&self, asked: u64, mistakes: Vec<Mistake>) {
        for Mistake { place, message } in &mistakes {
            tracing::error!("{place}: {message}");
        }
        tracing::error!(mistakes = mistakes.len(), "the configuration was not reloaded: the running one stays in force");
        self.count(false);
        self.reloads.refuse(asked, mistakes);
    }

    fn count(&self, is_good: bool) {
        let metrics = &self.shared.metrics;
        metrics.config_reloads.with_label_values(&[if is_good { "success" } else { "failure" }]).inc();
        metrics.config_read(is_good, clock::wall_ms());
    }

    async fn accept(&self, asked: u64, read: Config) {
        let before = self.running.load_full();
        let Revision { config, waiting } = before.revised(affordable(read));
        for warning in config.warnings.iter().filter(|warning| !before.warnings.contains(warning)) {
            tracing::warn!("{warning}");
        }
        for key in &waiting {
            tracing::warn!(key, "{key} has changed, but holds from the start to the end of the process: restart to apply it");
        }
        let (old, new) = (InForce::of(&before, &self.identity), InForce::of(&config, &self.identity));
        let is_new = old != new;
        let file = config.file.clone();
        self.running.store(Arc::new(config));
        let farewell = if is_new { self.put_in_force(old, new).await } else { None };
        self.count(true);
        self.reloads.accept(asked, is_new, file, waiting);
        tracing::info!(changed = is_new, generation = self.reloads.standing().generation, "the configuration was reloaded");
        if let Some(fallbacks) = farewell {
            tokio::time::sleep(FAREWELL).await;
            self.tell(Command::SetFallbacks(fallbacks)).await;
        }
    }

    /// Hands every room its part: first what routes may lead to, then the routes, and what they no longer lead to at the end.
    /// Returns the fallbacks that are left then, if some go.
    async fn put_in_force(&self, old: InForce, new: InForce) -> Option<BTreeMap<ServiceName, Endpoint>> {
        let InForce {
            policies,
            terms,
            fallbacks,
            guard,
            lane,
            routes,
            aliases,
            rate_limits,
            requests_max,
            accept,
            control: settings,
            access,
            names,
            health: Health { timeout, cache_ttl, cache_max },
            watchers_max,
            certificates: [gateway, registry],
            times,
            level,
            // Read where it counts, from the running configuration.
            watches_file: _,
        } = new;
        let mut both = fallbacks.clone();
        for (name, endpoint) in old.fallbacks {
            both.entry(name).or_insert(endpoint);
        }
        let goes = both.len() > fallbacks.len();

        log::set_level(level.as_str());
        self.drain.set_times(times);
        if **self.guard.load() != guard {
            self.guard.store(Arc::new(guard.clone()));
            self.tell(Command::SetGuard(guard)).await;
        }
        let commands = [Command::SetTerms(terms), Command::SetPolicies(policies), Command::SetFallbacks(both)];
        for command in commands {
            self.tell(command).await;
        }

        let aliases = Arc::new(aliases);
        let before = self.shared.control.load_full();
        before.resolver.configure(names);
        before.prober.set_timeout(timeout);
        before.board.allow(watchers_max);
        let own = OwnPaths(paths_on_gateway(settings.registry_on_gateway));
        let control = Control {
            settings,
            access,
            aliases: aliases.clone(),
            health_cache: before.health_cache.bounded(cache_ttl, cache_max),
            ..Control::clone(&before)
        };
        self.shared.control.store(Arc::new(control));
        let rules = Rules {
            settings: lane,
            routing: Routing::new(routes, aliases, own, random()),
            rates: self.shared.rates.adopt(&rate_limits, clock::mono()),
            // Those under way have places of the same count.
            process: Process { max: requests_max, ..self.shared.rules.load().process.clone() },
        };
        self.shared.rules.store(Arc::new(rules));
        let shown = [(&self.certificates.gateway, gateway), (&self.certificates.registry, registry)];
        for (certificate, identity) in shown {
            if let (Some(certificate), Some(identity)) = (certificate, identity) {
                certificate.replace(identity.certified_key());
            }
        }
        for (role, settings) in accept {
            let apps = self.accept.iter().filter(|(served, _)| *served == role);
            apps.for_each(|(_, app)| app.store(Arc::new(settings.clone())));
        }
        goes.then_some(fallbacks)
    }

    /// Has a command carried out, however long the registrar's queue is.
    async fn tell(&self, command: Command) {
        while self.registrar.ask(command.clone()).await.is_err() {
            tokio::time::sleep(QUEUE_FULL_PAUSE).await;
        }
    }
}

/// Waits until the files have changed and come to rest.
async fn changed(watch: &mut FileWatch) {
    loop {
        let pause = if watch.is_restless() { LOOK_AGAIN } else { LOOK_EVERY };
        tokio::time::sleep(pause).await;
        let mut looking = watch.clone();
        // A disk that hangs shall hang a thread that nobody else needs.
        let looked = tokio::task::spawn_blocking(move || {
            let changed = looking.look();
            (looking, changed)
        });
        let Ok((looked, changed)) = looked.await else { continue };
        *watch = looked;
        if changed {
            return;
        }
    }
}

fn mistakes(errors: &ConfigErrors) -> Vec<Mistake> {
    let place = |mistake: &crate::config::Mistake| match &mistake.key {
        Some(key) => format!("{}: {key}", mistake.origin),
        None => mistake.origin.to_string(),
    };
    errors.mistakes().iter().map(|mistake| Mistake { place: place(mistake), message: mistake.message.clone() }).collect()
}
