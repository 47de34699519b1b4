//! A report as lines for people. What came from the other side is escaped: a server does not write on our terminal.

use super::report::{Certificate, Quic, Report};
use crate::cli::terminal::printable;
use crate::h3::client::FieldList;
use std::fmt::Write;

/// Writes the report; `again`: another one stands above it.
pub(super) fn write(report: &Report, again: bool) -> String {
    let mut out = String::new();
    if again {
        out.push('\n');
    }
    for head in &report.informational {
        line(&mut out, format_args!("HTTP/3 {} (informational)", head.status));
        fields(&mut out, &head.headers);
    }
    if let Some(status) = report.status {
        line(&mut out, format_args!("HTTP/3 {status}"));
        fields(&mut out, &report.headers);
        line(&mut out, format_args!(""));
        if let Some(body) = &report.preview {
            line(&mut out, body.trim_end_matches(['\r', '\n']));
            line(&mut out, format_args!(""));
        }
        if !report.trailers.is_empty() {
            line(&mut out, "trailers");
            fields(&mut out, &report.trailers);
            line(&mut out, format_args!(""));
        }
    }
    let method = printable(&report.method);
    line(&mut out, format_args!("request      {method} {} (body: {} bytes)", report.url, report.body_bytes));
    timings(&mut out, report);
    if let Some(quic) = &report.quic {
        self::quic(&mut out, quic);
    }
    if let (Some(address), Some(local)) = (report.address, report.local) {
        line(
            &mut out,
            format_args!("path         {local} to {address}{}", report.quic.as_ref().map_or_else(String::new, path)),
        );
    }
    if let Some(moved) = &report.migration {
        match (moved.from, moved.to) {
            (Some(from), Some(to)) => {
                let rtt = moved.rtt_ms.unwrap_or_default();
                line(&mut out, format_args!("migration    {from} to {to}: validated and in use, RTT {rtt:.1} ms"));
            }
            _ => {
                let why = printable(moved.reason.as_deref().unwrap_or_default());
                line(&mut out, format_args!("migration    not done: {why}"));
            }
        }
    }
    if let Some(quic) = &report.quic {
        line(
            &mut out,
            format_args!(
                "packets      {} sent, {} received, {} lost, {} retransmitted; {} bytes out, {} in",
                quic.packets_sent,
                quic.packets_received,
                quic.packets_lost,
                quic.packets_retransmitted,
                quic.bytes_sent,
                quic.bytes_received
            ),
        );
    }
    if let Some(certificate) = &report.certificate {
        self::certificate(&mut out, certificate);
    }
    out
}

fn timings(out: &mut String, report: &Report) {
    let times = &report.timings;
    let shown = [("DNS", times.dns_ms), ("handshake", times.handshake_ms), ("first byte", times.first_byte_ms)];
    let mut text = String::new();
    for (name, time) in shown {
        if let Some(time) = time {
            let _ = write!(text, "{name} {time:.1} ms, ");
        }
    }
    line(out, format_args!("timings      {text}total {:.1} ms", times.total_ms));
}

fn quic(out: &mut String, quic: &Quic) {
    let (Some(version), Some(alpn), Some(cipher), Some(group)) = (quic.version, &quic.alpn, quic.cipher, quic.group)
    else {
        line(out, format_args!("quic         the handshake did not end{}", if quic.retry { "; Retry" } else { "" }));
        return;
    };
    let resumed = if quic.resumed { "resumed" } else { "full handshake" };
    let ticket = if quic.ticket { "ticket given" } else { "no ticket given" };
    let retry = if quic.retry { ", after a Retry" } else { "" };
    let goaway = if quic.goaway { ", GOAWAY" } else { "" };
    let alpn = printable(alpn);
    line(
        out,
        format_args!("quic         version {version}, {alpn}, {cipher}, {group}; {resumed}{retry}, {ticket}{goaway}"),
    );
}

fn path(quic: &Quic) -> String {
    let mut text = String::new();
    if let Some(rtt) = quic.rtt_ms {
        let _ = write!(text, "; RTT {rtt:.1} ms");
        if let Some(min) = quic.rtt_min_ms {
            let _ = write!(text, " (min {min:.1})");
        }
    }
    if quic.version.is_some() {
        let (datagram, window) = (quic.datagram_bytes, quic.congestion_window_bytes);
        let _ = write!(text, "; datagrams of {datagram} bytes, window {window} bytes");
    }
    text
}

fn certificate(out: &mut String, certificate: &Certificate) {
    let names = certificate.names.join(", ");
    line(out, format_args!("certificate  {}", printable(if names.is_empty() { "no names" } else { &names })));
    let issuer = printable(&certificate.issuer);
    line(out, format_args!("             subject {}, issuer {issuer}", printable(&certificate.subject)));
    let until = match certificate.days_left {
        days if days < 0 => format!("expired {} days ago", -days),
        1 => "1 day left".to_owned(),
        days => format!("{days} days left"),
    };
    line(out, format_args!("             {} to {}, {until}", certificate.not_before, certificate.not_after));
    line(out, format_args!("             SHA-256 {}", certificate.sha256));
    let verdict = match &certificate.fault {
        Some(fault) => format!("NOT verified: {}", printable(&fault.message)),
        None if certificate.verified => "verified".to_owned(),
        None => "not judged".to_owned(),
    };
    line(out, format_args!("             {verdict}"));
}

fn fields(out: &mut String, fields: &FieldList) {
    for (name, value) in fields {
        line(out, format_args!("{}: {}", printable(name), printable(value)));
    }
}

fn line(out: &mut String, text: impl std::fmt::Display) {
    let _ = writeln!(out, "{text}");
}
