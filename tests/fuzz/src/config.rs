//! The configuration file: an operator's mistakes must come out as diagnostics, whatever they are.

/// Text as a configuration.
pub fn config(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    match spooky::config::from_str("fuzz.toml", text) {
        Ok((generation, warnings)) => {
            let _ = (generation.budget().to_string(), warnings.to_string());
        }
        Err(diagnostics) => {
            let shown = diagnostics.to_string();
            assert!(shown.contains("fuzz.toml"), "a diagnostic without a place: {shown}");
        }
    }
}
