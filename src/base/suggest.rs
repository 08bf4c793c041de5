//! "Did you mean …?"

/// The candidate that `word` is most likely a slip of: at most a third of its letters differ
/// (changed, missing, added, or two swapped), regardless of case.
pub fn closest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_lowercase();
    let letters = word.chars().count();
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let lower = candidate.to_lowercase();
            let allowed = letters.max(lower.chars().count()).div_ceil(3).min(3);
            let distance = distance(&word, &lower);
            // A word without any common letter is no slip.
            (distance <= allowed && distance < letters.max(1)).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The optimal string alignment distance (Damerau-Levenshtein without repeated edits).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = Vec::with_capacity(b.len() + 1);
        row.push(i + 1);
        for j in 0..b.len() {
            let mut least = (last[j + 1] + 1).min(row[j] + 1).min(last[j] + usize::from(a[i] != b[j]));
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                least = least.min(before[j - 1] + 1);
            }
            row.push(least);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips() {
        let commands = ["run", "rm", "rmi", "images", "inspect", "pull", "push"];
        for (word, expected) in
            [("rnu", "run"), ("image", "images"), ("insepct", "inspect"), ("PULL", "pull"), ("pul", "pull")]
        {
            assert_eq!(closest(word, commands), Some(expected), "{word}");
        }
        for word in ["", "xyz", "completely-different", "q"] {
            assert_eq!(closest(word, commands), None, "{word}");
        }
    }

    #[test]
    fn counts_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", "abc"), 0);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("ab", "ba"), 1);
    }
}
