//! Public listeners.

use std::net::SocketAddr;

use super::{Compiler, admission, files};
use crate::config::diagnostic::Diagnostic;
use crate::config::generation::{
    AltSvc, Cleartext, ClientAuthSource, Listener, ListenerTls, MinVersion, NamedCertificate, Protocols, Quic,
    Security, TlsSource,
};
use crate::config::keys;
use crate::config::schema::Located;
use crate::config::source::Place;
use crate::identity::ServerName;
use crate::limits::quic::KEEP_ALIVE_PART;
use rustc_hash::FxHashMap;

/// Compiles `[listen]` or `[[listeners]]`.
pub(super) fn compile(compiler: &mut Compiler<'_>) -> Vec<Listener> {
    let root = compiler.root;
    let written: Vec<&Located<keys::Listener>> = root.listen.iter().chain(&root.listeners.value).collect();
    if let (Some(one), true) = (&root.listen, root.listeners.is_written()) {
        let place = root.listeners.value.first().map_or(root.listeners.place, |listener| listener.place);
        compiler.report(
            Diagnostic::error("both [listen] and [[listeners]] are written")
                .at(place, "")
                .at(one.place, "and here")
                .help("write them all as [[listeners]]"),
        );
    } else if written.is_empty() && !root.listeners.is_written() {
        compiler.report_missing(
            Diagnostic::error("there is no [listen]")
                .at(compiler.start, "")
                .help("add [listen] with port and tls: nothing would be listened on"),
        );
    } else if written.is_empty() {
        compiler.report_missing(
            Diagnostic::error("there is no listener")
                .at(root.listeners.place, "")
                .help("add one: nothing would be listened on"),
        );
    }
    let mut listeners: Vec<Listener> = Vec::new();
    let mut places: Vec<Place> = Vec::new();
    for (at, listener) in written.iter().enumerate() {
        let name = match &listener.value.name {
            Some(name) => name.value.0.clone(),
            None if root.listen.is_some() => "listen".to_owned(),
            None => format!("listener{}", at + 1),
        };
        let name_place = listener.value.name.as_ref().map_or(listener.place, |name| name.place);
        if let Some(known) = listeners.iter().position(|known| *known.name == *name) {
            compiler.report(
                Diagnostic::error(format!("two listeners are named `{name}`"))
                    .at(name_place, "here again")
                    .at(places[known], "first here"),
            );
        }
        let address = SocketAddr::new(listener.value.address.value, listener.value.port.value);
        if let Some(known) = listeners.iter().position(|known| known.address == address && address.port() != 0) {
            compiler.report(
                Diagnostic::error(format!("two listeners have the address {address}"))
                    .at(listener.place, "here again")
                    .at(places[known], "first here"),
            );
        }
        if listener.value.protocols.value.is_empty() && listener.value.protocols.is_written() {
            compiler.report_missing(
                Diagnostic::error("a listener without protocols")
                    .at(listener.value.protocols.place, "")
                    .help("leave the key out to get all there are"),
            );
        }
        let (protocols, security) = match &listener.value.cleartext {
            Some(action) => cleartext(compiler, listener, action),
            None => (protocols(listener), Security::Tls(tls(compiler, listener))),
        };
        let quic = quic(compiler, &listener.value.quic.value);
        let clients = admission::address_rules(compiler, &listener.value.clients);
        let proxies = admission::proxies(compiler, &listener.value, protocols);
        let keys::AltSvc { enabled, port, max_age } = &listener.value.alt_svc.value;
        let told = enabled.value && protocols.h3 && protocols.over_tcp();
        let alt_svc = told.then(|| AltSvc { port: port.as_ref().map(|port| port.value), max_age: max_age.value });
        listeners.push(Listener { name: name.into(), address, clients, proxies, protocols, security, alt_svc, quic });
        places.push(listener.place);
    }
    listeners
}

/// What a listener with TLS speaks.
fn protocols(listener: &Located<keys::Listener>) -> Protocols {
    let mut protocols = Protocols::default();
    for protocol in &listener.value.protocols.value {
        match protocol.value {
            keys::Protocol::H3 => protocols.h3 = true,
            keys::Protocol::H2 => protocols.h2 = true,
            keys::Protocol::H1 => protocols.h1 = true,
        }
    }
    protocols
}

/// A listener without TLS speaks HTTP/1.1 and nothing else.
fn cleartext(
    compiler: &mut Compiler<'_>,
    listener: &Located<keys::Listener>,
    action: &Located<keys::CleartextAction>,
) -> (Protocols, Security) {
    if let Some(tls) = &listener.value.tls {
        compiler.report(
            Diagnostic::error("a listener has `tls` or `cleartext`, not both")
                .at(tls.place, "")
                .at(action.place, "and here")
                .help("write two listeners, each with its own port"),
        );
    }
    let protocols = &listener.value.protocols;
    if let Some(other) = protocols.value.iter().find(|protocol| protocol.value != keys::Protocol::H1)
        && protocols.is_written()
    {
        compiler.report(
            Diagnostic::error("without TLS there is only `http/1.1`")
                .at(other.place, "")
                .help("leave `protocols` out: browsers speak nothing else without TLS"),
        );
    }
    let cleartext = match action.value {
        keys::CleartextAction::Redirect => Cleartext::Redirect { port: listener.value.https_port.value },
        keys::CleartextAction::Serve => Cleartext::Serve,
    };
    (Protocols { h1: true, ..Protocols::default() }, Security::Cleartext(cleartext))
}

fn tls(compiler: &mut Compiler<'_>, listener: &Located<keys::Listener>) -> ListenerTls {
    ListenerTls {
        source: source(compiler, listener),
        client_auth: listener
            .value
            .tls
            .as_ref()
            .map_or(ClientAuthSource::Off, |tls| client_auth(compiler, &tls.value.client_auth)),
        certificates: certificates(compiler, listener),
        min_version: listener.value.tls.as_ref().map_or(MinVersion::Tls12, |tls| tls.value.min_version.value),
    }
}

fn source(compiler: &mut Compiler<'_>, listener: &Located<keys::Listener>) -> TlsSource {
    let Some(tls) = &listener.value.tls else {
        if !compiler.options.supplied_tls {
            let missing = Diagnostic::error("`tls` is missing in this listener").at(listener.place, "");
            compiler.report_missing(missing.help("add tls = { cert = \"/etc/spooky/certs/fullchain.pem\", key = \"/etc/spooky/certs/privkey.pem\" }: QUIC is always encrypted"));
        }
        return TlsSource::Supplied;
    };
    let (Some(cert), Some(key)) = (&tls.value.cert, &tls.value.key) else {
        return TlsSource::Supplied;
    };
    if compiler.options.check_files {
        files::check_identity(compiler, None, cert, key);
    }
    TlsSource::Files { cert: cert.value.0.clone().into(), key: key.value.0.clone().into() }
}

fn certificates(compiler: &mut Compiler<'_>, listener: &Located<keys::Listener>) -> Vec<NamedCertificate> {
    let Some(tls) = &listener.value.tls else {
        return Vec::new();
    };
    let mut places: FxHashMap<&ServerName, Place> = FxHashMap::default();
    let mut named = Vec::new();
    for certificate in &tls.value.certificates.value {
        let keys::Certificate { server_name, cert, key, client_auth: own } = &certificate.value;
        if let Some(name) = server_name
            && let Some(first) = places.insert(&name.value, name.place)
        {
            compiler.report(
                Diagnostic::error(format!("two certificates are for `{}`", name.value))
                    .at(name.place, "here again")
                    .at(first, "first here")
                    .help("remove one of them: a name has one certificate"),
            );
        }
        let own = own.as_ref().map(|own| client_auth(compiler, own));
        let (Some(server_name), Some(cert), Some(key)) = (server_name, cert, key) else {
            continue;
        };
        if compiler.options.check_files {
            files::check_identity(compiler, Some(server_name), cert, key);
        }
        named.push(NamedCertificate {
            server_name: server_name.value.clone(),
            cert: cert.value.0.clone().into(),
            key: key.value.0.clone().into(),
            client_auth: own.unwrap_or_else(|| resolve(&tls.value.client_auth.value)),
        });
    }
    named
}

/// Compiles one `client_auth`.
fn client_auth(compiler: &mut Compiler<'_>, auth: &Located<keys::ClientAuth>) -> ClientAuthSource {
    let keys::ClientAuth { enabled, require_client_cert, ca_file, crl_file } = &auth.value;
    if !enabled.value {
        let idle = [
            require_client_cert.is_written().then_some(require_client_cert.place),
            ca_file.as_ref().map(|file| file.place),
            crl_file.as_ref().map(|file| file.place),
        ];
        if let (Some(place), false) = (idle.into_iter().flatten().next(), enabled.is_written()) {
            let idle =
                Diagnostic::warning("clients are not asked for certificates").at(place, "acts only with `enabled`");
            compiler.report(idle.help("add enabled = true"));
        }
    } else if let Some(ca_file) = ca_file {
        if compiler.options.check_files {
            files::check_trust(compiler, ca_file, crl_file.as_ref());
        }
    } else {
        compiler.report_missing(
            Diagnostic::error("`client_auth` needs `ca_file`")
                .at(auth.place, "")
                .help("add ca_file = \"…\": the authorities that clients' certificates come from"),
        );
    }
    resolve(&auth.value)
}

fn resolve(auth: &keys::ClientAuth) -> ClientAuthSource {
    match &auth.ca_file {
        Some(ca_file) if auth.enabled.value => ClientAuthSource::On {
            required: auth.require_client_cert.value,
            ca_file: ca_file.value.0.clone().into(),
            crl_file: auth.crl_file.as_ref().map(|file| file.value.0.clone().into()),
        },
        _ => ClientAuthSource::Off,
    }
}

fn quic(compiler: &mut Compiler<'_>, keys: &keys::Quic) -> Quic {
    let sooner = keys.idle_timeout.value / KEEP_ALIVE_PART;
    if keys.keep_alive.is_written() && keys.keep_alive.value.0.is_some_and(|wait| wait > sooner) {
        let useless = Diagnostic::warning("no client is silent for as long as `keep_alive` says: it is asked sooner");
        compiler.report(match keys.idle_timeout.is_written() {
            true => useless.at(keys.keep_alive.place, "longer").at(keys.idle_timeout.place, "than a third of this"),
            false => useless.at(keys.keep_alive.place, "longer than 10s, a third of `idle_timeout`"),
        });
    }
    if keys.max_stream_data.value > keys.max_data.value {
        let useless =
            Diagnostic::warning("one stream may never send as much as `max_stream_data` says: the connection may not");
        compiler.report(
            useless
                .at(keys.max_stream_data.place, "larger than `max_data`")
                .at(keys.max_data.place, "this bounds all streams together"),
        );
    }
    Quic {
        idle_timeout: keys.idle_timeout.value,
        keep_alive: keys.keep_alive.value.0,
        max_data: keys.max_data.value.0,
        max_stream_data: keys.max_stream_data.value.0,
        max_streams_bidi: keys.max_streams_bidi.value,
        congestion_control: keys.congestion_control.value,
        max_udp_payload: keys.max_udp_payload.value,
        initial_congestion_window: keys.initial_congestion_window.value,
        retry: keys.retry.value,
    }
}
