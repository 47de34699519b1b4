//! What is around the forwarding: protocol policy, endpoints, logs.

use std::net::SocketAddr;

use super::{Compiler, files};
use crate::config::diagnostic::Diagnostic;
use crate::config::generation::{
    AllowedMethods, Log, LogTarget, MetricsEndpoint, Observability, ProtocolPolicy, Qlog, SecretSource,
};
use crate::config::keys;
use crate::config::schema::Located;
use crate::http::respond::ProxyStatus;

/// Compiles `[observability]` and `[log]`.
pub(super) fn compile(compiler: &mut Compiler<'_>) -> (Observability, Log) {
    let keys = &compiler.root.observability.value;
    let (metrics, control, access) = (&keys.metrics.value, &keys.control_api.value, &keys.access_log.value);
    let metrics_address = SocketAddr::new(metrics.address.value, metrics.port.value);
    let control_address = SocketAddr::new(control.address.value, control.port.value);
    if metrics.enabled.value
        && control.enabled.value
        && metrics_address == control_address
        && metrics_address.port() != 0
    {
        let place = if control.port.is_written() { control.port.place } else { keys.control_api.place };
        let other = if metrics.port.is_written() { metrics.port.place } else { keys.metrics.place };
        compiler.report(
            Diagnostic::error(format!("metrics and control_api both listen on {metrics_address}"))
                .at(place, "")
                .at(other, "and here")
                .help("give one of them another port"),
        );
    }
    let log = &compiler.root.log.value;
    if compiler.options.check_files {
        for target in [&access.file, &log.file] {
            if let LogTarget::File(path) = &target.value {
                files::check_folder(compiler, path, target.place);
            }
        }
    }
    let observability = Observability {
        metrics: metrics
            .enabled
            .value
            .then(|| MetricsEndpoint { address: metrics_address, path: metrics.path.value.0.as_str().into() }),
        control_api: control.enabled.value.then_some(control_address),
        access_log: access.enabled.value.then(|| access.file.value.clone()),
        qlog: keys.qlog.as_ref().and_then(|written| {
            let keys::Qlog { dir, client, max_files, max_file_size } = &written.value;
            // Without a folder the file has been refused already.
            Some(Qlog {
                dir: dir.as_ref()?.value.0.clone().into(),
                client: client.as_ref().map(|client| client.value.to_canonical()),
                max_files: max_files.value,
                max_file_bytes: max_file_size.value.0,
            })
        }),
        proxy_status: match keys.proxy_status.value {
            keys::ProxyStatusMode::Error => ProxyStatus::Error,
            keys::ProxyStatusMode::Full => ProxyStatus::Full,
            keys::ProxyStatusMode::Off => ProxyStatus::Off,
        },
    };
    (observability, compile_log(log))
}

fn compile_log(keys: &keys::Log) -> Log {
    let keys::LogModules { control, config, exchange, h1, h3, worker } = &keys.modules.value;
    let modules =
        [("control", control), ("config", config), ("exchange", exchange), ("h1", h1), ("h3", h3), ("worker", worker)];
    Log {
        level: keys.level.value,
        modules: modules.into_iter().filter_map(|(name, level)| Some((name.into(), level.as_ref()?.value))).collect(),
        format: keys.format.value,
        target: keys.file.value.clone(),
    }
}

/// Compiles `[security] secret`.
pub(super) fn secret(keys: &keys::Security) -> SecretSource {
    let file = &keys.secret.value.file;
    let path = file.value.0.as_path().into();
    if file.is_written() { SecretSource::File(path) } else { SecretSource::Usual(path) }
}

/// Compiles `[resilience.protocol]`.
pub(super) fn protocol(keys: &keys::ProtocolRules) -> ProtocolPolicy {
    let allowed = |written: &Located<Vec<Located<crate::config::values::MethodName>>>| {
        let methods: Vec<_> = written.value.iter().map(|method| method.value.0.clone()).collect();
        let names: Vec<_> = methods.iter().map(crate::http::Method::as_str).collect();
        AllowedMethods { allow: names.join(", ").into(), methods }
    };
    ProtocolPolicy {
        allowed_methods: keys.allowed_methods.as_ref().map(allowed),
        denied_path_prefixes: keys.denied_path_prefixes.value.iter().map(|path| path.value.0.as_str().into()).collect(),
        max_headers_count: keys.max_headers_count.value,
        max_headers_bytes: keys.max_headers_bytes.value.to_u32(),
    }
}
