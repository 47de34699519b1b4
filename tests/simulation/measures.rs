//! What is counted of a connection agrees with what its network did.

use crate::bodies::as_asked;
use crate::client::Request;
use crate::scene::{Scene, configuration};
use crate::seeds::seeds;
use spooky::telemetry::cells::Counter;
use spooky::telemetry::kinds::{HandshakeFailure, QueueFull};
use spooky::telemetry::latency::{Latency, Merged};
use spooky::worker::Command;
use spooky_uring::Io;
use spooky_uring::simulation::{Link, Plan};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Number of samples and their sum.
fn read(latency: &Latency) -> (u64, Duration) {
    let mut merged = Merged::default();
    latency.merge_into(&mut merged);
    (merged.count(), Duration::from_micros(merged.sum_us()))
}

#[test]
fn losses_and_round_trips_are_those_of_the_path() {
    seeds(4, |seed| {
        let delay = Duration::from_millis(10);
        let link = Link { delay, ..Link::faulty(0.03, 0.0, 0.0) };
        let (mut scene, client, _) = Scene::simple(seed, Plan::calm(), link, &configuration(1, ""), as_asked);
        scene.ask(&client, Request::get("/length/3000000"));
        scene.finish(60 * SECOND);
        scene.close();
        let quic = &scene.cells.quic;
        let get = |counter: &Counter| counter.get();
        let (sent, lost) = (get(&quic.packets_sent), get(&quic.packets_lost));
        assert!(lost * 100 > sent && lost * 10 < sent, "{lost} of {sent} packets at 3 %");
        assert!(get(&quic.packets_received) > 0);
        let again = get(&quic.packets_retransmitted);
        assert!(again * 2 > lost && again < 4 * lost, "{again} packets again for {lost}");
        assert!(get(&quic.bytes_lost) > lost * 500 && get(&quic.bytes_retransmitted) > again * 500);
        assert!(get(&quic.packets_spurious) < lost);
        let (connections, least) = read(&quic.round_trip_min);
        assert_eq!(connections, 1);
        assert!(least >= 2 * delay && least < 4 * delay, "{least:?}");
        let (connections, smoothed) = read(&quic.round_trip);
        assert!(connections == 1 && smoothed >= least, "{smoothed:?} and at least {least:?}");
        let (handshakes, took) = read(&quic.handshake_duration);
        assert!(handshakes == 1 && took >= 2 * delay, "{took:?}");
        assert_eq!(quic.congestion_window.read().count(), 1);
        assert!(quic.congestion_window.sum() >= 2 * 1200);
        assert_eq!(HandshakeFailure::ALL.iter().map(|kind| quic.handshake_failures.get(*kind)).sum::<u64>(), 0);
    });
}

#[test]
fn the_packet_size_is_what_the_path_carries() {
    for (carries, found) in [(1500, 1400..=1452), (1300, 1200..=1300)] {
        seeds(1, |seed| {
            let link = Link { payload_max: carries, ..Link::clean() };
            let (mut scene, client, _) = Scene::simple(seed, Plan::calm(), link, &configuration(1, ""), as_asked);
            for _ in 0..4 {
                scene.ask(&client, Request::get("/length/1000000"));
            }
            scene.finish(60 * SECOND);
            scene.close();
            let size = scene.cells.quic.packet_size.sum();
            assert!(found.contains(&size), "{size} where {carries} pass");
        });
    }
}

#[test]
fn a_client_that_hears_nothing_is_a_handshake_that_took_too_long() {
    seeds(2, |seed| {
        let mut scene = Scene::new(seed, Plan::calm(), &configuration(1, ""));
        let deaf = Link { loss: 1.0, ..Link::clean() };
        let client = scene.client(deaf, Link::clean());
        scene.ask(&client, Request::get("/"));
        scene.run_until("the end of its patience", 60 * SECOND, |scene| {
            scene.cells.quic.handshake_failures.get(HandshakeFailure::Timeout) == 1
        });
        let quic = &scene.cells.quic;
        assert_eq!(read(&quic.handshake_duration).0, 0);
        assert_eq!(quic.packet_size.read().count(), 0, "it never had a path");
        assert!(quic.probe_timeouts.get() > 0 && quic.packets_sent.get() > 0);
    });
}

const TRACES: &str = "[observability.qlog]\ndir = \"/nowhere\"\nmax_files = 1\n";

#[test]
fn a_trace_that_is_read_in_time_is_whole_and_only_so_many_begin() {
    seeds(2, |seed| {
        let text = configuration(1, TRACES);
        let (mut scene, client, _) = Scene::simple(seed, Plan::calm(), Link::clean(), &text, as_asked);
        let second = scene.client(Link::clean(), Link::clean());
        scene.ask(&client, Request::get("/length/300000"));
        let mut text = Vec::new();
        let mut last = false;
        let mut read = |scene: &Scene| {
            let traces = scene.traces.as_ref().expect("traces");
            while let Some(piece) = traces.receive() {
                assert!(!last, "nothing comes behind the end");
                last = piece.last;
                text.extend_from_slice(&piece.bytes);
            }
            client.get().is_done() && second.get().is_done()
        };
        scene.run_until("the first response", 10 * SECOND, &mut read);
        scene.ask(&second, Request::get("/length/300000"));
        scene.run_until("the second response", 10 * SECOND, &mut read);
        scene.commands.send(Command::Drain { until: scene.host.now() + SECOND }).unwrap();
        scene.run_until("the worker's end", 10 * SECOND, |scene| read(scene) && scene.done);
        read(&scene);
        assert!(last, "the end of the worker ends the trace");
        let text = String::from_utf8(text).unwrap();
        let records: Vec<serde_json::Value> =
            text.split('\u{1e}').skip(1).map(|record| serde_json::from_str(record).unwrap()).collect();
        let sent = records.iter().filter(|record| record["name"] == "quic:packet_sent").count();
        assert!(sent > 200, "{sent} packets of 300000 bytes");
        assert!(records.iter().all(|record| record["name"] != "loglevel:warning"));
        assert_eq!(records.iter().filter(|record| record["trace"].is_object()).count(), 1, "one trace");
        assert_eq!(scene.cells.qlog_dropped_bytes.get(), 0);
    });
}

#[test]
fn a_trace_that_nobody_reads_is_cut_and_hinders_nobody() {
    seeds(2, |seed| {
        let text = configuration(1, TRACES);
        let (mut scene, client, _) = Scene::simple(seed, Plan::calm(), Link::clean(), &text, as_asked);
        for _ in 0..3 {
            scene.ask(&client, Request::get("/length/1000000"));
        }
        scene.finish(60 * SECOND);
        scene.close();
        assert!(scene.cells.qlog_dropped_bytes.get() > 0);
        assert!(scene.cells.full.get(QueueFull::Qlog) > 0);
        let traces = scene.traces.as_ref().expect("traces");
        let pieces: Vec<_> = std::iter::from_fn(|| traces.receive()).collect();
        assert_eq!(pieces.len(), 2, "the mailbox held two");
        assert!(pieces.iter().all(|piece| piece.bytes.first() == Some(&0x1e) && !piece.last));
    });
}
