//! TorchTitan's console lines.

use linc_device::words::thousands;

use super::Record;

/// Foreground colours of the console line, by field.
const COLORS: [&str; 6] = ["\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[34m", "\x1b[36m", "\x1b[35m"];
const RESET: &str = "\x1b[39m";

/// What the memory field shows: the arena, which holds all tensors. The process has its code and data besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Bytes of the arena.
    pub arena: u64,
    /// Bytes of the machine.
    pub machine: u64,
}

impl Memory {
    fn field(self) -> String {
        let gib = self.arena as f64 / f64::from(1 << 30);
        let percent = 100.0 * self.arena as f64 / self.machine.max(1) as f64;
        format!("arena memory: {gib:5.2}GiB({percent:.2}%)")
    }
}

/// TorchTitan's console line of a training step; in f16, with the scale of the loss and the skipped steps. On a line of
/// `width` columns fields are left out that there is no room for; `metrics.jsonl` has them.
pub fn console_line(record: &Record, memory: Memory, color: bool, width: Option<usize>) -> String {
    let value = |x: Option<f64>| x.unwrap_or(f64::NAN);
    let mut fields = vec![
        (0, format!("step: {:2}", record.step)),
        (1, format!("loss: {:7.4}", value(record.loss))),
        (4, format!("grad_norm: {:7.4}", value(record.grad_norm))),
        (6, memory.field()),
        (3, format!("tps: {}", thousands(value(record.tps).round() as u64))),
        (7, format!("tflops: {:.2}", value(record.tflops))),
        (5, format!("mfu: {:.2}%", value(record.mfu))),
    ];
    fields.extend(record.loss_scale.map(|scale| (2, format!("loss_scale: {scale}"))));
    fields.extend(record.skipped_steps.map(|steps| (2, format!("skipped: {steps}"))));
    joined(fields, color, width)
}

/// TorchTitan's console line of a validation, with what linc measures beside the loss; `width` as there.
pub fn validation_line(record: &Record, memory: Memory, color: bool, width: Option<usize>) -> String {
    let value = |x: Option<f64>| x.unwrap_or(f64::NAN);
    let mut fields = vec![
        (0, format!("validate step: {:2}", record.step)),
        (1, format!("loss: {:7.4}", value(record.validation_loss))),
    ];
    fields.extend(record.validation_bits_per_byte.map(|bits| (2, format!("bits/byte: {bits:.4}"))));
    fields.extend(record.validation_accuracy.map(|share| (2, format!("accuracy: {:.2}%", 100.0 * share))));
    fields.push((4, memory.field()));
    fields.push((3, format!("tps: {}", thousands(value(record.validation_tps).round() as u64))));
    joined(fields, color, width)
}

/// The line of what was asked beside a validation, by task and measure; `width` as there.
pub fn evaluation_line(record: &Record, color: bool, width: Option<usize>) -> String {
    let mut fields = vec![(0, format!("evaluate step: {:2}", record.step))];
    let measures = record.evaluation.iter().zip(1..);
    fields.extend(measures.map(|((name, value), rank)| (rank, format!("{name}: {value:.4}"))));
    joined(fields, color, width)
}

/// Space between two fields of a line.
const GAP: &str = "  ";

/// Fields as one line, each with its place in the order of importance. A field keeps its colour whatever is left out.
fn joined(fields: Vec<(usize, String)>, color: bool, width: Option<usize>) -> String {
    let mut shown: Vec<(usize, (usize, String))> = fields.into_iter().enumerate().collect();
    let columns = |shown: &[(usize, (usize, String))]| {
        shown.iter().map(|(_, (_, field))| field.len() + GAP.len()).sum::<usize>().saturating_sub(GAP.len())
    };
    while shown.len() > 1 && width.is_some_and(|width| columns(&shown) > width) {
        let least = shown.iter().enumerate().max_by_key(|(_, (_, (rank, _)))| *rank).map_or(0, |(at, _)| at);
        shown.remove(least);
    }
    let paint = |(i, (_, field)): (usize, (usize, String))| {
        if color { format!("{}{field}{RESET}", COLORS[i % COLORS.len()]) } else { field }
    };
    shown.into_iter().map(paint).collect::<Vec<_>>().join(GAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_reads_like_torchtitans() {
        let record = Record {
            loss: Some(6.2345),
            grad_norm: Some(2.249),
            tps: Some(399_989.4),
            tflops: Some(28.61),
            mfu: Some(2.89),
            ..Record::new(4, 0)
        };
        let line =
            console_line(&record, Memory { arena: 1_148_903_751, machine: 107_374_182_400 }, false, None);
        assert_eq!(
            line,
            "step:  4  loss:  6.2345  grad_norm:  2.2490  arena memory:  1.07GiB(1.07%)  tps: 399,989  tflops: 28.61  mfu: 2.89%"
        );
    }

    #[test]
    fn a_narrow_line_has_what_matters_most() {
        let record = Record {
            loss: Some(4.7094),
            grad_norm: Some(1.7793),
            tps: Some(18_518.0),
            mfu: Some(45.49),
            ..Record::new(10, 0)
        };
        let line =
            |width| console_line(&record, Memory { arena: 1 << 30, machine: 1 << 40 }, false, Some(width));
        assert_eq!(line(71), "step: 10  loss:  4.7094  grad_norm:  1.7793  tps: 18,518  mfu: 45.49%");
        assert_eq!(line(40), "step: 10  loss:  4.7094  tps: 18,518");
        assert_eq!(line(3), "step: 10");
        for width in 9..130 {
            assert!(line(width).len() <= width, "{width}");
        }
    }

    #[test]
    fn the_line_of_f16_says_how_the_loss_is_scaled() {
        let record = Record { loss_scale: Some(32768.0), skipped_steps: Some(1), ..Record::new(4, 0) };
        let line = console_line(&record, Memory { arena: 0, machine: 1 }, false, None);
        assert!(line.ends_with("  loss_scale: 32768  skipped: 1"), "{line}");
    }

    #[test]
    fn an_evaluation_says_what_was_asked() {
        let evaluation = [("copy/acc".to_owned(), 0.5), ("mqar/acc".to_owned(), 0.25)].into();
        let record = Record { evaluation, ..Record::new(30, 7) };
        let line = |width| evaluation_line(&record, false, width);
        assert_eq!(line(None), "evaluate step: 30  copy/acc: 0.5000  mqar/acc: 0.2500");
        assert_eq!(line(Some(40)), "evaluate step: 30  copy/acc: 0.5000");
    }

    #[test]
    fn a_validation_says_what_was_measured() {
        let record = Record {
            validation_loss: Some(1.5),
            validation_bits_per_byte: Some(2.164),
            validation_tps: Some(1234.5),
            ..Record::new(30, 7)
        };
        let line = validation_line(&record, Memory { arena: 1 << 30, machine: 1 << 32 }, false, None);
        let expected =
            "validate step: 30  loss:  1.5000  bits/byte: 2.1640  arena memory:  1.00GiB(25.00%)  tps: 1,235";
        assert_eq!(line, expected);
    }
}
