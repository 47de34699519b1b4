//! `load_balancing`: every type with what it needs, and what is refused.

use super::{SMALLEST, accept, refuse};
use crate::config::{Balancing, Generation, HashKey, UpstreamId};

fn with(balancing: &str) -> String {
    format!("{SMALLEST}load_balancing = {balancing}\n")
}

fn balancing(generation: &Generation) -> &Balancing {
    &generation.upstream(UpstreamId(0)).balancing
}

#[test]
fn every_type_is_what_it_says() {
    assert!(matches!(balancing(&accept(SMALLEST).0), Balancing::RoundRobin));
    for (word, is) in [
        ("round-robin", (|found| matches!(found, Balancing::RoundRobin)) as fn(&Balancing) -> bool),
        ("random", |found| matches!(found, Balancing::Random)),
        ("least-connections", |found| matches!(found, Balancing::LeastConnections)),
        ("power-of-two-choices", |found| matches!(found, Balancing::TwoChoices)),
        ("latency-aware", |found| matches!(found, Balancing::LatencyAware)),
        ("sticky-cid", |found| matches!(found, Balancing::StickyCid(_))),
    ] {
        let (generation, warnings) = accept(&with(&format!("{{ type = \"{word}\" }}")));
        assert!(warnings.is_empty() && is(balancing(&generation)), "{word}: {:?}", balancing(&generation));
    }
    let (generation, _) = accept(&with("{ type = \"consistent-hash\", key = \"cookie:id\" }"));
    assert!(
        matches!(balancing(&generation), Balancing::ConsistentHash(HashKey::Cookie(name), _) if &**name == "id"),
        "{:?}",
        balancing(&generation)
    );
}

#[test]
fn the_table_of_hashing_has_the_weights_and_names_of_its_backends() {
    let text = with("{ type = \"consistent-hash\", key = \"path\" }").replace(
        "backends = [ {",
        "backends = [ { id = \"heavy\", address = \"http://127.0.0.1:8081\", weight = 900 }, {",
    );
    let (generation, _) = accept(&text);
    let Balancing::ConsistentHash(_, table) = balancing(&generation) else {
        panic!("{:?}", balancing(&generation));
    };
    let heavy = (0..1_000_u64).filter(|key| table.home(key << 54 | key << 44) == Some(0)).count();
    assert!((850..950).contains(&heavy), "{heavy} of 1000 go to the one with 900 of 1000");
}

#[test]
fn what_does_not_fit_together_is_refused_with_a_way_out() {
    for (written, expected) in [
        ("{ type = \"consistent-hash\" }", "type \"consistent-hash\" needs `key`"),
        ("{ type = \"random\", key = \"path\" }", "`key` acts only with type \"consistent-hash\""),
        ("{ type = \"sticky-cid\", key = \"cid\" }", "`key` acts only with type \"consistent-hash\""),
        ("{ key = \"path\" }", "`key` acts only with type \"consistent-hash\""),
        ("{ type = \"least-conections\" }", "`type` does not know this word"),
        ("{ type = \"consistent-hash\", key = \"header:host\" }", "`key`: the host is no field here"),
        ("{ type = \"consistent-hash\", key = 7 }", "`key` takes a string, not an integer"),
    ] {
        let found = refuse(&with(written));
        assert!(found.iter().any(|(_, _, message)| message == expected), "{written}: {found:#?}");
    }
    let shown =
        crate::config::from_str("t", &with("{ type = \"least-conections\" }")).map(|_| ()).expect_err("misspelt");
    assert!(shown.to_string().contains("did you mean \"least-connections\"?"), "{shown}");
}

#[test]
fn a_weight_of_nothing_is_refused_so_that_somebody_always_has_one() {
    let found = refuse(&SMALLEST.replace("id = \"backend1\"", "id = \"backend1\", weight = 0"));
    assert!(found.iter().any(|(_, _, message)| message == "`weight` is out of range: from 1 to 1000"), "{found:#?}");
}

#[test]
fn a_table_takes_as_many_backends_as_have_a_share_worth_the_name() {
    let crowd = |kind: &str| {
        let backends: Vec<String> = (0..4097)
            .map(|at| format!("{{ id = \"b{at}\", address = \"http://10.1.{}.{}:80\" }}", at / 256, at % 256))
            .collect();
        let text = with(&format!("{{ type = \"{kind}\" }}"));
        let (before, _) = text.split_once("backends = [").expect("it has backends");
        format!("{before}backends = [{}]\nload_balancing = {{ type = \"{kind}\" }}\n", backends.join(","))
    };
    let found = refuse(&crowd("sticky-cid"));
    let expected = "upstream `default` has 4097 backends: types that hash take 4096 at most";
    assert!(found.iter().any(|(_, _, message)| message == expected), "{found:#?}");
    assert!(matches!(balancing(&accept(&crowd("power-of-two-choices")).0), Balancing::TwoChoices));
}
