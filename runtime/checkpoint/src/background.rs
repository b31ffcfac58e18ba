//! Checkpoints that are written while training goes on. Training waits for the copy of its tensors only, and where these are
//! more than the buffer between the two may hold, for the disk to take the rest.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use linc_data::TokenizerFile;

use crate::{CheckpointError, Contents, State, Tensor, purge, save};

/// A checkpoint but for the contents of its tensors.
#[derive(Clone, Debug)]
pub struct Outline {
    /// Where the `step-N` go.
    pub folder: PathBuf,
    /// Names and shapes of trainable tensors.
    pub params: Vec<(String, Vec<usize>)>,
    /// Of the optimizer's state; empty to leave it out.
    pub optimizer: Vec<(String, Vec<usize>)>,
    /// The tokenizer's files, if it has any.
    pub tokenizer: Vec<TokenizerFile>,
    /// What the run goes on from besides tensors.
    pub state: State,
    /// Bytes of a file of tensors at most.
    pub shard_bytes: u64,
    /// How many of the newest checkpoints stay; 0 for all.
    pub keep: usize,
    /// Step of the checkpoint before, or that the run began with.
    pub since: usize,
}

/// Tensors that were copied and are not written yet.
#[derive(Debug, Default)]
struct Staged {
    tensors: VecDeque<(String, Vec<u8>)>,
    bytes: u64,
    /// No more will come.
    closed: bool,
    /// Nobody will take more.
    ended: bool,
}

#[derive(Debug)]
struct Buffer {
    limit: u64,
    staged: Mutex<Staged>,
    changed: Condvar,
}

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, Staged> {
        // Whoever holds it only moves vectors; after a panic there is nothing half done.
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, staged: MutexGuard<'a, Staged>) -> MutexGuard<'a, Staged> {
        self.changed.wait(staged).unwrap_or_else(PoisonError::into_inner)
    }

    /// The contents of the tensor that comes next, which must be this one.
    fn take(&self, name: &str) -> Result<Vec<u8>, String> {
        let mut staged = self.lock();
        loop {
            if let Some((next, bytes)) = staged.tensors.pop_front() {
                staged.bytes -= bytes.len() as u64;
                self.changed.notify_all();
                let is_wanted = next == name;
                return if is_wanted { Ok(bytes) } else { Err(format!("{next} comes before {name}")) };
            }
            if staged.closed {
                return Err(format!("{name} was not copied"));
            }
            staged = self.wait(staged);
        }
    }
}

/// Tells who stages tensors, when it is dropped, that nobody takes more.
struct Ended<'a>(&'a Buffer);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.changed.notify_all();
    }
}

/// A checkpoint that is being written. Dropped, it is waited for.
#[derive(Debug)]
pub struct Saving {
    buffer: Arc<Buffer>,
    writer: Option<JoinHandle<Result<PathBuf, CheckpointError>>>,
}

impl Saving {
    /// Begins to write; the names of the tensors in the order in which [`Saving::stage`] wants them. At most `limit` bytes, or
    /// one tensor, wait to be written.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(outline: Outline, limit: u64) -> io::Result<(Saving, Vec<String>)> {
        let sorted = |tensors: &[(String, Vec<usize>)]| {
            let mut names: Vec<String> = tensors.iter().map(|(name, _)| name.clone()).collect();
            names.sort();
            names
        };
        let order = [sorted(&outline.params), sorted(&outline.optimizer)].concat();
        let buffer =
            Arc::new(Buffer { limit, staged: Mutex::new(Staged::default()), changed: Condvar::new() });
        let shared = buffer.clone();
        let writer = Builder::new().name("checkpoint".into()).spawn(move || {
            // Also where writing panics: nobody may wait for it then.
            let _ended = Ended(&shared);
            save_outline(&outline, &|name| shared.take(name))
        })?;
        Ok((Saving { buffer, writer: Some(writer) }, order))
    }

    /// Hands over the contents of the next tensor, little-endian f32. False if nobody wants it any more: then
    /// [`Saving::finish`] says why.
    pub fn stage(&self, name: String, bytes: Vec<u8>) -> bool {
        let mut staged = self.buffer.lock();
        let len = bytes.len() as u64;
        while !staged.ended && staged.bytes > 0 && staged.bytes + len > self.buffer.limit {
            staged = self.buffer.wait(staged);
        }
        if staged.ended {
            return false;
        }
        staged.bytes += len;
        staged.tensors.push_back((name, bytes));
        self.buffer.changed.notify_all();
        true
    }

    /// Whether it is written, or cannot be.
    pub fn has_ended(&self) -> bool {
        self.writer.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits for its end: the path of the `step-N`.
    ///
    /// # Errors
    /// [`CheckpointError::Io`], or [`CheckpointError::Writer`]; existing checkpoints are then untouched.
    pub fn finish(mut self) -> Result<PathBuf, CheckpointError> {
        self.close();
        let writer = self.writer.take().expect("only this and drop take it");
        writer.join().unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(CheckpointError::Writer { message: words.unwrap_or("it gives no reason").to_owned() })
        })
    }

    /// No more tensors come.
    fn close(&self) {
        self.buffer.lock().closed = true;
        self.buffer.changed.notify_all();
    }
}

impl Drop for Saving {
    fn drop(&mut self) {
        self.close();
        if let Some(writer) = self.writer.take() {
            // Whoever drops it gives it up: a checkpoint that is wanted is waited for by `finish`, which tells.
            let _ = writer.join();
        }
    }
}

/// Writes a checkpoint whose tensors `read` gives by name, each once, in the order of [`Saving::start`], and removes those that
/// are too many.
///
/// # Errors
/// [`CheckpointError::Io`]; existing checkpoints are then untouched.
pub fn save_outline(
    outline: &Outline,
    read: &dyn Fn(&str) -> Result<Vec<u8>, String>,
) -> Result<PathBuf, CheckpointError> {
    let tensor = |(name, shape): &(String, Vec<usize>)| {
        let wanted = name.clone();
        Tensor { name: name.clone(), shape: shape.clone(), read: Box::new(move || read(&wanted)) }
    };
    let contents = Contents {
        params: outline.params.iter().map(tensor).collect(),
        optimizer: outline.optimizer.iter().map(tensor).collect(),
        tokenizer: &outline.tokenizer,
        shard_bytes: outline.shard_bytes,
        state: outline.state.clone(),
    };
    let path = save(&outline.folder, &contents)?;
    purge(&outline.folder, outline.keep, outline.since, outline.state.step)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::time::Duration;

    use linc_data::DataState;

    use super::*;
    use crate::read::Tensors;
    use crate::{MODEL_FILE, ModelRecord, OPTIMIZER_FILE, open};

    const NUMEL: usize = 1000;

    fn outline(folder: &Path, step: usize) -> Outline {
        let shapes = |names: &[&str]| names.iter().map(|name| (name.to_string(), vec![NUMEL])).collect();
        let kind = "text".to_owned();
        let data = DataState {
            kind,
            seed: 0,
            shuffle: false,
            seq_len: 1,
            size: 1,
            checksum: 0,
            ..DataState::default()
        };
        let state = State::new(step, 0, 0, data, record());
        Outline {
            folder: folder.to_path_buf(),
            params: shapes(&["b", "a", "c"]),
            optimizer: shapes(&["b.exp_avg", "a.exp_avg"]),
            tokenizer: vec![],
            state,
            shard_bytes: u64::MAX,
            keep: 2,
            since: step.saturating_sub(1),
        }
    }

    fn record() -> ModelRecord {
        let text = |text: &str| text.to_owned();
        ModelRecord {
            name: text("m"),
            flavor: text("f"),
            linear_attn_ratio: text("0"),
            linear_attn_placement: text("uniform"),
            layers: vec![text("softmax")],
            params: 3 * NUMEL as u64,
            model_path: text("m.toml"),
            model_toml: String::new(),
            architecture_path: text("m.linc"),
            architecture: String::new(),
            overrides: vec![],
            seq_len: 1,
            batch_size: 1,
        }
    }

    fn contents(name: &str, step: usize) -> Vec<u8> {
        let value = name.len() as f32 + f32::from(name.as_bytes()[0]) + step as f32;
        value.to_le_bytes().repeat(NUMEL)
    }

    #[test]
    fn what_is_staged_is_what_is_read_however_small_the_buffer() {
        for limit in [0, 4 * NUMEL as u64, 1 << 30] {
            let folder = tempfile::tempdir().expect("a folder");
            for step in 1..=3 {
                let (saving, order) = Saving::start(outline(folder.path(), step), limit).expect("a thread");
                assert_eq!(order, ["a", "b", "c", "a.exp_avg", "b.exp_avg"]);
                for name in order {
                    let bytes = contents(&name, step);
                    assert!(saving.stage(name, bytes));
                }
                let path = saving.finish().unwrap_or_else(|e| panic!("{e}"));
                assert_eq!(open(&path).unwrap_or_else(|e| panic!("{e}")).step, step);
                let data = fs::read(path.join(MODEL_FILE)).expect("a file");
                let found = safetensors::SafeTensors::deserialize(&data).expect("tensors");
                assert_eq!(found.len(), 3);
                assert!(found.tensors().iter().all(|(name, t)| t.data() == contents(name, step)));
            }
            assert_eq!(crate::steps(folder.path()), [2, 3], "older ones go");
        }
    }

    #[test]
    fn shards_are_read_as_one_file_is_and_damage_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = |path: &Path| {
            let entries =
                fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").file_name());
            let mut names: Vec<String> = entries.filter_map(|name| name.into_string().ok()).collect();
            names.retain(|name| name.contains("safetensors"));
            names.sort();
            names
        };
        // Two tensors fit a file: three weights take two, two moments one.
        let outline = Outline { shard_bytes: 8 * NUMEL as u64, ..outline(folder.path(), 1) };
        let path = save_outline(&outline, &|name| Ok(contents(name, 1))).unwrap_or_else(|e| panic!("{e}"));
        let (first, second) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
        let index = "model.safetensors.index.json";
        assert_eq!(names(&path), [first, second, index, OPTIMIZER_FILE]);
        let state = open(&path).unwrap_or_else(|e| panic!("{e}"));
        assert!(state.has_optimizer() && state.weights_digest().is_some_and(|text| text.contains(',')));
        let tensors = Tensors::open(&path, MODEL_FILE).unwrap_or_else(|e| panic!("{e}"));
        for (name, _) in &outline.params {
            assert_eq!(tensors.read(name).unwrap_or_else(|e| panic!("{e}")), contents(name, 1));
        }
        // What has no checksum is not read, whatever its name.
        fs::write(path.join(MODEL_FILE), "another model").expect("written");
        assert!(Tensors::open(&path, MODEL_FILE).is_ok_and(|tensors| tensors.read("a").is_ok()));
        fs::remove_file(path.join(MODEL_FILE)).expect("removed");
        let refused = || open(&path).expect_err("damaged").to_string();
        let whole = fs::read(path.join(second)).expect("a file");
        let damaged = |at: usize| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(path.join(second), bytes).expect("written");
            refused()
        };
        let said = damaged(whole.len() - 9);
        assert!(said.contains(second) && said.contains("the checksum of c is wrong"), "{said}");
        let said = damaged(9);
        assert!(said.contains(second) && said.contains("its checksum is wrong"), "{said}");
        fs::remove_file(path.join(second)).expect("removed");
        assert!(refused().contains(second));
        fs::write(path.join(second), whole).expect("written");
        open(&path).unwrap_or_else(|e| panic!("{e}"));
        fs::remove_file(path.join(index)).expect("removed");
        assert!(refused().contains(index));
    }

    #[test]
    fn one_that_is_given_up_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let (saving, order) = Saving::start(outline(folder.path(), 1), 1 << 30).expect("a thread");
        assert!(saving.stage(order[0].clone(), contents(&order[0], 1)));
        drop(saving);
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }

    #[test]
    fn a_writer_that_panics_is_an_error_of_the_checkpoint() {
        let shared = Buffer { limit: 0, staged: Mutex::new(Staged::default()), changed: Condvar::new() };
        let buffer = Arc::new(shared);
        let shared = buffer.clone();
        let writer = std::thread::spawn(move || {
            let _ended = Ended(&shared);
            panic!("of {}", "its own")
        });
        let saving = Saving { buffer, writer: Some(writer) };
        // Nobody waits for it.
        while saving.stage("a".into(), vec![0; 4]) {}
        let error = saving.finish().expect_err("no checkpoint").to_string();
        assert!(
            error.contains("of its own") && error.contains("older checkpoints are as they were"),
            "{error}"
        );
    }

    #[test]
    fn an_error_of_the_disk_is_told_to_who_stages_and_to_who_finishes() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        fs::write(&file, "no folder").expect("written");
        let (saving, order) = Saving::start(outline(&file, 1), 0).expect("a thread");
        // Nobody takes any: the second waits until the writer has given up.
        let taken = order.into_iter().all(|name| {
            let bytes = contents(&name, 1);
            saving.stage(name, bytes)
        });
        assert!(!taken);
        while !saving.has_ended() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(saving.finish().is_err());
    }
}
