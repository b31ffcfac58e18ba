//! The handshake: what must be the same on all ranks is compared before any work, and a difference names ranks.

use std::env;

use super::error::ranks;
use super::{CommError, Ranks};
use crate::cpu::Level;

/// Parts names and values of facts.
const BETWEEN: char = '\0';

/// What processes must have in common whatever they do together, for [`Ranks::agree`].
pub fn of_processes() -> [(&'static str, String); 2] {
    [
        ("linc's version", env!("CARGO_PKG_VERSION").to_owned()),
        ("the processor", format!("{}, {}", env::consts::ARCH, Level::detect().name())),
    ]
}

impl Ranks {
    /// Compares facts, each with its name, over all ranks: linc's version, the command, the machine.
    ///
    /// # Errors
    /// [`CommError::Differ`] on all ranks alike, with each fact that differs and who has which value. And those of all exchanges.
    pub fn agree(&mut self, facts: &[(&str, String)]) -> Result<(), CommError> {
        let mine: Vec<String> = facts
            .iter()
            .flat_map(|(name, value)| [(*name).to_owned(), value.replace(BETWEEN, " ")])
            .collect();
        let world = self.world();
        let all = self.gather("the handshake", &world, mine.join(&BETWEEN.to_string()).as_bytes())?;
        let all: Vec<Vec<(String, String)>> = all.iter().map(|bytes| facts_of(bytes)).collect();
        match difference(&all) {
            None => Ok(()),
            Some(difference) => Err(CommError::Differ(difference)),
        }
    }
}

fn facts_of(bytes: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(bytes);
    let words: Vec<&str> = text.split(BETWEEN).collect();
    let fact = |pair: &[&str]| (pair[0].to_owned(), pair.get(1).copied().unwrap_or_default().to_owned());
    words.chunks(2).map(fact).collect()
}

/// What differs among the facts of ranks, in their order: each with its values and who has them.
fn difference(all: &[Vec<(String, String)>]) -> Option<String> {
    let mut names: Vec<&str> = vec![];
    for (name, _) in all.iter().flatten() {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let differs = |name: &str| {
        let value = |facts: &Vec<(String, String)>| {
            facts.iter().find(|(other, _)| other == name).map_or("nothing", |(_, value)| value).to_owned()
        };
        let mut holders: Vec<(String, Vec<usize>)> = vec![];
        for (rank, facts) in all.iter().enumerate() {
            let value = value(facts);
            match holders.iter_mut().find(|(other, _)| *other == value) {
                Some((_, ranks)) => ranks.push(rank),
                None => holders.push((value, vec![rank])),
            }
        }
        let on = |(value, on): &(String, Vec<usize>)| format!("{value} on {}", ranks(on));
        (holders.len() > 1)
            .then(|| format!("{name} is {}", holders.iter().map(on).collect::<Vec<_>>().join(", but ")))
    };
    let found: Vec<String> = names.into_iter().filter_map(differs).collect();
    (!found.is_empty()).then(|| found.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_names_values_and_ranks() {
        let facts = |version: &str, config: &str| {
            vec![("version".to_owned(), version.to_owned()), ("config".to_owned(), config.to_owned())]
        };
        let same = vec![facts("1", "a"); 3];
        assert_eq!(difference(&same), None);
        let all = [facts("1", "a"), facts("1", "b"), facts("2", "a"), facts("1", "a")];
        assert_eq!(
            difference(&all).as_deref(),
            Some(
                "version is 1 on ranks 0, 1 and 3, but 2 on rank 2; config is a on ranks 0, 2 and 3, but b on rank 1"
            )
        );
        let older = [facts("1", "a"), facts("1", "a")[..1].to_vec()];
        assert_eq!(difference(&older).as_deref(), Some("config is a on rank 0, but nothing on rank 1"));
    }
}
