//! What layers are weighed on: sequences of tokens with places that ask for what was there before.

use linc_eval::sample::{Ask, Grade, Sample};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::draw::shuffle;
use crate::error::StudyError;

/// A sequence of tokens that a model reads at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    /// Token ids; all sequences have one length.
    pub tokens: Vec<i32>,
    /// The right token after each place, -1 where there is none.
    pub targets: Vec<i32>,
    /// Places whose right token can be recalled from earlier ones; at least one.
    pub recall: Vec<usize>,
}

/// Sequences for the search, and others for what is said of its result.
#[derive(Clone, Debug)]
pub struct Sequences {
    /// To align linear branches on: all others, so that branches do not look better where they are scored than elsewhere; those
    /// of the search if there are no others.
    pub align: Vec<Sequence>,
    /// To score and search on.
    pub search: Vec<Sequence>,
    /// To compare placements on.
    pub test: Vec<Sequence>,
}

impl Sequences {
    /// Draws two times so many sequences of `length` tokens out of the samples of tasks; fewer if there are fewer, but always a
    /// multiple of the batch.
    ///
    /// # Errors
    /// [`StudyError::Nothing`] if there are less than two batches of samples with something to recall.
    pub fn draw(
        samples: &[Sample],
        length: usize,
        wanted: usize,
        batch: usize,
        seed: u64,
    ) -> Result<Self, StudyError> {
        let mut all: Vec<Sequence> = samples.iter().filter_map(|sample| sequence(sample, length)).collect();
        shuffle(&mut ChaCha8Rng::seed_from_u64(seed), &mut all);
        let each = wanted.next_multiple_of(batch).min(all.len() / 2 / batch * batch);
        if each == 0 {
            return Err(StudyError::Nothing {
                message: format!(
                    "{} sequences have places that ask for what was there before; two batches of {batch} are needed",
                    all.len()
                ),
                help: "tasks that score tokens at places, such as mqar or mad_in_context_recall, and texts have such places: more of them, or a smaller --batch-size".into(),
            });
        }
        let mut align = all.split_off(2 * each);
        align.truncate(align.len() / batch * batch);
        let test = all.split_off(each);
        if align.is_empty() {
            align.clone_from(&all);
        }
        Ok(Sequences { align, search: all, test })
    }
}

/// The sequence of a sample, if it has places to recall at within the length.
fn sequence(sample: &Sample, length: usize) -> Option<Sequence> {
    let (ids, answers): (&[u32], Vec<(usize, u32)>) = match (&sample.ask, &sample.grade) {
        (Ask::Places { ids, answers }, _) => (ids, answers.clone()),
        (Ask::Likelihoods(parts), Grade::Text { hits, .. }) => {
            let part = parts.first()?;
            let hit = |(at, hit): (usize, &bool)| hit.then(|| Some((at - 1, *part.ids.get(at)?))).flatten();
            (&part.ids, (part.from..).zip(hits).filter_map(hit).collect())
        }
        (Ask::Likelihoods(_) | Ask::Write { .. }, _) => return None,
    };
    let id = |id: u32| i32::try_from(id).ok();
    let mut tokens: Vec<i32> = ids.iter().take(length).map(|token| id(*token)).collect::<Option<_>>()?;
    let mut targets: Vec<i32> =
        ids.iter().skip(1).take(length).map(|token| id(*token)).collect::<Option<_>>()?;
    // What is behind the end is seen by nothing that counts.
    tokens.resize(length, 0);
    targets.resize(length, -1);
    let mut recall = vec![];
    for (at, token) in answers.into_iter().filter(|(at, _)| *at < length) {
        targets[at] = id(token)?;
        recall.push(at);
    }
    (!recall.is_empty()).then_some(Sequence { tokens, targets, recall })
}

#[cfg(test)]
mod tests {
    use super::*;
    use linc_eval::sample::Continuation;
    use serde_json::Value;

    fn sample(ask: Ask, grade: Grade) -> Sample {
        Sample { id: String::new(), group: String::new(), doc: Value::Null, ask, grade }
    }

    #[test]
    fn answers_and_repeated_pairs_are_places_to_recall_at() {
        let places = Ask::Places { ids: vec![5, 6, 7, 5], answers: vec![(3, 6)] };
        let found = sequence(&sample(places, Grade::Places), 6).expect("a sequence");
        assert_eq!(found.tokens, [5, 6, 7, 5, 0, 0]);
        assert_eq!(found.targets, [6, 7, 5, 6, -1, -1]);
        assert_eq!(found.recall, [3]);
        // 1 2 1 2: the second 2 follows from the pair that was there.
        let part = Continuation { ids: vec![1, 2, 1, 2], from: 1, cut: 0 };
        let grade = Grade::Text { words: 1.0, bytes: 4.0, hits: vec![false, false, true] };
        let found = sequence(&sample(Ask::Likelihoods(vec![part.clone()]), grade), 3).expect("a sequence");
        assert_eq!((found.tokens, found.targets, found.recall), (vec![1, 2, 1], vec![2, 1, 2], vec![2]));
        let nothing = Grade::Text { words: 1.0, bytes: 4.0, hits: vec![false; 3] };
        assert_eq!(sequence(&sample(Ask::Likelihoods(vec![part]), nothing), 3), None);
    }

    #[test]
    fn search_and_test_have_whole_batches_and_nothing_in_common() {
        let one = |id: u32| sample(Ask::Places { ids: vec![id, 1], answers: vec![(1, 1)] }, Grade::Places);
        let samples: Vec<Sample> = (0..23).map(one).collect();
        let drawn = |wanted| Sequences::draw(&samples, 2, wanted, 4, 7).expect("sequences");
        let all = drawn(100);
        assert_eq!((all.search.len(), all.test.len()), (8, 8));
        assert!(all.search.iter().all(|sequence| !all.test.contains(sequence)));
        assert_eq!(all.align.len(), 4);
        assert!(
            all.align.iter().all(|sequence| !all.test.contains(sequence) && !all.search.contains(sequence))
        );
        let few = drawn(3);
        assert_eq!((few.search.len(), few.test.len()), (4, 4));
        assert_eq!(few.search, drawn(3).search, "the seed decides");
        assert!(Sequences::draw(&samples[..7], 2, 4, 4, 7).is_err());
    }
}
