use super::*;
use crate::http::testing::Random;

fn section(fields: &[(&str, &str)]) -> Fields {
    let mut section = Fields::new();
    for (name, value) in fields {
        assert!(section.push(name.as_bytes(), value.as_bytes()));
    }
    section
}

fn listed(fields: &Fields) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    fields.iter().map(|(name, value)| (text(name.name), text(value))).collect()
}

#[test]
fn names_are_lowered_and_known_ones_recognised() {
    let fields = section(&[("Via", "1.1 a"), ("X-Own", "V"), ("via", "1.1 b")]);
    let names: Vec<_> = fields.iter().map(|(name, _)| name.known).collect();
    assert_eq!(names, [Some(Known::Via), None, Some(Known::Via)]);
    assert_eq!(fields.find(b"x-OWN"), Some(&b"V"[..]));
    assert_eq!(fields.find(b"VIA"), Some(&b"1.1 a"[..]));
    assert_eq!(fields.find(b"x-ow"), None);
    assert_eq!(fields.get_all(Known::Via).rev().collect::<Vec<_>>(), [b"1.1 b", b"1.1 a"]);
    assert_eq!(listed(&fields)[1], ("x-own".into(), "V".into()));
}

#[test]
fn size_is_counted_as_http3_does() {
    let mut fields = section(&[("via", "ab"), ("x-own", "")]);
    assert_eq!(fields.bytes(), (3 + 2 + 32) + (5 + 32));
    assert_eq!(fields.remove(Known::Via), 1);
    assert_eq!(fields.bytes(), 37);
    fields.clear();
    assert_eq!((fields.bytes(), fields.len()), (0, 0));
}

#[test]
fn set_takes_the_place_of_the_first() {
    let mut fields = section(&[("a", "1"), ("via", "x"), ("b", "2"), ("via", "y")]);
    assert!(fields.set(Known::Via, b"z"));
    assert_eq!(fields, section(&[("a", "1"), ("via", "z"), ("b", "2")]));
    assert!(fields.set(Known::Te, b"trailers"));
    assert_eq!(fields.len(), 4);
}

#[test]
fn join_keeps_order_and_place() {
    let mut fields = section(&[("cookie", "a=1"), ("x", "y"), ("cookie", ""), ("cookie", "b=2")]);
    assert!(fields.join(Known::Cookie, b"; "));
    assert_eq!(fields, section(&[("cookie", "a=1; b=2"), ("x", "y")]));
    let once = fields.clone();
    assert!(fields.join(Known::Cookie, b"; ") && fields.join(Known::Via, b", "));
    assert_eq!(fields, once);
}

#[test]
fn empty_values_leave_no_separator_behind() {
    let mut fields = section(&[("cookie", ""), ("cookie", "b=2"), ("cookie", "")]);
    assert!(fields.join(Known::Cookie, b"; "));
    assert_eq!(fields, section(&[("cookie", "b=2")]));
}

#[test]
fn connection_takes_what_it_names_with_it() {
    let mut fields = section(&[
        ("x-first", "1"),
        ("connection", "X-First, close, via"),
        ("via", "1.1 a"),
        ("x-last", "1"),
        ("x-kept", "1"),
        ("connection", "x-last,connection, te"),
        ("te", "trailers"),
    ]);
    fields.remove_named_by_connection();
    assert_eq!(fields, section(&[("x-kept", "1"), ("te", "trailers")]));
    assert_eq!(fields.bytes(), 6 + 1 + 32 + 2 + 8 + 32);
}

#[test]
fn a_full_section_takes_nothing_and_stays_whole() {
    let mut fields = section(&[("via", "a")]);
    let big = vec![b'x'; BYTES_MAX - 10];
    assert!(fields.push_known(Known::Cookie, &big));
    let before = (fields.len(), fields.bytes());
    assert!(!fields.push(b"x-more", &[b'y'; 100]));
    assert!(!fields.push_known(Known::Via, &[b'y'; 100]));
    assert!(!fields.push_parts(Known::Via, &[&[b'y'; 60], &[b'y'; 60]]));
    assert!(!fields.set(Known::Via, &[b'y'; 100]));
    assert!(fields.push_known(Known::Cookie, b"c"));
    assert!(!fields.join(Known::Cookie, b"; "));
    assert_eq!(fields.get(Known::Via), Some(&b"a"[..]));
    assert_eq!(before.0 + 1, fields.len());
    assert!(fields.bytes() > before.1);
}

#[test]
fn a_name_that_is_too_long_or_empty_is_not_taken() {
    let mut fields = Fields::new();
    assert!(!fields.push(&[b'a'; 65_536], b""));
    assert!(!fields.push(b"", b"value"));
    assert!(fields.push(&[b'a'; 65_535], b""));
    assert_eq!(fields.len(), 1);
}

#[test]
fn a_cleared_section_allocates_nothing() {
    let mut fields = Fields::with_capacity(8, 256);
    let held = fields.capacity();
    for _ in 0..100 {
        fields.clear();
        for _ in 0..8 {
            fields.push(b"x-own", b"0123456789");
        }
    }
    assert_eq!(fields.capacity(), held);
}

#[test]
fn every_operation_agrees_with_a_list_of_pairs() {
    const NAMES: &[&str] = &["via", "cookie", "te", "x-a", "x-b", "connection", "host"];
    for seed in 1..400 {
        let mut random = Random::new(seed);
        let mut fields = Fields::new();
        let mut model: Vec<(String, String)> = Vec::new();
        for _ in 0..30 {
            let name = *random.pick(NAMES);
            let value = (*random.pick(&["", "1", "x-a, x-b", "close", "via,x-a", "long value"])).to_owned();
            match random.below(8) {
                0..=3 => {
                    assert!(fields.push(name.as_bytes(), value.as_bytes()));
                    model.push((name.into(), value));
                }
                4 => {
                    assert!(fields.set(Known::Via, value.as_bytes()));
                    match model.iter().position(|(name, _)| name == "via") {
                        Some(first) => {
                            model[first].1 = value;
                            let mut at = 0;
                            model.retain(|(name, _)| {
                                at += 1;
                                name != "via" || at - 1 == first
                            });
                        }
                        None => model.push(("via".into(), value)),
                    }
                }
                5 => {
                    fields.remove(Known::Cookie);
                    model.retain(|(name, _)| name != "cookie");
                }
                6 => {
                    assert!(fields.join(Known::Host, b"+"));
                    let all: Vec<_> = model
                        .iter()
                        .filter(|(name, value)| name == "host" && !value.is_empty())
                        .map(|(_, value)| value.clone())
                        .collect();
                    if let Some(first) = model.iter().position(|(name, _)| name == "host") {
                        model[first].1 = all.join("+");
                        let mut at = 0;
                        model.retain(|(name, _)| {
                            at += 1;
                            name != "host" || at - 1 == first
                        });
                    }
                }
                _ => {
                    fields.remove_named_by_connection();
                    let options: Vec<String> = model
                        .iter()
                        .filter(|(name, _)| name == "connection")
                        .flat_map(|(_, value)| value.split(','))
                        .map(|option| option.trim().to_owned())
                        .collect();
                    model.retain(|(name, _)| name != "connection" && !options.contains(name));
                }
            }
            assert_eq!(listed(&fields), model, "seed {seed}");
            let size: usize = model.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
            assert_eq!(fields.bytes(), size, "seed {seed}");
        }
    }
}
