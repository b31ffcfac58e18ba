//! What a report says of a program that is one rank's of several.

use linc_passes::mesh::{Mesh, MeshAxis};
use linc_plan::Plan;
use linc_plan::memory::peak;
use linc_plan::validate::validate_ranks;
use serde::Serialize;

use crate::error::CompileError;
use crate::model::Model;
use crate::{Entry, Options, compile, layout_for};

/// A rank among others, and what it exchanges with them in one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankReport {
    /// This rank, from 0.
    pub rank: usize,
    /// How many ranks there are.
    pub ranks: usize,
    /// How many have the whole optimizer, or the same part of it.
    pub data_parallel_replicate_degree: usize,
    /// How many share the optimizer's states out.
    pub data_parallel_shard_degree: usize,
    /// Exchanges by group.
    pub groups: Vec<GroupRow>,
}

/// What one run exchanges in a group.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupRow {
    /// The axis of the mesh along which it lies.
    pub name: String,
    /// Ranks of the group.
    pub members: usize,
    /// How often they exchange.
    pub exchanges: usize,
    /// What this rank sends to the others, and receives.
    pub bytes_sent: u64,
}

impl RankReport {
    /// Of a plan; nothing if its rank is alone.
    pub(crate) fn of(plan: &Plan, mesh: &Mesh) -> Option<RankReport> {
        let rows = plan.world.groups.iter().zip(plan.bytes_sent()).enumerate();
        let row = |(index, (group, bytes_sent)): (usize, (&linc_plan::Group, u64))| GroupRow {
            name: group.name.clone(),
            members: group.members.len(),
            exchanges: plan.exchanges().filter(|(_, exchange)| exchange.group == index).count(),
            bytes_sent,
        };
        (mesh.world() > 1).then(|| RankReport {
            rank: mesh.rank(),
            ranks: mesh.world(),
            data_parallel_replicate_degree: mesh.degree(MeshAxis::DataReplicate),
            data_parallel_shard_degree: mesh.degree(MeshAxis::DataShard),
            groups: rows.map(row).collect(),
        })
    }
}

/// Compiles a program as some of the other ranks have it, those beside this one along each axis and the last of all, and
/// checks that what they exchange fits; the least and the most memory of these ranks and this one, in bytes.
///
/// # Errors
/// As [`compile`]; [`CompileError::Plan`] where ranks would wait for each other in vain: a bug.
pub fn check_other_ranks(
    model: &Model,
    entry: &Entry,
    options: &Options,
    own: &Plan,
) -> Result<(u64, u64), CompileError> {
    let mesh = &options.mesh;
    let beside = mesh.axes().map(|(axis, _)| {
        let members: Vec<usize> = mesh.group(axis).members().collect();
        members[(mesh.group(axis).place + 1) % members.len()]
    });
    let mut others: Vec<usize> =
        beside.chain([mesh.world() - 1]).filter(|rank| *rank != mesh.rank()).collect();
    others.sort_unstable();
    others.dedup();
    let mut plans = vec![own.clone()];
    for rank in others {
        let options = Options { mesh: mesh.at(rank)?, dumps: false, ..options.clone() };
        plans.push(compile(model, entry, &options, &mut layout_for([entry]))?.plan);
    }
    validate_ranks(&plans)?;
    let bytes = plans.iter().map(|plan| peak(&[plan]).bytes);
    Ok(bytes.fold((u64::MAX, 0), |(least, most), bytes| (least.min(bytes), most.max(bytes))))
}
