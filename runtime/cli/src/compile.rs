//! `linc compile`: the pipeline without running anything.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, anyhow, bail};
use linc_config::{ModelFiles, Setting, nearest};
use linc_device::process;
use linc_device::words::{bytes, count, thousands};
use linc_driver::{
    BatchShape, Blocks, CompileError, Compiled, Entry, MemoryLimit, Mesh, MeshAxis, Mixed, Model,
    OptimizerOptions, Options, PassSetting, PassTime, PersistentLayout, RankReport, Ratio, RecomputeMode,
    RecomputePolicy, Report, Room, Source, Target,
};
use linc_session::output::write_files;

use crate::args::{CompileArgs, Format, LayerArgs, RecomputeArgs, WorldArgs};
use crate::cuda;
use crate::fit;
use crate::out;
use crate::shipped::SHIPPED;
use crate::table::{flops, table};
use crate::wrap::wrapped;

pub(crate) fn run(args: &CompileArgs) -> Result<ExitCode> {
    let begun = process::seconds();
    let mut options = options(&args.layers)?;
    let model = open(&args.model, &args.layers)?;
    options.recompute = recompute(&args.recompute)?;
    options.disabled = args.disable_pass.iter().cloned().collect();
    options.dumps = args.out.is_some() || args.dump.is_some();
    let arch = cuda::arch(&args.target, args.arch.as_deref())?;
    options.target = arch.map_or(Target::Cpu, Target::Cuda);
    let entry = entry(&args.entry, &args.layers, &model, options.target)?;
    options.mesh = mesh(&args.world)?;
    // As `linc generate` has them.
    options.narrow_weights = matches!(entry, Entry::Prefill { .. } | Entry::Decode(_));
    if args.modes || args.fit.is_some() {
        return fit::run(args, &model, &entry, &options);
    }
    let compiled = linc_driver::compile(&model, &entry, &options, &mut PersistentLayout::default())?;
    if let Some(pass) = &args.dump {
        return print_dump(&compiled, pass);
    }
    let others = (options.mesh.world() > 1)
        .then(|| linc_driver::check_other_ranks(&model, &entry, &options, &compiled.plan))
        .transpose()?;
    let gpu = arch.map(|arch| cuda::compile(&compiled.plan, &entry, arch, args.out.is_some())).transpose()?;
    let mut files = 0;
    if let Some(folder) = &args.out {
        let code = gpu.as_ref().map_or(&[][..], |gpu| &gpu.inspection.files);
        let names: Vec<String> = code.iter().map(|(name, _)| format!("kernels/{name}")).collect();
        let dumps = compiled.dumps.iter().map(|dump| (&*dump.path, dump.text.as_bytes()));
        let code = names.iter().zip(code).map(|(path, (_, bytes))| (&**path, &**bytes));
        let all: Vec<(&str, &[u8])> = dumps.chain(code).collect();
        write_files(folder, &all)?;
        files = all.len();
    }
    match args.format {
        Format::Json => {
            let mut report = serde_json::to_value(&compiled.report)?;
            if let Some(gpu) = &gpu {
                report["cuda"] = gpu.json()?;
            }
            out::line(serde_json::to_string_pretty(&report)?)?;
        }
        Format::Text => {
            let report = &compiled.report;
            let exchanges = report.ranks.as_ref().zip(others).map(|(ranks, memory)| exchanges(ranks, memory));
            out::line(card(&model, report, exchanges))?;
            if let Some(gpu) = &gpu {
                let report = &compiled.report;
                let training = matches!(entry, Entry::Train(_));
                let convention = training
                    .then(|| report.titan_flops_per_token as f64 / report.flops_per_token.max(1) as f64);
                out::line(format_args!("\n{}", gpu.text(convention)))?;
            }
            out::line(format_args!("\n{}", passes(&compiled.report)))?;
            out::line(format_args!("\nCompiled in {:.2} s", process::seconds() - begun))?;
            if let Some(folder) = &args.out {
                out::line(format_args!("Wrote {} to {}", count(files, "file"), folder.display()))?;
            }
            if let Some(missing) = gpu.as_ref().and_then(|gpu| gpu.missing()) {
                out::line(format_args!("\n{missing}"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The first rank of a mesh.
fn mesh(args: &WorldArgs) -> Result<Mesh> {
    let Some(world) = args.world else { return Ok(Mesh::default()) };
    let asked = args.data_parallel_shard_degree;
    let shard = if asked == -1 { Some(world) } else { usize::try_from(asked).ok() };
    let Some(shard) = shard.filter(|shard| *shard > 0 && world.is_multiple_of(*shard)) else {
        bail!(
            "--data-parallel-shard-degree is {asked}, and --world is {world}; expected a number that divides it\n  \
             help: -1 shares the optimizer out to all ranks, 1 gives each all of it"
        )
    };
    let degrees = [(MeshAxis::DataReplicate, world / shard), (MeshAxis::DataShard, shard)];
    Ok(Mesh::new(0, &degrees)?)
}

/// The lines of a rank among others.
fn exchanges(ranks: &RankReport, (least, most): (u64, u64)) -> Vec<String> {
    let RankReport { data_parallel_replicate_degree: replicate, data_parallel_shard_degree: shard, .. } =
        ranks;
    let optimizer = match shard {
        1 => "each has the whole optimizer".to_string(),
        _ if *replicate == 1 => "all share the optimizer's states".to_string(),
        _ => format!("{shard} share the optimizer's states, of which there are {replicate} copies"),
    };
    let (least, most) = (bytes(least), bytes(most));
    let memory = if least == most { most } else { format!("{least} to {most}") };
    let mut lines =
        vec![format!("Ranks       {} that share batches; {optimizer}; {memory} each", ranks.ranks)];
    lines.extend(ranks.groups.iter().map(|group| {
        let exchanges = count(group.exchanges, "exchange");
        format!(
            "Exchanges   {} of {}: {exchanges} a step, {} sent",
            group.name,
            group.members,
            bytes(group.bytes_sent)
        )
    }));
    lines
}

/// Opens a model file with the layers that the command line asks for.
pub(crate) fn open(path: &Path, layers: &LayerArgs) -> Result<Model> {
    let files = ModelFiles::read(path, &SHIPPED)?;
    let mut overrides = vec![];
    for text in &layers.set {
        let Some(pair) = text.split_once('=').and_then(|(key, value)| Some((key, number(value.trim())?)))
        else {
            bail!("--set is \"{text}\"; expected key=number or key=true\n  help: such as --set n_layers=4")
        };
        overrides.push((pair.0.trim().to_string(), pair.1));
    }
    let source =
        |path: &Path, text: &str| Source { path: path.display().to_string(), text: text.to_string() };
    let ratio = layers.ratio.as_deref().map(ratio).transpose()?;
    let shape = BatchShape { batch: layers.batch_size, seq: layers.seq_len };
    let model = Model::new(
        &source(&files.model_path, &files.model_text),
        &source(&files.architecture_path, &files.architecture_text),
        &overrides,
        ratio,
        layers.placement.parse()?,
        shape,
    );
    model.map_err(|error| match error {
        CompileError::Override { ref key, .. } => {
            let is_it = |text: &&String| text.split_once('=').is_some_and(|(name, _)| name.trim() == key);
            match layers.set.iter().rfind(is_it) {
                Some(text) => anyhow!("command line: `--set {text}`: {error}"),
                None => error.into(),
            }
        }
        CompileError::Pass(error) => {
            let ratio = layers.ratio.as_ref().map_or(String::new(), |ratio| format!("--ratio {ratio} "));
            anyhow!("command line: `{ratio}--placement {}`: {error}", layers.placement)
        }
        CompileError::Model(errors) if !layers.set.is_empty() => {
            let set: Vec<String> = layers.set.iter().map(|text| format!("`--set {text}`")).collect();
            CompileError::Model(errors.noting(format!("numbers are overridden by {}", set.join(", ")))).into()
        }
        other => other.into(),
    })
}

/// The value of `--ratio`.
pub(crate) fn ratio(text: &str) -> Result<Ratio> {
    Ratio::from_text(text.trim()).map_err(|error| {
        let help = "the share of layers that are linear: 0.75 for three of four, 1 for all";
        anyhow!("command line: `--ratio {text}`: {error}\n  help: {help}")
    })
}

/// A number, or a flag as the number that it stands for.
fn number(text: &str) -> Option<f64> {
    match text {
        "true" => Some(1.0),
        "false" => Some(0.0),
        _ => text.parse().ok(),
    }
}

/// Compiler options for a batch shape.
pub(crate) fn options(layers: &LayerArgs) -> Result<Options> {
    let mut options = Options::new(layers.batch_size, layers.seq_len);
    options.precision = pass_setting(&layers.precision)?;
    options.clock = Some(process::seconds);
    Ok(options)
}

/// What the backward recomputes.
pub(crate) fn recompute(args: &RecomputeArgs) -> Result<RecomputePolicy> {
    let mode: RecomputeMode = pass_setting(&args.recompute)?;
    if args.selective_layers.is_some() && mode != RecomputeMode::Selective {
        bail!("--selective-layers belongs to --recompute selective, and it is {}", mode.name())
    }
    if args.memory_budget != MemoryLimit::default() && mode != RecomputeMode::MemoryBudget {
        bail!("--memory-budget belongs to --recompute memory_budget, and it is {}", mode.name())
    }
    Ok(RecomputePolicy::of(mode, args.selective_layers, args.memory_budget))
}

/// The value of a pass setting, as in a config.
pub(crate) fn pass_setting<T: PassSetting + Setting>(word: &str) -> Result<T> {
    match T::from_text(word) {
        Ok(value) => Ok(value),
        Err(message) => {
            let message = message.replacen("; the nearest is ", "\n  help: did you mean ", 1);
            let end = if message.contains("help: ") { "?" } else { "" };
            bail!("--{} is \"{word}\": {message}{end}", T::NAME)
        }
    }
}

/// The words that were expected instead of one, with the nearest of them.
pub(crate) fn one_of(word: &str, words: &[&str]) -> String {
    let near = nearest(word, words.iter().copied());
    let help = near.map_or_else(String::new, |near| format!("\n  help: did you mean {near}?"));
    format!("{}{help}", words.join(", "))
}

/// The program of that name, with the optimizer's defaults.
pub(crate) fn entry(name: &str, layers: &LayerArgs, model: &Model, target: Target) -> Result<Entry> {
    let context = layers.seq_len;
    Ok(match name {
        "train" => Entry::Train(OptimizerOptions::default()),
        "eval" => Entry::Eval,
        "forward" => Entry::Forward,
        "score" => Entry::Score { context },
        "look" => Entry::Look { context },
        "decode" => Entry::Decode(Room { slots: layers.batch_size, context }),
        "prefill" => {
            // Without blocks, the compiler says why there are none.
            let blocks = linc_driver::prompt_blocks(model, target, context);
            let Blocks { tokens, context } = blocks.unwrap_or(Blocks { tokens: 1, context });
            Entry::Prefill { room: Room { slots: layers.batch_size, context }, tokens }
        }
        other => {
            let align = Mixed::Align(OptimizerOptions::default());
            let mixed = [Mixed::Logits, Mixed::Divergence, Mixed::Gradients, align];
            if let Some(mixed) = mixed.iter().find(|mixed| mixed.name() == other) {
                return Ok(Entry::Mixed(mixed.clone()));
            }
            let plain = ["train", "eval", "forward", "score", "look", "prefill", "decode"];
            let words: Vec<&str> = plain.into_iter().chain(mixed.iter().map(Mixed::name)).collect();
            bail!("--entry is \"{other}\"; expected {}", one_of(other, &words))
        }
    })
}

fn print_dump(compiled: &Compiled, pass: &str) -> Result<ExitCode> {
    match compiled.graph_after(pass) {
        Some(graph) => {
            out::line(graph.trim_end())?;
            Ok(ExitCode::SUCCESS)
        }
        None => {
            let passes = compiled.report.passes.iter().map(|time| time.pass.as_str());
            let passes: Vec<&str> = passes.filter(|pass| compiled.graph_after(pass).is_some()).collect();
            bail!("--dump is \"{pass}\"; expected {}", one_of(pass, &passes))
        }
    }
}

/// What `linc compile` prints: parameters, layers, FLOPs, memory and passes, a line each.
pub(crate) fn card(model: &Model, report: &Report, ranks: Option<Vec<String>>) -> String {
    let mut lines = vec![
        format!(
            "Model       {} ({} program, batch {} x {}, {})",
            report.model,
            report.entry,
            report.batch,
            count(report.seq, "token"),
            report.precision
        ),
        format!("Parameters  {}", thousands(report.params)),
        format!("Layers      {}", report.layer_map),
        format!("Linear      ratio {}, {}", model.share_text(), model.placement),
        format!(
            "FLOPs       {} per token ({} in TorchTitan's convention)",
            flops(report.flops_per_token),
            flops(report.titan_flops_per_token)
        ),
        format!(
            "Peak memory {}, {:.2} times the {} in use at the fullest step",
            bytes(report.peak_bytes),
            report.peak_bytes as f64 / report.floor_bytes.max(1) as f64,
            bytes(report.floor_bytes)
        ),
    ];
    lines.extend(ranks.into_iter().flatten());
    if report.recomputed.kept_bytes > 0 {
        let again = report.recomputed.recomputed_flops as f64;
        let all = (report.flops_per_token * (report.batch * report.seq) as u64).max(1) as f64;
        let kept = bytes(report.recomputed.kept_bytes);
        lines.push(format!(
            "Recompute   {}: {:.1} % of the operations again, {kept} kept for the backward",
            report.recompute,
            100.0 * again / all
        ));
    }
    let parts = report.memory.iter().filter(|(_, n)| **n > 0);
    lines.extend(parts.map(|(category, n)| format!("  {category:16} {:>12}", bytes(*n))));
    // Where the optimizer sets the peak, activations are gone.
    let kept = report.kept_memory.iter().filter(|(category, n)| **n > report.memory[*category]);
    lines.extend(kept.map(|(category, n)| format!("  {category:16} {:>12} at their own peak", bytes(*n))));
    let rows: Vec<Vec<String>> = report
        .kernels
        .iter()
        .map(|k| vec![k.name.clone(), k.launches.to_string(), flops(k.flops), bytes(k.bytes)])
        .collect();
    let mut lines = vec![wrapped(&lines.join("\n"), out::width())];
    lines.push(format!("\n{}", table(&["kernel", "launches", "FLOPs", "bytes"], &rows)));
    lines.join("\n")
}

/// Time and graph size per pass.
fn passes(report: &Report) -> String {
    let row = |p: &PassTime| vec![p.pass.clone(), format!("{:.1} ms", 1e3 * p.seconds), p.nodes.to_string()];
    table(&["pass", "time", "nodes"], &report.passes.iter().map(row).collect::<Vec<_>>())
}
