use super::*;
use crate::http::Target;

fn answer(reason: Reason, form: BodyForm) -> (ResponseHead, String) {
    let answer = Answer {
        reason,
        request_id: b"abc-1",
        form,
        allow: None,
        retry_after: None,
        proxy_status: ProxyStatus::Error,
        date: &date::format(0),
    };
    let mut head = ResponseHead::new(200);
    head.fields.push(b"x-old", b"v");
    let mut body = b"old".to_vec();
    answer.write(&mut head, &mut body);
    (head, String::from_utf8(body).unwrap())
}

#[test]
fn a_plain_body_names_status_and_request() {
    let (head, body) = answer(Reason::ConnectRefused, BodyForm::Plain);
    assert_eq!(body, "502 Bad Gateway\nrequest abc-1\n");
    assert_eq!(head.status, 502);
    assert_eq!(head.content_length, Some(body.len() as u64));
    assert_eq!(head.fields.find(b"x-old"), None);
    assert_eq!(head.fields.get(Known::ProxyStatus), Some(&b"spooky; error=connection_refused"[..]));
    assert_eq!(head.fields.get(Known::CacheControl), Some(&b"no-store"[..]));
    assert_eq!(head.fields.get(Known::RetryAfter), None);
    assert_eq!(head.fields.get(Known::Allow), None);
}

#[test]
fn a_json_body_is_json_for_every_reason() {
    for &reason in Reason::ALL {
        let (_, body) = answer(reason, BodyForm::Json);
        let value: serde_json::Value = serde_json::from_str(&body).expect(&body);
        assert_eq!(value["status"], reason.status());
        assert_eq!(value["request_id"], "abc-1");
        assert!(body.len() < 128);
    }
}

#[test]
fn an_id_that_needs_escaping_is_left_out() {
    let mut head = ResponseHead::default();
    let mut body = Vec::new();
    Answer {
        reason: Reason::NoRoute,
        request_id: b"\"<script>",
        form: BodyForm::Json,
        allow: None,
        retry_after: None,
        proxy_status: ProxyStatus::Off,
        date: &date::format(0),
    }
    .write(&mut head, &mut body);
    assert!(body.ends_with(b"\"request_id\":\"-\"}\n"));
    assert!(!head.fields.contains(Known::ProxyStatus));
}

#[test]
fn what_a_status_must_carry_is_there() {
    for &reason in Reason::ALL {
        let (head, _) = answer(reason, BodyForm::Plain);
        assert_eq!(head.fields.contains(Known::Allow), head.status == 405, "{reason:?}");
        let retry = head.fields.contains(Known::RetryAfter);
        assert_eq!(retry, matches!(head.status, 429 | 503), "{reason:?}");
        assert!(head.fields.contains(Known::Date));
        // 499 is for the log only.
        assert!(!phrase(head.status).is_empty() || head.status == 499, "{reason:?}");
    }
}

#[test]
fn the_callers_values_are_taken() {
    let mut head = ResponseHead::default();
    let mut body = Vec::new();
    let mut answer = Answer {
        reason: Reason::MethodNotAllowed,
        request_id: b"a",
        form: BodyForm::Plain,
        allow: Some(b"GET, HEAD"),
        retry_after: Some(30),
        proxy_status: ProxyStatus::Full,
        date: &date::format(0),
    };
    answer.write(&mut head, &mut body);
    assert_eq!(head.fields.get(Known::Allow), Some(&b"GET, HEAD"[..]));
    answer.reason = Reason::LimitGlobal;
    answer.write(&mut head, &mut body);
    assert_eq!(head.fields.get(Known::RetryAfter), Some(&b"30"[..]));
    assert_eq!(
        head.fields.get(Known::ProxyStatus),
        Some(&b"spooky; error=connection_limit_reached; details=\"limit_global\""[..])
    );
}

#[test]
fn json_is_given_to_who_names_it() {
    for (accept, form) in [
        ("", BodyForm::Plain),
        ("*/*", BodyForm::Plain),
        ("application/json", BodyForm::Json),
        ("Application/JSON;charset=utf-8", BodyForm::Json),
        ("text/html, application/json;q=0.9", BodyForm::Plain),
        ("text/plain;q=0.5, application/json", BodyForm::Json),
        ("application/json, text/plain", BodyForm::Json),
        ("application/json;q=0", BodyForm::Plain),
        ("application/json;q=0.000, */*", BodyForm::Plain),
        ("application/json;q=2", BodyForm::Json),
        ("application/problem+json", BodyForm::Problem),
        ("application/problem+json, application/json", BodyForm::Problem),
        ("application/problem+json;q=0.1, application/json", BodyForm::Json),
        ("text/html;x=\"a,application/json\"", BodyForm::Plain),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", BodyForm::Plain),
        (",;,q=,;;", BodyForm::Plain),
    ] {
        let mut fields = Fields::new();
        fields.push(b"accept", accept.as_bytes());
        assert_eq!(BodyForm::asked_by(&fields), form, "{accept}");
    }
    assert_eq!(BodyForm::asked_by(&Fields::new()), BodyForm::Plain);
}

#[test]
fn weights_are_thousandths() {
    for (text, thousandths) in [
        ("q=1", Some(1000)),
        ("q=1.000", Some(1000)),
        ("Q=0.5", Some(500)),
        ("q=0.05", Some(50)),
        ("q=0.123", Some(123)),
        ("q=0.", Some(0)),
        ("q=1.001", None),
        ("q=0.1234", None),
        ("q=-1", None),
        ("q=", None),
        ("x=1", None),
    ] {
        assert_eq!(weight(text.as_bytes()), thousandths, "{text}");
    }
}

#[test]
fn options_answered_here_has_no_body() {
    let mut head = ResponseHead::new(500);
    options(ALLOW_DEFAULT, &date::format(0), &mut head);
    assert_eq!((head.status, head.content_length), (204, None));
    assert_eq!(head.fields.get(Known::Allow), Some(ALLOW_DEFAULT));
    assert!(!sends_body(&Method::Head) && sends_body(&Method::Get));
}

fn redirect(base: &str, behind: Option<&str>) -> Redirect {
    let behind = behind.map(Into::into);
    Redirect { status: 308, base: base.into(), query: None, fragment: None, behind, keep_query: false }
}

fn location(redirect: &Redirect, target: &str) -> String {
    let path = PathPair::parse(target.as_bytes()).expect("a path");
    let request = RequestHead { target: Target::Path(path), ..RequestHead::default() };
    let mut head = ResponseHead::default();
    redirect.write(&request, &date::format(0), &mut head);
    assert_eq!((head.status, head.content_length, head.fields.len()), (redirect.status, Some(0), 2));
    String::from_utf8_lossy(head.fields.get(Known::Location).expect("a location")).into_owned()
}

#[test]
fn a_redirect_keeps_what_it_is_told_to_keep() {
    let host = "https://b.example";
    for (redirect, target, expected) in [
        (redirect("/new", None), "/old/x?a", "/new"),
        (redirect("/new", Some("/old")), "/old/x?a", "/new/x"),
        (redirect("/new", Some("/old")), "/old", "/new"),
        (redirect(host, Some("/")), "/old/x", "https://b.example/old/x"),
        (redirect(host, None), "/old/x", "https://b.example"),
        // What a client asks for never becomes a host.
        (redirect("/", Some("/")), "//evil.example/x", "/evil.example/x"),
        (redirect("/", Some("/a")), "/a//evil.example/x", "/evil.example/x"),
        (Redirect { keep_query: true, ..redirect("/new", None) }, "/old?a=%2F&b", "/new?a=%2F&b"),
        (Redirect { keep_query: true, ..redirect("/new", None) }, "/old", "/new"),
        (Redirect { keep_query: true, query: Some("c".into()), ..redirect("/new", None) }, "/old?a", "/new?c&a"),
        (Redirect { query: Some("c".into()), ..redirect("/new", None) }, "/old?a", "/new?c"),
        (Redirect { fragment: Some("f".into()), keep_query: true, ..redirect("/n", Some("/")) }, "/x?a", "/n/x?a#f"),
    ] {
        assert_eq!(location(&redirect, target), expected, "{redirect:?} {target}");
    }
}

#[test]
fn a_fixed_response_has_a_length_where_its_status_allows_one() {
    for (status, body, length, kind) in
        [(200, "x", Some(1), true), (404, "", Some(0), false), (204, "", None, false), (304, "", None, false)]
    {
        let response = FixedResponse { status, body: body.as_bytes().into(), content_type: "text/html".into() };
        let mut head = ResponseHead::default();
        response.write(&date::format(0), &mut head);
        assert_eq!((head.status, head.content_length), (status, length));
        assert_eq!(head.fields.get(Known::ContentType).is_some(), kind, "{status}");
        assert!(head.fields.contains(Known::Date));
    }
}
