//! Events for TensorBoard, with TorchTitan's tags: a file of framed protocol buffers for each start of a run, all in one
//! folder, so that they are one curve.
//!
//! A frame is the length of the message (u64), a masked CRC-32C of that, the message, and a masked CRC-32C of it, all little
//! endian (TFRecord, `tensorflow/core/lib/io/record_writer.h`). Messages are those of `tensorflow/core/util/event.proto` as far
//! as scalars need them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use linc_device::process::machine;
use prost::Message;

use super::{Record, since_1970};

/// One entry of the file.
#[derive(Clone, PartialEq, Message)]
struct Event {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(oneof = "What", tags = "3, 5, 7")]
    what: Option<What>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum What {
    /// The first event of a file.
    #[prost(string, tag = "3")]
    FileVersion(String),
    #[prost(message, tag = "5")]
    Summary(Summary),
    #[prost(message, tag = "7")]
    SessionLog(SessionLog),
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Scalar>,
}

#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    /// Written even where it is 0.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// Tells readers to forget what earlier files have from the event's step on.
#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    #[prost(int32, tag = "1")]
    status: i32,
}

/// `SessionLog.START`
const START: i32 = 1;

const VERSION: &str = "brain.Event:2";

/// A file of events that records are appended to.
#[derive(Debug)]
pub struct EventFile {
    file: File,
}

impl EventFile {
    /// Makes a new file in `folder`, which is made if it is not there, for a run that goes on after `step`: what earlier files
    /// have of later steps counts no more.
    ///
    /// # Errors
    /// The folder or the file cannot be written.
    pub fn create(folder: &Path, step: usize) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let seconds = since_1970().as_secs();
        let host: String =
            machine().chars().filter(|c| c.is_ascii_alphanumeric() || "-_".contains(*c)).collect();
        // Readers take the files in the order of their names.
        let create = |number: usize| {
            let name = format!("events.out.tfevents.{seconds:010}.{host}.{number:03}");
            OpenOptions::new().append(true).create_new(true).open(folder.join(name))
        };
        let is_taken =
            |opened: &io::Result<File>| matches!(opened, Err(e) if e.kind() == ErrorKind::AlreadyExists);
        let opened = (0..1000).map(create).find(|opened| !is_taken(opened));
        let file = opened.unwrap_or_else(|| Err(ErrorKind::AlreadyExists.into()))?;
        let mut events = EventFile { file };
        events.append(0, What::FileVersion(VERSION.to_owned()))?;
        events.append(step as i64 + 1, What::SessionLog(SessionLog { status: START }))?;
        Ok(events)
    }

    /// Appends the scalars of a record.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, record: &Record) -> io::Result<()> {
        let scalar = |(tag, value): (String, f64)| Scalar { tag, simple_value: Some(value as f32) };
        let values = scalars(record).into_iter().map(scalar).collect();
        self.append(record.step as i64, What::Summary(Summary { values }))
    }

    fn append(&mut self, step: i64, what: What) -> io::Result<()> {
        let event = Event { wall_time: since_1970().as_secs_f64(), step, what: Some(what) };
        // In one write, so that a kill leaves whole events but for one at the end at most.
        self.file.write_all(&frame(&event.encode_to_vec()))
    }
}

fn frame(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    [&length[..], &masked_crc(&length), message, &masked_crc(message)].concat()
}

/// CRC-32C, turned and shifted, since a checksum of data that holds checksums is worth little.
fn masked_crc(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

const GIB: f64 = (1u64 << 30) as f64;

/// What a record says, by TorchTitan's tags where it has one.
fn scalars(record: &Record) -> Vec<(String, f64)> {
    let Record { step: _, tokens, grad_norms, linear_attention, memory, kept_memory, evaluation, .. } =
        record;
    let mut scalars = vec![];
    let mut say = |tag: &str, value: Option<f64>| scalars.extend(value.map(|value| (tag.to_owned(), value)));
    let seconds = |ms: Option<f64>| ms.map(|ms| ms / 1e3);
    say("loss_metrics/global_avg_loss", record.loss);
    say("grad_norm", record.grad_norm);
    say("loss_scale", record.loss_scale);
    say("skipped_steps", record.skipped_steps.map(|steps| steps as f64));
    say("lr", record.lr);
    say("n_tokens_seen", record.loss.map(|_| *tokens as f64));
    say("throughput(tps)", record.tps);
    say("tflops", record.tflops);
    say("mfu(%)", record.mfu);
    say("true_mfu(%)", record.true_mfu);
    say("time_metrics/end_to_end(s)", seconds(record.step_ms));
    say("time_metrics/data_loading(s)", seconds(record.data_ms));
    let share = record.data_ms.zip(record.step_ms).map(|(data, step)| 100.0 * data / step.max(1e-9));
    say("time_metrics/data_loading(%)", share);
    say("validation_metrics/loss", record.validation_loss);
    say("validation_metrics/bits_per_byte", record.validation_bits_per_byte);
    say("validation_metrics/accuracy", record.validation_accuracy);
    say("validation_metrics/throughput(tps)", record.validation_tps);
    for (name, norm) in grad_norms {
        say(&format!("grad_norms/{name}"), Some(*norm));
    }
    for (name, value) in linear_attention {
        say(&format!("linear_attention/{name}"), Some(*value));
    }
    for (name, value) in evaluation {
        say(&format!("evaluation/{name}"), Some(*value));
    }
    let peak: u64 = memory.values().sum();
    say("memory/max_active(GiB)", (peak > 0).then_some(peak as f64 / GIB));
    for (name, bytes) in memory {
        say(&format!("memory/{name}(GiB)"), Some(*bytes as f64 / GIB));
    }
    for (name, bytes) in kept_memory {
        say(&format!("memory/kept_{name}(GiB)"), Some(*bytes as f64 / GIB));
    }
    scalars
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of a file, whose checksums are right.
    fn read(path: &Path) -> Vec<Event> {
        let bytes = fs::read(path).expect("a file");
        let (mut rest, mut events) = (&bytes[..], vec![]);
        while !rest.is_empty() {
            let (length, after) = rest.split_at(8);
            let (crc, after) = after.split_at(4);
            assert_eq!(crc, masked_crc(length));
            let count = u64::from_le_bytes(length.try_into().expect("eight bytes")) as usize;
            let (message, after) = after.split_at(count);
            let (crc, after) = after.split_at(4);
            assert_eq!(crc, masked_crc(message));
            events.push(Event::decode(message).expect("an event"));
            rest = after;
        }
        events
    }

    #[test]
    fn checksums_are_those_of_tfrecords() {
        // Of RFC 3720, B.4: 32 bytes of zeros have 0x8a9136aa.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        let expected = 0x8a91_36aa_u32.rotate_right(15).wrapping_add(0xa282_ead8);
        assert_eq!(masked_crc(&[0; 32]), expected.to_le_bytes());
    }

    #[test]
    fn a_record_is_read_as_it_was_written_zeros_included() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut file = EventFile::create(&folder.path().join("tb"), 7).expect("a file");
        let memory = [("activations".to_owned(), 3 << 29)].into();
        let evaluation = [("mqar/acc".to_owned(), 0.25)].into();
        let grad_norms = [("layers.0.attention".to_owned(), 0.5)].into();
        let linear_attention = [("layers.1/fast_path_rate".to_owned(), 0.75)].into();
        let record = Record {
            loss: Some(1.5),
            data_ms: Some(0.0),
            grad_norms,
            linear_attention,
            memory,
            evaluation,
            ..Record::new(8, 4096)
        };
        file.write(&record).expect("written");
        let mut found = fs::read_dir(folder.path().join("tb")).expect("a folder");
        let events = read(&found.next().expect("a file").expect("an entry").path());
        assert_eq!(events[0].what, Some(What::FileVersion(VERSION.into())));
        assert_eq!(
            (events[1].step, &events[1].what),
            (8, &Some(What::SessionLog(SessionLog { status: START })))
        );
        let Some(What::Summary(Summary { values })) = &events[2].what else { panic!("{events:?}") };
        let value = |tag: &str| values.iter().find(|v| v.tag == tag).and_then(|v| v.simple_value);
        assert_eq!(value("loss_metrics/global_avg_loss"), Some(1.5));
        assert_eq!(value("time_metrics/data_loading(s)"), Some(0.0));
        assert_eq!(value("n_tokens_seen"), Some(4096.0));
        assert_eq!(value("memory/activations(GiB)"), Some(1.5));
        assert_eq!(value("evaluation/mqar/acc"), Some(0.25));
        assert_eq!(value("grad_norms/layers.0.attention"), Some(0.5));
        assert_eq!(value("linear_attention/layers.1/fast_path_rate"), Some(0.75));
        assert_eq!(value("grad_norm"), None);
        assert_eq!(events[2].step, 8);
    }

    #[test]
    fn each_start_has_a_file_of_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let files: Vec<EventFile> =
            (0..3).map(|step| EventFile::create(folder.path(), step).expect("a file")).collect();
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), files.len());
    }
}
