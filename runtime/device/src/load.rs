//! What others take of the machine while something is measured.

use std::fs;

/// From this share of the machine on that others take, a measurement is not that of the machine.
pub const NOISY: f64 = 0.05;

/// Time of all processors together since the machine started, in the system's ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// In use, or given to other guests of the same host.
    busy: u64,
    /// All that there was.
    total: u64,
    /// Used by this process.
    own: u64,
}

impl Load {
    /// Now; nothing where the system does not say.
    pub fn now() -> Option<Load> {
        Load::of(&fs::read_to_string("/proc/stat").ok()?, &fs::read_to_string("/proc/self/stat").ok()?)
    }

    fn of(machine: &str, process: &str) -> Option<Load> {
        let line = machine.lines().find_map(|line| line.strip_prefix("cpu "))?;
        // user nice system idle iowait irq softirq steal; what follows are parts of user and nice.
        let ticks: Vec<u64> = line.split_whitespace().take(8).filter_map(|n| n.parse().ok()).collect();
        let idle = ticks.get(3)? + ticks.get(4).unwrap_or(&0);
        let total: u64 = ticks.iter().sum();
        // The name, in parentheses, may have spaces; utime and stime are the fields 14 and 15.
        let (_, fields) = process.rsplit_once(')')?;
        let mut fields = fields.split_whitespace().skip(11);
        let mut field = || fields.next()?.parse::<u64>().ok();
        Some(Load { busy: total - idle, total, own: field()? + field()? })
    }

    /// The share of the machine that others have taken from a moment until now; nothing where the system does not say.
    pub fn others_since(begun: Option<Load>) -> Option<f64> {
        begun?.others_until(Load::now()?)
    }

    /// The share of the machine that others have taken from this moment to a later one; nothing if that is the same.
    fn others_until(self, later: Load) -> Option<f64> {
        let total = later.total.checked_sub(self.total).filter(|total| *total > 0)?;
        let busy = later.busy.saturating_sub(self.busy).saturating_sub(later.own.saturating_sub(self.own));
        Some(busy as f64 / total as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_idle_nor_its_own_is_others() {
        let load = |machine: &str, own: [u64; 2]| {
            let process = format!("7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 {} {} 1 1 20", own[0], own[1]);
            Load::of(machine, &process).expect("a load")
        };
        let before = load("cpu  100 0 20 500 80 0 0 0 9 9\ncpu0 1 2 3\n", [50, 5]);
        assert_eq!(before, Load { busy: 120, total: 700, own: 55 });
        // Of 200 ticks more, 60 idle; of the other 140 this process had 90, and the host took 30.
        let after = load("cpu  200 0 30 540 100 0 0 30 9 9\ncpu0 1 2 3\n", [130, 15]);
        assert_eq!(before.others_until(after), Some(0.25));
        assert_eq!(before.others_until(before), None);
        assert_eq!(Load::of("cpu  1 2 3 4\n", "7 (a"), None);
        assert_eq!(Load::of("no line", "7 (a) S 1 2 3 4 5 6 7 8 9 10 1 1"), None);
    }

    #[test]
    fn this_process_is_not_others() {
        let Some(before) = Load::now() else {
            eprintln!("skipped: the system does not say");
            return;
        };
        let after = Load { busy: before.busy + 10, total: before.total + 20, own: before.own + 10 };
        assert_eq!(before.others_until(after), Some(0.0));
        assert!(Load::now().is_some_and(|now| now.own >= before.own && now.total >= before.total));
    }
}
