//! Which libraries stand below: for `--version --verbose` and the build information metric.

/// What was linked, from the lock file this was built with: quiche does not tell its own version.
const LOCK: &str = include_str!("../../Cargo.lock");

/// quiche's version.
pub fn quiche() -> &'static str {
    locked("quiche")
}

/// BoringSSL's own word and the version of the crate that brings it.
pub fn boringssl() -> String {
    format!("{} ({})", boring::version::version(), locked("boring-sys"))
}

fn locked(name: &str) -> &'static str {
    let after = LOCK.split("[[package]]").find(|package| {
        let mut lines = package.lines().filter_map(|line| line.strip_prefix("name = "));
        lines.next().map(|quoted| quoted.trim_matches('"')) == Some(name)
    });
    after
        .and_then(|package| package.lines().find_map(|line| line.strip_prefix("version = ")))
        .map_or("unknown", |quoted| quoted.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_knows_them() {
        assert!(quiche().starts_with("0."), "{}", quiche());
        assert!(boringssl().contains("BoringSSL"));
        assert_eq!(locked("no-such-crate"), "unknown");
    }
}
