//! Documents that are packed into one sample and kept apart.

use crate::tokenizer::Borders;

/// How the documents of a sample are kept apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Apart {
    /// The first token of the next document is what says that one has ended: BOS, where there is no EOS.
    next_ends: bool,
}

impl Apart {
    /// Of documents with these tokens around them.
    pub(crate) fn new(borders: Borders) -> Self {
        Self { next_ends: borders.bos.is_some() && borders.eos.is_none() }
    }

    /// Fills in the position of each token in its document, or in the part of it that the sample has, and takes out the
    /// targets that are of another document than the token before them. `starts` are the places of first tokens in the sample,
    /// which has one more token than there are positions. Returns the places of the targets that were taken out.
    pub(super) fn mark(self, starts: &[usize], positions: &mut [i32], targets: &mut [i32]) -> Vec<usize> {
        let mut next = starts.iter().copied().peekable();
        let mut start = 0;
        for (at, position) in positions.iter_mut().enumerate() {
            while let Some(new) = next.next_if(|new| *new <= at) {
                start = new;
            }
            *position = (at - start) as i32;
        }
        if self.next_ends {
            return Vec::new();
        }
        let others = starts.iter().filter_map(|start| start.checked_sub(1));
        let others: Vec<usize> =
            others.filter(|at| targets.get(*at).is_some_and(|target| *target >= 0)).collect();
        others.iter().for_each(|at| targets[*at] = -1);
        others
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(borders: Borders, starts: &[usize]) -> (Vec<i32>, Vec<i32>) {
        let (mut positions, mut targets) = (vec![7; 6], vec![1; 6]);
        Apart::new(borders).mark(starts, &mut positions, &mut targets);
        (positions, targets)
    }

    #[test]
    fn positions_count_each_document_from_0() {
        let both = Borders { bos: Some(0), eos: Some(1) };
        assert_eq!(marked(both, &[]), (vec![0, 1, 2, 3, 4, 5], vec![1; 6]));
        assert_eq!(marked(both, &[0, 2, 3, 6]), (vec![0, 1, 0, 0, 1, 2], vec![1, -1, -1, 1, 1, -1]));
        assert_eq!(marked(both, &[1, 5]), (vec![0, 0, 1, 2, 3, 0], vec![-1, 1, 1, 1, -1, 1]));
    }

    #[test]
    fn only_a_bos_that_ends_documents_is_a_target_of_the_one_before() {
        let kept = |bos, eos| marked(Borders { bos, eos }, &[3]).1[2] == 1;
        assert!(kept(Some(0), None));
        assert!(!kept(Some(0), Some(1)) && !kept(None, Some(1)) && !kept(None, None));
    }
}
