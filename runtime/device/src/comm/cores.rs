//! The machine that ranks share.

use super::{CommError, Ranks};
use crate::process::{allowed_cores, boot, machine};
use crate::threads;

impl Ranks {
    /// Threads for this rank where nobody says how many: those that the machine runs at once for it, shared out among the
    /// ranks that may use the same cores. A launcher that gives each rank cores of its own is left to it.
    ///
    /// # Errors
    /// As [`Ranks::all_to_all`].
    pub fn fair_threads(&mut self) -> Result<usize, CommError> {
        let mine = format!("{} {}", machine(), allowed_cores());
        let world = self.world();
        let all = self.gather("the cores", &world, mine.as_bytes())?;
        Ok(share(threads::available(), &all, mine.as_bytes()))
    }

    /// How many of the ranks before this one choose among the same GPUs of the same machine: the number of its own, where each takes
    /// one. A launcher that shows each rank GPUs of its own is left to it.
    ///
    /// # Errors
    /// As [`Ranks::all_to_all`].
    pub fn place_by_gpus(&mut self) -> Result<usize, CommError> {
        let mine = shown_gpus();
        let all = self.gather_words("the GPUs", &mine)?;
        Ok(all[..self.rank()].iter().filter(|other| **other == mine).count())
    }

    /// How many ranks are on the machine of this one, which is one of them.
    ///
    /// # Errors
    /// As [`Ranks::all_to_all`].
    pub(crate) fn ranks_of_machine(&mut self) -> Result<usize, CommError> {
        let (mine, world) = (machine(), self.world());
        let all = self.gather("the machines", &world, mine.as_bytes())?;
        Ok(all.iter().filter(|other| other.as_slice() == mine.as_bytes()).count())
    }
}

/// The GPUs that a process chooses among: those of its machine, or of its container, that it is shown. Containers of one machine have names
/// of their own, and machines may all have one name.
pub(crate) fn shown_gpus() -> String {
    let shown = ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"];
    let [some, of_container] = shown.map(|name| std::env::var(name).unwrap_or_default());
    format!("{} {} {some} {of_container}", machine(), boot())
}

/// Of so many threads, the share of one among those who have the same cores; at least 1.
fn share(available: usize, all: &[Vec<u8>], mine: &[u8]) -> usize {
    let sharing = all.iter().filter(|cores| cores.as_slice() == mine).count();
    (available / sharing.max(1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_shared_by_those_who_have_the_same() {
        let all: Vec<Vec<u8>> =
            ["a 0-7", "a 0-7", "a 0-7", "b 0-7", "c 0-3", "c 4-7"].map(|cores| cores.into()).to_vec();
        assert_eq!(share(8, &all, b"a 0-7"), 2);
        assert_eq!(share(8, &all, b"b 0-7"), 8);
        assert_eq!(share(4, &all, b"c 0-3"), 4);
        assert_eq!(share(2, &all, b"a 0-7"), 1);
    }
}
