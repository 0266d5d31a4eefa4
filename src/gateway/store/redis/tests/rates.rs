//! Rate limits that replicas count together, over a real Redis.

use super::server::Server;
use crate::clock;
use crate::rates::{Rate, Rates};
use crate::store::redis::rates::exchange;
use std::sync::Arc;
use std::time::Duration;
use vertice_core::limiter::{By, Quota, RateLimit, Verdict};
use vertice_core::time::Moment;

/// A quota of 8 that nobody gets back while a test runs.
fn rate(server: &Server) -> Arc<Rate> {
    let limit = RateLimit {
        name: "shared".into(),
        quota: Quota::new(1, Duration::from_secs(3600), 8).unwrap(),
        by: By::Service,
        services: Vec::new(),
        routes: Vec::new(),
        is_shared: true,
        keys_max: 100,
    };
    Rates::new(server.metrics.clone()).adopt(&[limit], clock::mono()).remove(0)
}

fn admitted(server: &Server, rate: &Rate, most: usize) -> usize {
    let now = crate::clock::mono();
    (0..most).take_while(|_| matches!(rate.admit(b"svc", now, &server.metrics), Verdict::Admitted(_))).count()
}

#[test]
fn what_one_let_through_the_other_owes_too() {
    let server = Server::start();
    let (a, b) = (rate(&server), rate(&server));
    let [mut at_a, mut at_b] = [1, 2].map(|number| server.shelf(number));
    assert_eq!((admitted(&server, &a, 5), admitted(&server, &b, 1)), (5, 1));
    exchange(&mut at_a, &a).unwrap();
    exchange(&mut at_b, &b).unwrap();
    assert_eq!(admitted(&server, &b, 100), 2, "eight, less five there and one here");
    assert_eq!(admitted(&server, &a, 100), 3, "it has not heard of the others yet");
    exchange(&mut at_b, &b).unwrap();
    exchange(&mut at_a, &a).unwrap();
    let owed = server.run::<String>(&["GET", "vx:rate:shared:svc"]).parse::<u64>().unwrap();
    assert!(owed > 0);
    let left = server.run::<i64>(&["PTTL", "vx:rate:shared:svc"]);
    let hours = Duration::from_millis(left.unsigned_abs()).as_secs_f64() / 3600.0;
    assert!((10.9..=11.0).contains(&hours), "eleven were let through, and are owed: {hours}");
}

#[test]
fn what_is_not_ours_is_left_alone_and_what_cannot_be_told_is_told_later() {
    let mut server = Server::start();
    let rate = rate(&server);
    let mut shelf = server.shelf(1);
    server.run::<i64>(&["SADD", "vx:rate:shared:svc", "theirs"]);
    assert_eq!(admitted(&server, &rate, 3), 3);
    exchange(&mut shelf, &rate).unwrap();
    assert_eq!(server.run::<i64>(&["SCARD", "vx:rate:shared:svc"]), 1);
    assert_eq!(admitted(&server, &rate, 2), 2, "it counts alone");
    server.kill();
    exchange(&mut shelf, &rate).unwrap_err();
    server.restart();
    let mut shelf = server.shelf(1);
    exchange(&mut shelf, &rate).unwrap();
    let left = server.run::<i64>(&["PTTL", "vx:rate:shared:svc"]);
    assert!((7_000_000..=7_200_000).contains(&left), "two of an hour each: {left}");
    assert!(rate.take_news(10, Moment::ZERO).is_empty());
}
