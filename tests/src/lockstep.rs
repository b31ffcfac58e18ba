//! Runs the plans of all ranks in one thread: each up to its next exchange, and then the bytes that they exchange.

use linc_device::Device;
use linc_device::comm::sum_parts;
use linc_device::cpu::{Cpu, CpuOptions};
use linc_plan::{Action, Exchange, Movement, Plan, Ref, Space, World};

/// One rank's plan on a CPU of its own, with the bytes of its arena.
pub struct Rank {
    plan: Plan,
    cpu: Cpu,
    arena: linc_device::Arena,
    program: linc_device::Program,
}

impl Rank {
    /// An arena of zeros.
    ///
    /// # Panics
    /// If the plan does not load: the tests that ask for it cannot go on. So it is in all functions here.
    pub fn new(plan: &Plan) -> Rank {
        let options = CpuOptions { threads: Some(1), level: None };
        let mut cpu = Cpu::new(options).unwrap_or_else(|e| panic!("{e}"));
        let arena = cpu.allocate(plan.arena_bytes()).unwrap_or_else(|e| panic!("{e}"));
        // Exchanges are made here, so that for the machine there are no others.
        let mut alone = Plan { world: World::default(), ..plan.clone() };
        let persistent = plan.buffers.iter().position(|buffer| buffer.space == Space::Persistent);
        let at = Ref { buffer: persistent.unwrap_or(0), offset: 0 };
        for step in &mut alone.steps {
            if matches!(step.action, Action::Start { .. } | Action::Wait { .. }) {
                step.action = Action::Copy { from: at, to: at, bytes: 0 };
                step.label = "exchange".into();
            }
        }
        let program = cpu.load(&alone, arena, plan.persistent_bytes).unwrap_or_else(|e| panic!("{e}"));
        Rank { plan: plan.clone(), cpu, arena, program }
    }

    fn address(&self, at: Ref) -> u64 {
        let buffer = &self.plan.buffers[at.buffer];
        let part = if buffer.space == Space::Scratch { self.plan.persistent_bytes } else { 0 };
        part + buffer.offset + at.offset
    }

    /// Writes bytes to a place.
    pub fn write(&mut self, at: Ref, bytes: &[u8]) {
        let address = self.address(at);
        self.cpu.write(self.arena, address, bytes).unwrap_or_else(|e| panic!("{e}"));
    }

    /// Bytes from a place on.
    pub fn read(&self, at: Ref, bytes: u64) -> Vec<u8> {
        let mut found = vec![0; bytes as usize];
        self.cpu.read(self.arena, self.address(at), &mut found).unwrap_or_else(|e| panic!("{e}"));
        found
    }

    fn launch(&mut self, steps: std::ops::Range<usize>) {
        self.cpu.launch(self.program, steps).unwrap_or_else(|e| panic!("{e}"));
    }
}

/// Runs the plans of all ranks of a world once.
pub fn run(ranks: &mut [Rank]) {
    let exchanges: Vec<Vec<(usize, Exchange)>> = ranks
        .iter()
        .map(|rank| rank.plan.exchanges().map(|(step, exchange)| (step, exchange.clone())).collect())
        .collect();
    let mut done = vec![0; ranks.len()];
    for number in 0..exchanges[0].len() {
        for (rank, of_rank) in exchanges.iter().enumerate() {
            let step = of_rank[number].0;
            ranks[rank].launch(done[rank]..step);
            done[rank] = step;
        }
        exchange(ranks, &exchanges.iter().map(|of_rank| of_rank[number].1.clone()).collect::<Vec<_>>());
    }
    for (rank, done) in ranks.iter_mut().zip(done) {
        rank.launch(done..rank.plan.steps.len());
    }
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> + '_ {
    bytes.as_chunks().0.iter().map(|x| f32::from_le_bytes(*x))
}

/// What all ranks exchange, each in its group.
fn exchange(ranks: &mut [Rank], exchanges: &[Exchange]) {
    let sent: Vec<Vec<u8>> = ranks
        .iter()
        .zip(exchanges)
        .map(|(rank, exchange)| {
            let extents = exchange.extents(rank.plan.members(exchange)).unwrap_or_default();
            rank.read(exchange.from, extents.0)
        })
        .collect();
    for (rank, exchange) in ranks.iter_mut().zip(exchanges) {
        let members = &rank.plan.world.groups[exchange.group].members;
        let me = members.iter().position(|member| *member == rank.plan.world.rank).unwrap_or(0);
        let part = exchange.part_bytes as usize;
        let received: Vec<u8> = match exchange.movement {
            Movement::AllGather => members.iter().flat_map(|member| sent[*member].clone()).collect(),
            Movement::AllToAll => {
                members.iter().flat_map(|member| sent[*member][me * part..(me + 1) * part].to_vec()).collect()
            }
            Movement::AllReduce | Movement::ReduceScatter => {
                let start = if exchange.movement == Movement::AllReduce { 0 } else { me * part };
                let parts = members.iter().flat_map(|member| floats(&sent[*member][start..start + part]));
                let mut sum = vec![0.0; part / size_of::<f32>()];
                sum_parts(&parts.collect::<Vec<_>>(), &mut sum);
                sum.iter().flat_map(|x| x.to_le_bytes()).collect()
            }
        };
        rank.write(exchange.to, &received);
    }
}
