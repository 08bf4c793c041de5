//! Which stages a build needs, and what the names in them mean: pure.

use std::collections::BTreeSet;

use crate::image::dockerfile::{Dockerfile, Instruction, Stage};

/// A stage that is not there.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Of `--target`.
    #[error("--target \"{name}\": there is no such stage; there are {}", known.join(", "))]
    NoTarget {
        /// As given.
        name: String,
        /// Names and numbers of all.
        known: Vec<String>,
    },
}

/// The index of the stage that a word means, among the first `before`: by its name, or by its number from 0.
pub(super) fn find(stages: &[Stage], word: &str, before: usize, numbers: bool) -> Option<usize> {
    let named = |stage: &Stage| stage.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(word));
    // Of several with the same name the last one before counts.
    let by_name = stages[..before].iter().rposition(named);
    by_name.or_else(|| word.parse().ok().filter(|number| numbers && *number < before))
}

/// The stages to be built, the last of which is the one that is wanted.
pub(super) fn needed(
    file: &Dockerfile,
    target: Option<&str>,
    all: bool,
    expand: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<usize>, Error> {
    let stages = &file.stages;
    let last = stages.len().saturating_sub(1);
    let target = match target {
        None => last,
        Some(word) => find(stages, word, stages.len(), true).ok_or_else(|| Error::NoTarget {
            name: word.to_owned(),
            known: (stages.iter().enumerate())
                .map(|(index, stage)| stage.name.clone().unwrap_or_else(|| index.to_string()))
                .collect(),
        })?,
    };
    if all {
        return Ok((0..=target).collect());
    }
    let mut wanted = BTreeSet::from([target]);
    let mut open = vec![target];
    while let Some(index) = open.pop() {
        for (word, numbers) in references(&stages[index]) {
            let found = match expand(word) {
                Some(word) => Vec::from_iter(find(stages, &word, index, numbers)),
                // What it means is known only when its turn comes.
                None => (0..index).collect(),
            };
            open.extend(found.into_iter().filter(|found| wanted.insert(*found)));
        }
    }
    Ok(wanted.into_iter().collect())
}

/// The words of a stage that may name others, and whether a number does.
fn references(stage: &Stage) -> Vec<(&str, bool)> {
    let mut words = vec![(&*stage.base, false)];
    for step in &stage.steps {
        match &step.instruction {
            Instruction::Copy(copy) => words.extend(copy.from.iter().map(|from| (&**from, true))),
            Instruction::Run(run) => {
                words.extend(run.mounts.iter().filter_map(|mount| Some((mount.from.as_deref()?, true))));
            }
            _ => {}
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::dockerfile::{Copy, Step};

    fn stage(base: &str, name: Option<&str>, from: &[&str]) -> Stage {
        let step = |from: &&str| Step {
            line: 1,
            text: String::new(),
            instruction: Instruction::Copy(Copy { from: Some((*from).into()), ..Copy::default() }),
        };
        Stage {
            line: 1,
            text: String::new(),
            base: base.into(),
            platform: None,
            name: name.map(str::to_owned),
            steps: from.iter().map(step).collect(),
        }
    }

    #[test]
    fn only_what_leads_to_the_target_is_built() {
        let stages = vec![
            stage("debian", Some("base"), &[]),
            stage("base", Some("tools"), &[]),
            stage("alpine", None, &["elsewhere/image"]),
            stage("base", Some("app"), &["2"]),
            stage("scratch", Some("last"), &["App", "$X"]),
        ];
        let file = Dockerfile { escape: '\\', stages, ..Dockerfile::default() };
        let plain = |word: &str| (!word.contains('$')).then(|| word.to_owned());
        let of = |target, all| needed(&file, target, all, &plain);
        assert_eq!(of(Some("tools"), false).unwrap(), [0, 1]);
        assert_eq!(of(Some("APP"), false).unwrap(), [0, 2, 3]);
        assert_eq!(of(Some("2"), false).unwrap(), [2]);
        assert_eq!(of(Some("2"), true).unwrap(), [0, 1, 2]);
        assert_eq!(of(None, false).unwrap(), [0, 1, 2, 3, 4]);
        let error = of(Some("no"), false).unwrap_err().to_string();
        assert_eq!(error, "--target \"no\": there is no such stage; there are base, tools, 2, app, last");
        assert_eq!(find(&file.stages, "0", 3, false), None);
        assert_eq!(find(&file.stages, "last", 3, true), None);
    }
}
