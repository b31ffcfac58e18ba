//! Any tile size that a measurement may choose computes the same attention.

use std::collections::{BTreeMap, BTreeSet};

use linc_driver::tiles::{DType, Site, Tile, Tiles, TunableKernel};
use linc_driver::{Arch, Compiled, Options, PassSetting, Precision, Target, Trial, names, trial};
use linc_ir::interp::run;
use linc_plan::{Action, Kernel, Plan};
use linc_tests::models::{compiled, sized, training};
use linc_tests::reference::{bindings, distance, doubles, gradients, norm};

const VOCAB: usize = 32;

/// Two layers of softmax attention over more than two tiles of 64 rows, ragged at the end.
fn program(precision: Precision, tiles: Tiles) -> Compiled {
    let numbers = [
        ("dim", 32.0),
        ("n_layers", 2.0),
        ("n_heads", 4.0),
        ("n_kv_heads", 2.0),
        ("vocab_size", VOCAB as f64),
        ("multiple_of", 8.0),
    ];
    let options = Options { precision, tiles, dumps: true, ..Options::new(1, 150) };
    compiled(&sized("nano", &numbers, "0"), &training(), &options)
}

/// All combinations would be many; each size of each kernel appears once.
fn choices(sites: impl IntoIterator<Item = Site> + Clone, target: Target) -> Vec<Tiles> {
    let of = |site: &Site| site.candidates(target.into());
    let most = sites.clone().into_iter().map(|site| of(&site).len()).max().expect("a site");
    let choice = |site: Site, i: usize| -> (Site, Tile) {
        let all = of(&site);
        (site, all[(i + site.kernel as usize) % all.len()])
    };
    (0..most).map(|i| sites.clone().into_iter().map(|site| choice(site, i)).collect()).collect()
}

#[test]
fn every_candidate_gives_the_gradients_of_the_interpreter() {
    let plain = program(Precision::Float32, Tiles::new());
    let text = plain.graph_after("memory").expect("the last graph");
    let graph = linc_ir::parse(text).unwrap_or_else(|e| panic!("{e}"));
    let at = bindings(&graph, VOCAB, 5, false);
    let exact = doubles(&run::<f64>(&graph, &at).unwrap_or_else(|e| panic!("{e}")));
    let error = |plan: &Plan| -> BTreeMap<String, f64> {
        let found: BTreeMap<String, Vec<f64>> = linc_tests::compiled::run(plan, &at, 2);
        let off = (found[names::LOSS][0] - exact[names::LOSS][0]).abs();
        assert!(off < 1e-5, "the loss is off by {off}");
        let (found, exact) = (gradients(&found), gradients(&exact));
        let off = |(name, exact): (&&str, &Vec<f64>)| {
            (name.to_string(), distance(&found[*name], exact) / norm(exact))
        };
        exact.iter().map(off).collect()
    };
    let default = error(&plain.plan);
    let mut kernels = BTreeSet::new();
    for tiles in choices(plain.sites.clone(), Target::Cpu) {
        let plan = program(Precision::Float32, tiles.clone()).plan;
        kernels.extend(plan.kernels.iter().map(|k| k.name.clone()).filter(|n| n.contains("_attention_d")));
        for (name, off) in error(&plan) {
            assert!(off < 4.0 * default[&name] + 1e-6, "{tiles:?}: {name} is off by {off}");
        }
    }
    // Nine of dq, nine of dkdv, and delta, which has nothing to choose.
    assert_eq!(kernels.len(), 19, "{kernels:?}");
}

#[test]
fn a_choice_changes_its_kernel_only() {
    let plain = program(Precision::Float32, Tiles::new());
    let site = *plain.sites.first().expect("a site");
    let tile = Tile { queries: 32, keys: 128 };
    let chosen = program(Precision::Float32, [(site, tile)].into()).plan;
    let names = |plan: &Plan| -> BTreeSet<String> { plan.kernels.iter().map(|k| k.name.clone()).collect() };
    let (before, after) = (names(&plain.plan), names(&chosen));
    let gone: Vec<&String> = before.difference(&after).collect();
    let new: Vec<&String> = after.difference(&before).collect();
    assert_eq!((gone.len(), new.len()), (1, 1));
    assert!(gone[0].starts_with(site.kernel.name()) && gone[0].contains("_q64_k64_"));
    assert!(new[0].starts_with(site.kernel.name()) && new[0].contains("_q32_k128_"));
    // A choice for another shape changes nothing.
    let other = Site { batch: 2, ..site };
    assert_eq!(program(Precision::Float32, [(other, tile)].into()).plan, plain.plan);
}

#[test]
fn trials_run_the_kernels_of_the_model_on_any_target() {
    let arch = Arch::from_name("sm_90a").expect("an architecture");
    for precision in Precision::ALL.iter().copied() {
        for site in program(precision, Tiles::new()).sites {
            for target in [Target::Cpu, Target::Cuda(arch)] {
                for tile in site.candidates(target.into()) {
                    let Trial { plan, steps } =
                        trial(&site, tile, target).unwrap_or_else(|e| panic!("{site} {tile}: {e}"));
                    linc_plan::validate::validate(&plan).unwrap_or_else(|e| panic!("{site}: {e}"));
                    let Action::Launch { kernel, .. } = plan.steps[steps[0]].action else {
                        panic!("no launch")
                    };
                    let own = &plan.kernels[kernel];
                    assert!(
                        own.name.contains(&format!("_q{}_k{}_", tile.queries, tile.keys)),
                        "{}",
                        own.name
                    );
                    if let Target::Cuda(arch) = target {
                        // What needs more than there is is refused with an error, and linc's own choice is not.
                        let compiled = cuda_compiles(&plan, own, arch);
                        assert!(compiled.is_ok() || tile != site.default_tile(target.into()), "{compiled:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn the_backward_over_ranges_of_few_heads_gives_the_same_bits_on_any_number_of_threads() {
    for causal in [false, true] {
        let site = Site {
            kernel: TunableKernel::Backward,
            dtype: DType::F32,
            batch: 2,
            seq: 1030,
            heads: 4,
            kv_heads: 2,
            head_dim: 8,
            causal,
        };
        let plan = trial(&site, site.default_tile(Target::Cpu.into()), Target::Cpu);
        let Trial { plan, steps } = plan.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(steps.len(), 4, "all rounds are timed");
        let rounds = plan.kernels.iter().filter(|kernel| kernel.name.contains("of4"));
        assert_eq!(rounds.count(), 4, "sixteen programs from four heads");
        let graph = site.graph().unwrap_or_else(|e| panic!("{e}"));
        let at = bindings(&graph, VOCAB, 5, false);
        let exact = doubles(&run::<f64>(&graph, &at).unwrap_or_else(|e| panic!("{e}")));
        let [one, two, five] = [1, 2, 5].map(|threads| linc_tests::compiled::run(&plan, &at, threads));
        assert!(one == two && one == five, "bits depend on threads");
        for (name, exact) in &exact {
            let off = distance(&one[name], exact) / norm(exact);
            assert!(off < 1e-6, "{site}: {name} is off by {off}");
        }
    }
}

fn cuda_compiles(plan: &Plan, kernel: &Kernel, arch: Arch) -> Result<(), linc_codegen_cuda::CodegenError> {
    let index = plan.kernels.iter().position(|k| k.name == kernel.name).expect("a kernel of the plan");
    let alignment = plan.argument_alignment(index);
    let kernel = linc_tile::parse(&kernel.text).unwrap_or_else(|e| panic!("{e}"));
    let options = linc_codegen_cuda::CudaCodegenOptions { arch, alignment };
    linc_codegen_cuda::compile(&kernel, &options).map(|_| ())
}
