//! "Did you mean …": the known word nearest to an unknown one.

/// The nearest of `known`, when it is near enough to be what was meant.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_ascii_lowercase().replace('-', "_");
    // A third of the letters may differ, at least one and at most three: beyond that a suggestion is noise.
    let allowed = (lower.chars().count() / 3).clamp(1, 3);
    known
        .into_iter()
        .filter_map(|candidate| {
            let plain = candidate.to_ascii_lowercase().replace('-', "_");
            let distance = distance(&lower, &plain);
            // `backend_timeout_ms` for `backend_timeout`, `connections` for `max_active_connections`.
            let related = lower.len() >= 5 && (plain.contains(&lower) || lower.starts_with(&plain) && plain.len() >= 5);
            (distance <= allowed || related).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap of neighbours) between two words.
fn distance(a: &str, b: &str) -> usize {
    // Words are keys; a hostile megabyte of a key must not cost a quadratic table.
    const LONGEST: usize = 64;
    let a: Vec<char> = a.chars().take(LONGEST).collect();
    let b: Vec<char> = b.chars().take(LONGEST).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 5] = ["backend_timeout", "backend_connect_timeout", "port", "address", "max_active_connections"];

    #[test]
    fn finds_slips_of_the_finger() {
        assert_eq!(nearest("backend_timout", KEYS), Some("backend_timeout"));
        assert_eq!(nearest("prot", KEYS), Some("port"));
        assert_eq!(nearest("Backend-Timeout", KEYS), Some("backend_timeout"));
        assert_eq!(nearest("adress", KEYS), Some("address"));
    }

    #[test]
    fn finds_relatives() {
        assert_eq!(nearest("backend_timeout_ms", KEYS), Some("backend_timeout"));
        assert_eq!(nearest("active_connections", KEYS), Some("max_active_connections"));
    }

    #[test]
    fn stays_silent_rather_than_guess() {
        assert_eq!(nearest("colour", KEYS), None);
        assert_eq!(nearest("", KEYS), None);
        assert_eq!(nearest(&"x".repeat(100_000), KEYS), None);
    }

    #[test]
    fn counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "acb"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
