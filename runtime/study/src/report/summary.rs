//! What the numbers show, in sentences: no more than they do.

use linc_device::words::{bytes, count, thousands};

use super::collect::Collected;
use super::figures::label;
use crate::results::Point;
use crate::statistics::Mean;
use crate::sweep::{Metric, Status};

/// From so many comparisons on, some differ by chance.
const MANY: usize = 5;
/// Points of which the difference to the first is said one by one.
const SAID: usize = 12;

/// What runs are compared by, in words.
pub(super) fn shown_metric(metric: Metric) -> &'static str {
    match metric {
        Metric::ValidationLoss => "validation loss, nats per token",
        Metric::ValidationAccuracy => "share of recall queries answered right",
        Metric::TrainingLoss => "training loss of the last tenth of the steps, nats per token",
    }
}

/// Which way is better.
pub(super) fn better(metric: Metric) -> &'static str {
    match metric {
        Metric::ValidationLoss | Metric::TrainingLoss => "less is better",
        Metric::ValidationAccuracy => "more is better",
    }
}

/// `mean ± half of its interval's width`, to four digits.
pub(super) fn interval(mean: Mean) -> String {
    match mean.half_width {
        Some(half) => format!("{:.4} ± {half:.4}", mean.mean),
        None => format!("{:.4}", mean.mean),
    }
}

/// The sentences of the summary.
pub(super) fn sentences(collected: &Collected, points: &[Point]) -> Vec<String> {
    let of = |status: Option<Status>| collected.results.iter().filter(|run| run.status == status).count();
    let (finished, failed) = (of(Some(Status::Finished)), of(Some(Status::Failed)));
    let all = collected.results.len();
    let mut first = format!("{}: {finished} finished", count(all, "run"));
    if failed > 0 {
        first.push_str(&format!(", {failed} failed"));
    }
    let early = collected.results.iter().filter(|run| run.is_early).count();
    if early > 0 {
        first.push_str(&format!(", {early} of them ended early by the sweep and not compared"));
    }
    if finished + failed < all {
        first.push_str(&format!(", {} not done", all - finished - failed));
    }
    let mut sentences = vec![format!("{first}. What is compared is the {}.", shown_metric(collected.metric))];
    sentences.extend(best(collected.metric, points));
    sentences.extend(against_first(points));
    sentences.extend(fastest(points));
    sentences.extend(largest(points));
    sentences
}

fn best(metric: Metric, points: &[Point]) -> Option<String> {
    let mut measured: Vec<(&Point, Mean)> =
        points.iter().filter_map(|point| Some((point, point.value?))).collect();
    measured.sort_by(|a, b| match metric {
        Metric::ValidationLoss | Metric::TrainingLoss => a.1.mean.total_cmp(&b.1.mean),
        Metric::ValidationAccuracy => b.1.mean.total_cmp(&a.1.mean),
    });
    let ((best, value), (worst, other)) = (measured.first()?, measured.last()?);
    if measured.len() < 2 {
        return Some(format!("{}: {}.", label(&best.values), interval(*value)));
    }
    let shown = |point: &Point, value: Mean| match point.failed {
        0 => format!("{}, {}", label(&point.values), interval(value)),
        failed => format!("{}, {} ({failed} failed beside them)", label(&point.values), interval(value)),
    };
    Some(format!(
        "The best mean is that of {}; the worst that of {}.",
        shown(best, *value),
        shown(worst, *other)
    ))
}

/// Which differences to the first point the seeds show.
fn against_first(points: &[Point]) -> Vec<String> {
    let Some((first, rest)) = points.split_first() else { return vec![] };
    let paired: Vec<(&Point, Mean, f64)> = rest
        .iter()
        .filter_map(|point| {
            let difference = point.difference?;
            Some((point, difference, difference.half_width?))
        })
        .collect();
    if paired.is_empty() {
        let single = rest.iter().any(|point| point.difference.is_some());
        let no_interval =
            "There is one seed of each, so that nothing says how much another seed would change.";
        return if single { vec![no_interval.to_owned()] } else { vec![] };
    }
    let (shown, not): (Vec<_>, Vec<_>) = paired.iter().partition(|(_, mean, half)| mean.mean.abs() > *half);
    let name = label(&first.values);
    let mut sentences: Vec<String> = shown
        .iter()
        .take(SAID)
        .map(|(point, mean, half)| {
            let way = if mean.mean > 0.0 { "more" } else { "less" };
            format!(
                "{} has {:.4} ± {half:.4} {way} than {name}, seed by seed.",
                label(&point.values),
                mean.mean.abs()
            )
        })
        .collect();
    if !not.is_empty() {
        let names: Vec<String> = not.iter().take(SAID).map(|(point, ..)| label(&point.values)).collect();
        sentences.push(format!("The seeds show no difference to {name} of: {}.", names.join("; ")));
    }
    if paired.len() >= MANY && !shown.is_empty() {
        sentences.push(format!(
            "These are {} comparisons at 95 % each: of so many, about {:.0} would seem to differ by chance alone.",
            paired.len(),
            (paired.len() as f64 / 20.0).ceil()
        ));
    }
    sentences
}

fn fastest(points: &[Point]) -> Option<String> {
    let mut speeds: Vec<(&Point, f64)> =
        points.iter().filter_map(|point| Some((point, point.speed?))).collect();
    speeds.sort_by(|a, b| b.1.total_cmp(&a.1));
    let ((fast, most), (slow, least)) = (speeds.first()?, speeds.last()?);
    (speeds.len() > 1 && *least > 0.0).then(|| {
        format!(
            "{} trained fastest, {} tokens a second, {:.2} times as fast as {}.",
            label(&fast.values),
            thousands(most.round() as u64),
            most / least,
            label(&slow.values)
        )
    })
}

fn largest(points: &[Point]) -> Option<String> {
    let memory = || points.iter().filter_map(|point| Some((point, point.memory?)));
    let (least, most) = (memory().min_by_key(|(_, n)| *n)?, memory().max_by_key(|(_, n)| *n)?);
    Some(match least.1 == most.1 {
        true => format!("A step takes {} in all of them.", bytes(most.1)),
        false => format!(
            "A step takes from {} ({}) to {} ({}).",
            bytes(least.1),
            label(&least.0.values),
            bytes(most.1),
            label(&most.0.values)
        ),
    })
}
