//! Texts of several models side by side, for people who judge them without knowing whose they are.
//!
//! Each prompt is continued by each model with the same seed. A page shows the texts of a prompt in an order of its own, and says
//! nothing of the models; what whose text is stands in another file, which the [`tally`] of what people said reads.

mod agreement;
mod page;
mod prompts;
mod ratings;
pub mod tally;
mod write;

use std::fs;
use std::path::{Path, PathBuf};

use linc_device::write_entry;
use linc_infer::Sampling;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use serde::{Deserialize, Serialize};

use crate::draw::shuffle;
use crate::error::{StudyError, file};

pub use prompts::Prompt;
pub use write::{Asked, Telling, Texts, shared_context, texts};

/// What texts are judged by.
pub const CRITERIA: [(&str, &str); 3] = [
    ("coherence", "Does it hang together, and go on from the prompt?"),
    ("accuracy", "Is what it says right, in itself and by the prompt?"),
    ("creativity", "Does it say something of its own, in a way worth reading?"),
];
/// The best mark; the worst is 1.
pub const BEST: u8 = 5;
/// Models that a person can hold apart on one page.
pub const MOST_MODELS: usize = 8;

/// What says whose texts are where: not for those who judge.
const KEY: &str = "compare.json";
/// Raised when the meaning of the file changes.
const VERSION: u32 = 1;

/// A model that wrote.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Writer {
    /// The path that it was named by.
    pub path: String,
    /// `llama3 1B`
    pub model: String,
    /// `LLLS LLLS ..`
    pub layers: String,
    /// Optimizer steps that made it.
    pub step: usize,
}

/// What models wrote, and the order in which it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Of the file's form.
    pub version: u32,
    /// Tells it from others: a checksum of all texts, of who wrote them, and of the order in which they are shown.
    pub study: String,
    /// Seed of the first prompt; others count on from it.
    pub seed: u64,
    /// How tokens were chosen, in words.
    pub sampling: String,
    /// Who wrote.
    pub writers: Vec<Writer>,
    /// What was continued.
    pub prompts: Vec<Prompt>,
    /// What each writer wrote of each prompt, turn by turn.
    pub texts: Vec<Vec<Vec<String>>>,
    /// For each prompt, the writers of the texts as they are shown.
    pub order: Vec<Vec<usize>>,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The page for those who judge.
    pub page: PathBuf,
    /// Whose text is where.
    pub key: PathBuf,
}

impl Comparison {
    /// Texts of writers, `[writer][prompt][turn]`, in orders that a seed draws.
    pub fn new(
        writers: Vec<Writer>,
        prompts: Vec<Prompt>,
        texts: Vec<Vec<Vec<String>>>,
        sampling: Sampling,
    ) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(sampling.seed ^ 0x9e37_79b9_7f4a_7c15);
        let order: Vec<Vec<usize>> = prompts.iter().map(|_| shuffled(writers.len(), &mut random)).collect();
        let Sampling { temperature, top_k, top_p, seed, .. } = sampling;
        let sampling = match temperature {
            0.0 => "the most likely token each time".to_owned(),
            _ => format!("temperature {temperature}, top_k {top_k}, top_p {top_p}"),
        };
        // Marks say which place a text has, so that they are of this order alone; and what they come to is said of the writers.
        let all = (&writers, &prompts, &texts, &order);
        let study = checksum(&serde_json::to_string(&all).unwrap_or_default());
        Comparison { version: VERSION, study, seed, sampling, writers, prompts, texts, order }
    }

    /// Writes the page and the key into a folder.
    ///
    /// # Errors
    /// Files that cannot be written, or a folder with marks on another comparison, which mean nothing without its key.
    pub fn write(&self, folder: &Path) -> Result<Written, StudyError> {
        fs::create_dir_all(folder).map_err(file("create", folder))?;
        for path in ratings::in_folder(folder)? {
            if ratings::study(&path)?.as_ref() != Some(&self.study) {
                return Err(StudyError::Nothing {
                    message: format!(
                        "{} has marks on another comparison, whose {KEY} would be gone",
                        path.display()
                    ),
                    help: "choose another folder with --out, or move those marks away together with their compare.json"
                        .to_owned(),
                });
            }
        }
        let (page, key) = (folder.join("compare.html"), folder.join(KEY));
        let store =
            |path: &Path, text: &str| write_entry(path, &[text.as_bytes()]).map_err(file("write", path));
        store(&key, &(serde_json::to_string_pretty(self).unwrap_or_default() + "\n"))?;
        store(&page, &page::html(self))?;
        Ok(Written { page, key })
    }

    /// Reads the key in a folder.
    ///
    /// # Errors
    /// There is none, or it is not one that linc wrote.
    pub fn read(folder: &Path) -> Result<Comparison, StudyError> {
        let path = folder.join(KEY);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(StudyError::Nothing {
                    message: format!("{} has no {KEY}, so it is no folder of linc compare", folder.display()),
                    help: "name the folder that linc compare wrote with --out".to_owned(),
                });
            }
            Err(error) => return Err(file("read", &path)(error)),
        };
        let damaged = |message: String| StudyError::Nothing {
            message: format!("{} is damaged: {message}", path.display()),
            help: "write it again with the same linc compare: the same seed gives the same texts".to_owned(),
        };
        let found: Comparison = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        found.check().map_err(damaged)?;
        Ok(found)
    }

    /// What is wrong with what a file says, if anything: whatever reads it counts on these.
    fn check(&self) -> Result<(), String> {
        let (writers, prompts) = (self.writers.len(), self.prompts.len());
        if self.version != VERSION {
            return Err(format!("it has version {}; this linc reads {VERSION}", self.version));
        }
        if self.texts.len() != writers || self.texts.iter().any(|texts| texts.len() != prompts) {
            return Err(format!(
                "it has not one text of each of {writers} models for each of {prompts} prompts"
            ));
        }
        let is_order = |order: &Vec<usize>| {
            let mut sorted = order.clone();
            sorted.sort_unstable();
            sorted.into_iter().eq(0..writers)
        };
        match self.order.len() == prompts && self.order.iter().all(is_order) {
            true => Ok(()),
            false => Err("an order of texts does not have each model once".to_owned()),
        }
    }
}

/// Numbers below `count` in a random order.
fn shuffled(count: usize, random: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    shuffle(random, &mut order);
    order
}

/// FNV-1a of 64 bits, as hexadecimal digits.
fn checksum(text: &str) -> String {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests;
