//! What memory some programs take together, and at which moment: those of one training step share an arena.

use crate::{Category, Plan, Space};

/// The memory of one or more programs of one arena.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Peak {
    /// Bytes of the arena: every persistent tensor once, and the scratch of the program that needs most.
    pub bytes: u64,
    /// Bytes by category, all categories, at the step of a program at which most is in use; persistent tensors of all
    /// programs once. The sum is `bytes` without gaps between buffers.
    pub categories: Vec<(Category, u64)>,
    /// Bytes of what is kept from the forward for the backward, [`Category::Activations`] and [`Category::Attention`], at
    /// the step at which that is most. It is gone where the optimizer sets the peak.
    pub kept: Vec<(Category, u64)>,
}

impl Peak {
    /// Bytes below which no placing of the buffers can go: what is in use at the step at which most is, without gaps. Weights,
    /// moments and gradients are in it as they are, and of activations those that must live then.
    pub fn floor(&self) -> u64 {
        self.categories.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// The memory of programs that share their persistent tensors, which lie at the same offsets in all of them.
pub fn peak(plans: &[&Plan]) -> Peak {
    let persistent = persistent(plans);
    let any = |_: Category| true;
    let at_peak = plans.iter().map(|plan| largest(plan, any)).max_by_key(total).unwrap_or_default();
    let kept = plans.iter().map(|plan| largest(plan, is_kept)).max_by_key(total).unwrap_or_default();
    let scratch = plans.iter().map(|plan| plan.scratch_bytes).max().unwrap_or(0);
    let in_use = |category: Category| bytes_of(&persistent, category) + bytes_of(&at_peak, category);
    Peak {
        bytes: plans.iter().map(|plan| plan.persistent_bytes).max().unwrap_or(0) + scratch,
        categories: Category::ALL.iter().map(|category| (*category, in_use(*category))).collect(),
        kept: Category::ALL
            .into_iter()
            .filter(|category| is_kept(*category))
            .map(|category| (category, bytes_of(&kept, category)))
            .collect(),
    }
}

/// True for what the forward leaves to the backward.
fn is_kept(category: Category) -> bool {
    matches!(category, Category::Activations | Category::Attention)
}

/// Bytes by category.
type Sums = Vec<(Category, u64)>;

fn bytes_of(sums: &Sums, category: Category) -> u64 {
    sums.iter().filter(|(c, _)| *c == category).map(|(_, bytes)| bytes).sum()
}

fn total(sums: &Sums) -> u64 {
    sums.iter().map(|(_, bytes)| bytes).sum()
}

/// Persistent bytes by category. What is one range in one program may be several in another.
fn persistent(plans: &[&Plan]) -> Sums {
    let buffers = plans.iter().flat_map(|plan| &plan.buffers).filter(|b| b.space == Space::Persistent);
    let mut ranges: Vec<(u64, u64, Category)> =
        buffers.map(|b| (b.offset, b.offset + b.bytes, b.category)).collect();
    ranges.sort_unstable();
    let mut end = 0;
    ranges
        .into_iter()
        .map(|(start, stop, category)| {
            let new = stop.saturating_sub(start.max(end));
            end = end.max(stop);
            (category, new)
        })
        .collect()
}

/// Scratch in use by category at the step at which the wanted categories take most.
fn largest(plan: &Plan, wanted: impl Fn(Category) -> bool) -> Sums {
    let buffers = || plan.buffers.iter().filter(|b| b.space == Space::Scratch && wanted(b.category));
    let mut changes: Vec<i64> = vec![0; plan.steps.len() + 2];
    for b in buffers() {
        changes[b.live.0] += b.bytes as i64;
        changes[b.live.1 + 1] -= b.bytes as i64;
    }
    let (mut now, mut most, mut peak) = (0, 0, 0);
    for (step, change) in changes.iter().enumerate() {
        now += change;
        if now > most {
            (most, peak) = (now, step);
        }
    }
    buffers().filter(|b| b.live.0 <= peak && peak <= b.live.1).map(|b| (b.category, b.bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Action, Buffer, Ref, Step};

    /// Part, offset, size, category and lifetime of a buffer.
    type Row = (Space, u64, u64, Category, (usize, usize));

    fn plan(steps: usize, buffers: &[Row]) -> Plan {
        let buffer = |(space, offset, bytes, category, live): &Row| {
            let (space, category, live) = (*space, *category, *live);
            Buffer { name: "b".into(), space, offset: *offset, bytes: *bytes, category, live }
        };
        let at = Ref { buffer: 0, offset: 0 };
        let step = Step {
            action: Action::Copy { from: at, to: at, bytes: 0 },
            label: "s".into(),
            flops: 0,
            bytes: 0,
        };
        let end =
            |space: Space| buffers.iter().filter(|b| b.0 == space).map(|b| b.1 + b.2).max().unwrap_or(0);
        Plan {
            name: "p".into(),
            persistent_bytes: end(Space::Persistent),
            scratch_bytes: end(Space::Scratch),
            buffers: buffers.iter().map(buffer).collect(),
            kernels: vec![],
            steps: vec![step; steps],
            bindings: vec![],
            world: crate::World::default(),
        }
    }

    fn bytes(sums: &Sums) -> Vec<(&'static str, u64)> {
        sums.iter().filter(|(_, bytes)| *bytes > 0).map(|(c, bytes)| (c.name(), *bytes)).collect()
    }

    #[test]
    fn persistent_tensors_of_several_programs_count_once() {
        use Category::{Activations, Gradients, OptimizerState, Parameters, Workspace};
        use Space::{Persistent, Scratch};
        // Weights in two ranges, gradients in one; 50 bytes at most.
        let batch = plan(
            3,
            &[
                (Persistent, 0, 60, Parameters, (0, 0)),
                (Persistent, 60, 40, Parameters, (0, 0)),
                (Persistent, 100, 100, Gradients, (0, 0)),
                (Scratch, 0, 30, Activations, (0, 1)),
                (Scratch, 30, 20, Workspace, (1, 2)),
            ],
        );
        // The same in one range, with moments, and a little workspace.
        let update = plan(
            1,
            &[
                (Persistent, 0, 100, Parameters, (0, 0)),
                (Persistent, 100, 100, Gradients, (0, 0)),
                (Persistent, 200, 200, OptimizerState, (0, 0)),
                (Scratch, 0, 8, Workspace, (0, 0)),
            ],
        );
        for plans in [[&batch, &update], [&update, &batch]] {
            let peak = peak(&plans);
            assert_eq!((peak.bytes, peak.floor()), (400 + 50, 400 + 50));
            let expected = [
                ("parameters", 100),
                ("optimizer_state", 200),
                ("gradients", 100),
                ("activations", 30),
                ("workspace", 20),
            ];
            assert_eq!(bytes(&peak.categories), expected);
            assert_eq!(bytes(&peak.kept), [("activations", 30)]);
        }
    }

    #[test]
    fn what_is_kept_has_a_peak_of_its_own() {
        use Category::{Activations, Attention, Gradients, Workspace};
        let space = Space::Scratch;
        let plan = plan(
            4,
            &[
                (space, 0, 30, Activations, (0, 2)),
                (space, 30, 10, Attention, (1, 1)),
                (space, 40, 25, Attention, (2, 2)),
                (space, 30, 60, Workspace, (3, 3)),
                (space, 90, 30, Gradients, (3, 3)),
            ],
        );
        let peak = peak(&[&plan]);
        assert_eq!(bytes(&peak.categories), [("gradients", 30), ("workspace", 60)]);
        assert_eq!(bytes(&peak.kept), [("activations", 30), ("attention", 25)]);
        assert_eq!(super::peak(&[]).bytes, 0);
    }
}
