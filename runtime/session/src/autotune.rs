//! Tile sizes of attention by measurement: what a run takes instead of linc's own choice, if it asks for it.
//!
//! Each kernel of the model with tiles to choose runs by itself with each candidate on the run's device, in turn, until
//! the time is up. A size is taken only if it is clearly faster than linc's own, and winners are kept on disk. Sizes
//! change the order of sums: a run records its choice in checkpoints, and one that goes on from a checkpoint takes that.

mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use linc_device::{Arena, Device, Program};
use linc_driver::tiles::{Site, Tile, Tiles};
use linc_driver::{Target, Trial, trial};

pub use store::{Entry, Store};

/// Runs of each candidate at most and at least.
const ROUNDS: usize = 9;
const LEAST_ROUNDS: usize = 3;

/// The part of the default's time that a size must stay below to be taken: noise decides nothing.
const CLEARLY: f64 = 0.97;

/// What is told of measuring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told<'a> {
    /// What was chosen for a kernel, or for all, and why.
    Choice(&'a str),
    /// So many of the runs of candidates are done, of as many as there may be: the time may be up before.
    Runs {
        /// Those of kernels that are through, all of them among them.
        done: usize,
        /// Of all kernels.
        total: usize,
    },
}

/// Measures the sites for at most about `limit` and returns the sizes that won; `tell` hears how far it is, what was chosen and why.
/// What there is no time for, or no memory, stays as linc has it; so does what is left when `stop` is set.
pub fn tune(
    sites: &BTreeSet<Site>,
    device: &mut dyn Device,
    target: Target,
    limit: Duration,
    store: &Store,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(Told<'_>),
) -> Tiles {
    let mut tiles = Tiles::new();
    if limit.is_zero() {
        return tiles;
    }
    let end = Instant::now() + limit;
    let machine = format!("{}; {}", device.describe(), name(target));
    let mut open: Vec<(Site, Candidates, String)> = vec![];
    for site in sites {
        let candidates = candidates(site, target);
        let key = store::key(&machine, site, candidates.iter().map(|(_, trial)| &trial.plan));
        match store.get(site, &key, &site.candidates(target.into())) {
            Some(entry) => choose_measured(site, &entry, "measured before", target, &mut tiles, tell),
            None => open.push((*site, candidates, key)),
        }
    }
    let trials = open.iter().flat_map(|(_, candidates, _)| candidates).map(|(_, trial)| trial);
    let bytes = trials.map(|trial| trial.plan.arena_bytes()).max();
    let Some(bytes) = bytes else { return tiles };
    let arena = match device.allocate(bytes) {
        Ok(arena) => arena,
        Err(error) => {
            let why = format!("Tile sizes are linc's own: measuring them takes memory, {error}");
            tell(Told::Choice(&why));
            return tiles;
        }
    };
    let count = open.len();
    let runs = |candidates: &Candidates| candidates.len() * (1 + ROUNDS);
    let total = open.iter().map(|(_, candidates, _)| runs(candidates)).sum();
    let mut before = 0;
    for (done, (site, candidates, key)) in open.into_iter().enumerate() {
        // An equal part of what is left.
        let share = end.saturating_duration_since(Instant::now()) / (count - done) as u32;
        let mut ran = |own: usize| tell(Told::Runs { done: before + own, total });
        let found = measure(&candidates, device, arena, share, stop, &mut ran);
        before += runs(&candidates);
        tell(Told::Runs { done: before, total });
        match found {
            Some(entry) => {
                store.put(&site, &key, &entry);
                choose_measured(&site, &entry, "measured", target, &mut tiles, tell);
            }
            None if stop.load(Ordering::Relaxed) => break,
            None => {
                tell(Told::Choice(&format!("{site}: tiles are linc's own, there was no time to measure")));
            }
        }
    }
    tiles
}

/// Sizes with the programs that try them.
type Candidates = Vec<(Tile, Trial)>;

fn candidates(site: &Site, target: Target) -> Candidates {
    let tiles = site.candidates(target.into());
    tiles.into_iter().filter_map(|tile| Some((tile, trial(site, tile, target).ok()?))).collect()
}

/// Takes an entry's size if it is another than linc's own.
fn choose_measured(
    site: &Site,
    entry: &Entry,
    how: &str,
    target: Target,
    tiles: &mut Tiles,
    tell: &mut dyn FnMut(Told<'_>),
) {
    let Entry { tile, seconds, default_seconds } = *entry;
    let own = site.default_tile(target.into());
    let ms = |seconds: f64| format!("{:.3} ms", seconds * 1e3);
    if tile == own {
        tell(Told::Choice(&format!("{site}: tiles of {own} stay, {} ({how})", ms(default_seconds))));
        return;
    }
    tiles.insert(*site, tile);
    tell(Told::Choice(&format!(
        "{site}: tiles of {tile} take {} instead of {} with {own}, {:.2}x as fast ({how})",
        ms(seconds),
        ms(default_seconds),
        default_seconds / seconds
    )));
}

/// A candidate that runs.
struct LoadedTile<'a> {
    tile: Tile,
    trial: &'a Trial,
    program: Program,
    /// Of its fastest run.
    seconds: f64,
}

/// The fastest candidate, `ran` hears after how many runs of all; or nothing if the time does not suffice, `stop` is set, or linc's own choice cannot be run.
fn measure(
    candidates: &Candidates,
    device: &mut dyn Device,
    arena: Arena,
    share: Duration,
    stop: &AtomicBool,
    ran: &mut dyn FnMut(usize),
) -> Option<Entry> {
    let begun = Instant::now();
    let mut loaded: Vec<LoadedTile<'_>> = vec![];
    let mut runs = 0;
    for (tile, trial) in candidates {
        if stop.load(Ordering::Relaxed) {
            return None;
        }
        if begun.elapsed() > share / 2 {
            break;
        }
        runs += 1;
        ran(runs);
        // What a device refuses, for its registers or its shared memory, is no candidate there.
        let Ok(program) = device.load(&trial.plan, arena, 0) else { continue };
        let candidate = LoadedTile { tile: *tile, trial, program, seconds: f64::INFINITY };
        // The first run warms up.
        if time(&candidate, device).is_some() {
            loaded.push(candidate);
        }
    }
    let own = candidates.first()?.0;
    for round in 0..ROUNDS {
        if begun.elapsed() > share {
            if round < LEAST_ROUNDS {
                return None;
            }
            break;
        }
        for candidate in &mut loaded {
            if stop.load(Ordering::Relaxed) {
                return None;
            }
            candidate.seconds = candidate.seconds.min(time(candidate, device)?);
            runs += 1;
            ran(runs);
        }
    }
    let default_seconds = loaded.iter().find(|c| c.tile == own)?.seconds;
    let best = loaded.iter().min_by(|a, b| a.seconds.total_cmp(&b.seconds))?;
    let winner = if best.seconds < CLEARLY * default_seconds {
        (best.tile, best.seconds)
    } else {
        (own, default_seconds)
    };
    Some(Entry { tile: winner.0, seconds: winner.1, default_seconds })
}

/// Seconds of the site's kernel in one run, of all its launches.
fn time(candidate: &LoadedTile<'_>, device: &mut dyn Device) -> Option<f64> {
    let Trial { plan, steps } = candidate.trial;
    let mut times = vec![Duration::ZERO; plan.steps.len()];
    device.profile(candidate.program, &mut times).ok()?;
    let seconds: Duration = steps.iter().map(|step| times[*step]).sum();
    (seconds > Duration::ZERO).then_some(seconds.as_secs_f64())
}

/// Choices as a checkpoint records them: sizes by target and kernel.
pub fn record(tiles: &Tiles, target: Target) -> BTreeMap<String, String> {
    tiles.iter().map(|(site, tile)| (recorded_name(site, target), tile.to_string())).collect()
}

/// The recorded choices for the kernels that a run has.
///
/// # Errors
/// Says which size cannot be read.
pub fn recorded(
    record: &BTreeMap<String, String>,
    sites: &BTreeSet<Site>,
    target: Target,
) -> Result<Tiles, String> {
    let mut tiles = Tiles::new();
    for site in sites {
        if let Some(text) = record.get(&recorded_name(site, target)) {
            tiles.insert(*site, text.parse()?);
        }
    }
    Ok(tiles)
}

fn recorded_name(site: &Site, target: Target) -> String {
    format!("{} {site}", name(target))
}

fn name(target: Target) -> &'static str {
    match target {
        Target::Cpu => "cpu",
        Target::Cuda(arch) => arch.name(),
    }
}

#[cfg(test)]
mod tests {
    use linc_device::cpu::{Cpu, CpuOptions};
    use linc_driver::tiles::{DType, TunableKernel};

    use super::*;

    fn sites() -> BTreeSet<Site> {
        let site = |kernel| Site {
            kernel,
            dtype: DType::F32,
            batch: 1,
            seq: 64,
            heads: 2,
            kv_heads: 1,
            head_dim: 16,
            causal: true,
        };
        [TunableKernel::Forward, TunableKernel::Dq, TunableKernel::Dkdv].map(site).into()
    }

    fn tuned(seconds: f64, store: &Store) -> (Tiles, Vec<String>) {
        let mut cpu = Cpu::new(CpuOptions { threads: Some(1), level: None }).expect("a CPU");
        let mut said = vec![];
        let limit = Duration::from_secs_f64(seconds);
        let mut runs = vec![];
        let mut tell = |told: Told<'_>| match told {
            Told::Choice(text) => said.push(text.to_string()),
            Told::Runs { done, total } => runs.push((done, total)),
        };
        let tiles = tune(&sites(), &mut cpu, Target::Cpu, limit, store, &AtomicBool::new(false), &mut tell);
        assert!(runs.is_sorted(), "{runs:?}");
        assert!(runs.last().is_none_or(|(done, total)| done == total && *done > 0), "{runs:?}");
        (tiles, said)
    }

    #[test]
    fn winners_are_kept_and_a_damaged_one_is_measured_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::at(folder.path().to_path_buf());
        let (tiles, said) = tuned(60.0, &store);
        assert_eq!(said.len(), 3);
        assert!(said.iter().all(|text| text.ends_with("(measured)")), "{said:?}");
        for (site, tile) in &tiles {
            assert!(site.candidates(Target::Cpu.into())[1..].contains(tile), "{site} {tile}");
        }
        let (again, said) = tuned(60.0, &store);
        assert!(said.iter().all(|text| text.ends_with("(measured before)")), "{said:?}");
        assert_eq!(again, tiles);
        for entry in std::fs::read_dir(folder.path()).expect("entries") {
            std::fs::write(entry.expect("an entry").path(), "linc tiles 1\n").expect("written");
        }
        let (_, said) = tuned(60.0, &store);
        assert!(said.iter().all(|text| text.ends_with("(measured)")), "{said:?}");
    }

    #[test]
    fn without_time_nothing_is_chosen_or_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::at(folder.path().join("tiles"));
        assert_eq!(tuned(0.0, &store), (Tiles::new(), vec![]));
        let (tiles, said) = tuned(1e-9, &store);
        assert_eq!(tiles, Tiles::new());
        assert!(said.iter().all(|text| text.contains("no time")), "{said:?}");
        assert!(!folder.path().join("tiles").exists());
    }

    #[test]
    fn a_record_gives_back_the_choice_on_its_target_only() {
        let sites = sites();
        let tiles: Tiles = sites.iter().map(|site| (*site, Tile { queries: 128, keys: 32 })).collect();
        let mut saved = record(&tiles, Target::Cpu);
        assert_eq!(recorded(&saved, &sites, Target::Cpu), Ok(tiles));
        let gpu = Target::Cuda(linc_driver::Arch::Sm80);
        assert_eq!(recorded(&saved, &sites, gpu), Ok(Tiles::new()));
        for text in saved.values_mut() {
            *text = "128x33".into();
        }
        assert!(recorded(&saved, &sites, Target::Cpu).expect_err("an error").contains("128x33"));
    }
}
