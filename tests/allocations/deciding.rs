//! Deciding where a request goes, at 10 000 services.

use super::{on_this_thread, world};
use std::sync::Arc;
use vertice_core::balance::{Preference, Tried, pick};
use vertice_core::command::{Command, Policies};
use vertice_core::outcome::Ending;
use vertice_core::policy::{Algorithm, Balance, Policy};
use vertice_core::time::Moment;
use vertice_gateway::proxy::attempt::Attempt;

/// Any moment will do.
const NOW: Moment = Moment::from_millis(1);

const SERVICES: usize = 10_000;
const INSTANCES: usize = 3;
const REQUESTS: usize = 20_000;

#[test]
fn looking_a_service_up_and_picking_an_instance_does_not_allocate() {
    for algorithm in Algorithm::ALL {
        let (mut registrar, table, _handle) = world::registrar(0, 0, &Arc::default(), &world::metrics());
        let policy = Arc::new(Policy { balance: Balance { algorithm, ..Balance::default() }, ..Policy::default() });
        let policies = Command::SetPolicies(Policies { default: policy, ..Policies::default() });
        let registrations = (0..SERVICES * INSTANCES).map(|at| world::register(at / INSTANCES, at % INSTANCES));
        registrar.restore(std::iter::once(policies).chain(registrations));
        let names = world::shuffled_names(SERVICES);
        let mut picked = 0;
        let decide = |at: usize| {
            let table = table.load();
            let preference = Preference { key: Some(at as u64), token: 0 };
            let service = table.get(&names[at % names.len()]).expect("it is registered");
            picked += usize::from(pick(service, &Tried::default(), &preference, NOW, at as u64).is_ok());
        };
        // The first of a thread finds a place for its debts to the table.
        let mut decide = decide;
        decide(0);
        let allocated = on_this_thread(|| (1..REQUESTS).for_each(decide));
        assert_eq!((allocated, picked), (0, REQUESTS), "{algorithm:?}");
    }
}

#[test]
fn an_attempt_from_start_to_end_does_not_allocate() {
    let (_registrar, table, _handle) = world::registrar(SERVICES, INSTANCES, &Arc::default(), &world::metrics());
    let names = world::shuffled_names(SERVICES);
    let attempt = |at: usize| {
        let service = table.load().get(&names[at % names.len()]).cloned().expect("it is registered");
        let attempt = Attempt::start(&service, &mut Tried::default(), &Preference::default(), NOW);
        let mut attempt = attempt.expect("all instances are healthy");
        attempt.answered(NOW);
        attempt.end(Ending::Answered { status: 200 }, NOW);
    };
    attempt(0);
    assert_eq!(on_this_thread(|| (1..REQUESTS).for_each(attempt)), 0);
}
