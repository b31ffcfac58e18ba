//! Exchanges: what each rank receives, in which order sums are, and what ranks that do not fit are told.

use linc_ir::exchange::middle;
use linc_ir::interp::{Bindings, Results, Tensor, eval, run, run_ranks};
use linc_ir::{ExchangeOp, Graph, Group, IrError, Op, Reduction, TensorType, parse};

use crate::common::Numbers;

fn world(size: usize, place: usize) -> Group {
    Group { name: "world".into(), first: 0, stride: 1, size, place, turn: 0 }
}

/// Graphs with an input `x` that each rank exchanges, and outputs.
fn ranks(count: usize, ty: &TensorType, ops: &dyn Fn(Group) -> Vec<(ExchangeOp, usize)>) -> Vec<Graph> {
    let graph = |place: usize| {
        let mut graph = Graph::new("rank");
        let mut values = vec![graph.push(Op::Input { name: "x".into(), ty: ty.clone() }, &[]).unwrap()];
        for (op, operand) in ops(world(count, place)) {
            values.push(graph.push(op.into(), &[values[operand]]).unwrap());
        }
        for (number, value) in values.into_iter().enumerate().skip(1) {
            graph.outputs.push((format!("y{number}"), value));
        }
        graph
    };
    (0..count).map(graph).collect()
}

fn run_all(graphs: &[Graph], inputs: &[Vec<f32>]) -> Vec<Results<f32>> {
    let bindings: Vec<Bindings<f32>> =
        inputs.iter().map(|x| [("x".to_string(), Tensor::float([x.len()], x.clone()))].into()).collect();
    run_ranks(graphs, &bindings).unwrap()
}

fn output(results: &Results<f32>, name: &str) -> Vec<f32> {
    results.outputs[name].floats().unwrap().to_vec()
}

#[test]
fn each_member_receives_what_is_for_it() {
    let graphs = ranks(3, &TensorType::f32([6]), &|group| {
        vec![
            (ExchangeOp::AllToAll { group: group.clone() }, 0),
            (ExchangeOp::ReduceScatter { group: group.clone() }, 0),
            (ExchangeOp::AllReduce { group: group.clone(), reduction: Reduction::Sum }, 0),
            (ExchangeOp::AllReduce { group: group.clone(), reduction: Reduction::Max }, 0),
            (ExchangeOp::AllGather { group }, 2),
        ]
    });
    let inputs: Vec<Vec<f32>> = (0..3).map(|rank| (0..6).map(|i| (10 * rank + i) as f32).collect()).collect();
    let results = run_all(&graphs, &inputs);
    let sums = [30.0, 33.0, 36.0, 39.0, 42.0, 45.0];
    for (rank, result) in results.iter().enumerate() {
        let mine = |from: usize| [10 * from + 2 * rank, 10 * from + 2 * rank + 1].map(|x| x as f32);
        assert_eq!(output(result, "y1"), [mine(0), mine(1), mine(2)].concat());
        assert_eq!(output(result, "y2"), sums[2 * rank..2 * rank + 2]);
        assert_eq!(output(result, "y3"), sums);
        assert_eq!(output(result, "y4"), inputs[2]);
        assert_eq!(output(result, "y5"), sums, "the parts of the sum, gathered");
    }
}

#[test]
fn a_reduction_is_the_same_bits_moved_first_and_added_then() {
    let mut numbers = Numbers(5);
    for count in 1..=9 {
        let len = 4 * count;
        let inputs: Vec<Vec<f32>> = (0..count)
            .map(|_| (0..len).map(|_| (numbers.uniform() * 1e3f64.powf(numbers.uniform())) as f32).collect())
            .collect();
        let reduction = Reduction::Sum;
        let graphs = ranks(count, &TensorType::f32([len]), &|group| {
            vec![
                (ExchangeOp::AllReduce { group: group.clone(), reduction }, 0),
                (ExchangeOp::AllToAll { group: group.clone() }, 0),
                (ExchangeOp::ReduceParts { parts: count, reduction }, 2),
                (ExchangeOp::AllGather { group }, 3),
            ]
        });
        for result in run_all(&graphs, &inputs) {
            assert_eq!(output(&result, "y1"), output(&result, "y4"), "{count} ranks");
        }
    }
}

/// Over a power of two of leaves, of which each rank sums a power of two, the number of ranks does not matter.
#[test]
fn sums_of_sums_are_sums_over_all() {
    let mut numbers = Numbers(17);
    let leaves: Vec<f32> = (0..16).map(|_| numbers.uniform() as f32).collect();
    let sum = |parts: &[f32]| {
        let op = Op::Exchange(ExchangeOp::ReduceParts { parts: parts.len(), reduction: Reduction::Sum });
        eval(&op, &[&Tensor::float([parts.len()], parts.to_vec())]).unwrap()[0].floats().unwrap()[0]
    };
    let whole = sum(&leaves);
    for ranks in [2, 4, 8] {
        let parts: Vec<f32> = leaves.chunks(16 / ranks).map(sum).collect();
        assert_eq!(sum(&parts).to_bits(), whole.to_bits(), "{ranks} ranks");
    }
    // Three ranks with four leaves each, as twelve.
    let three: Vec<f32> = leaves[..12].chunks(4).map(sum).collect();
    assert_eq!(sum(&three).to_bits(), sum(&leaves[..12]).to_bits());
    let [a, b, c] = [0.1f32, 0.2, 0.3];
    assert_eq!(sum(&[a, b, c]).to_bits(), ((a + b) + c).to_bits());
    assert_eq!((2..=9).map(middle).collect::<Vec<_>>(), [1, 2, 2, 4, 4, 4, 4, 8]);
}

#[test]
fn groups_along_two_axes_do_not_meet() {
    let text = |rank: usize| {
        let (row, column) = (rank / 2, rank % 2);
        format!(
            r#"graph "rank" {{
                %0: f32[2] = input() {{name = "x"}}
                %1: f32[1] = reduce_scatter(%0) {{group = ranks(name = "inner", first = {}, stride = 1, size = 2, place = {column}, turn = 0)}}
                %2: f32[1] = all_reduce(%1) {{group = ranks(name = "outer", first = {column}, stride = 2, size = 2, place = {row}, turn = 1), reduce = sum}}
                output "y1" = %2
            }}"#,
            2 * row
        )
    };
    let graphs: Vec<Graph> =
        (0..4).map(|rank| parse(&text(rank)).unwrap_or_else(|e| panic!("{e}"))).collect();
    let results = run_all(&graphs, &[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0], [4.0, 40.0]].map(Vec::from));
    let found: Vec<Vec<f32>> = results.iter().map(|result| output(result, "y1")).collect();
    assert_eq!(found, [[10.0], [100.0], [10.0], [100.0]]);
}

#[test]
fn ranks_that_do_not_fit_are_an_error() {
    let ty = TensorType::f32([4]);
    let gather = |group: Group| vec![(ExchangeOp::AllGather { group }, 0)];
    let reduce = |reduction| move |group: Group| vec![(ExchangeOp::AllReduce { group, reduction }, 0)];
    let bindings = |count: usize| -> Vec<Bindings<f64>> {
        (0..count).map(|_| [("x".to_string(), Tensor::float([4], vec![1.0; 4]))].into()).collect()
    };
    let message = |result: Result<_, IrError>| -> String {
        result.map(|_: Vec<Results<f64>>| ()).expect_err("they do not fit").to_string()
    };

    let [first, _] = &ranks(2, &ty, &gather)[..] else { panic!("two ranks") };
    let alone = run(first, &bindings(1)[0]).expect_err("one of two").to_string();
    assert_eq!(alone, "all_gather: one graph alone has not the 2 ranks of world");

    let [sum, max] = [Reduction::Sum, Reduction::Max].map(|reduction| ranks(2, &ty, &reduce(reduction)));
    let mixed = [sum[0].clone(), max[1].clone()];
    let found = message(run_ranks(&mixed, &bindings(2)));
    let waits = |rank: usize, reduce: &str| {
        let group =
            format!("ranks(name = \"world\", first = 0, stride = 1, size = 2, place = {rank}, turn = 0)");
        format!("rank {rank} waits at all_reduce {{group = {group}, reduce = {reduce}}}")
    };
    assert_eq!(found, format!("all_reduce: {}, {}", waits(0, "sum"), waits(1, "max")));

    let nothing = ranks(2, &ty, &|_| vec![]);
    let found = message(run_ranks(&[sum[0].clone(), nothing[1].clone()], &bindings(2)));
    assert_eq!(found, format!("all_reduce: {}, rank 1 is done", waits(0, "sum")));

    let found = message(run_ranks(&sum[..1], &bindings(1)));
    assert_eq!(found, format!("all_reduce: {}", waits(0, "sum")));

    let found = message(run_ranks(&sum, &bindings(1)));
    assert_eq!(found, "ranks: 2 graphs of ranks have 1 bindings");
}

/// A NaN of any rank reaches all, whatever its place and whatever is computed of it.
#[test]
fn reductions_keep_nan() {
    for reduction in Reduction::ALL {
        for count in 2..=5 {
            for wrong in 0..count {
                let parts = (0..count).map(|part| if part == wrong { f32::NAN } else { part as f32 });
                let op = Op::Exchange(ExchangeOp::ReduceParts { parts: count, reduction });
                let found = eval(&op, &[&Tensor::float([count], parts.collect())]).unwrap();
                let found = found[0].floats().unwrap()[0];
                assert!(found.is_nan(), "{} of {count} with NaN at {wrong}: {found}", reduction.name());
            }
        }
    }
}

#[test]
fn types_of_exchanges_are_checked() {
    let error = |op: ExchangeOp, types: &[TensorType]| {
        let types: Vec<&TensorType> = types.iter().collect();
        linc_ir::infer::infer(&op.into(), &types).expect_err("refused").to_string()
    };
    let group = || world(2, 0);
    let narrow = TensorType::new(linc_ir::DType::Bf16, [4]);
    let sum = Reduction::Sum;
    assert!(
        error(ExchangeOp::AllReduce { group: group(), reduction: sum }, &[narrow]).contains("expected f32")
    );
    let odd = TensorType::f32([3]);
    let found = error(ExchangeOp::ReduceScatter { group: group() }, std::slice::from_ref(&odd));
    assert_eq!(found, "reduce_scatter: operand 0 is f32[3], which has not 2 equal parts");
    assert!(error(ExchangeOp::AllToAll { group: group() }, &[TensorType::f32([])]).contains("2 equal parts"));
    assert!(
        error(ExchangeOp::ReduceParts { parts: 0, reduction: sum }, std::slice::from_ref(&odd))
            .contains("0 equal")
    );
    let found = error(ExchangeOp::AllGather { group: group() }, &[odd.clone(), TensorType::f32([3, 2])]);
    assert_eq!(found, "all_gather: operand 1 is f32[3, 2], operand 0 is f32[3]");
    for wrong in [
        Group { place: 2, ..group() },
        Group { size: 0, ..group() },
        Group { stride: 0, ..group() },
        Group { first: usize::MAX, ..group() },
        Group { name: String::new(), ..group() },
    ] {
        let found = error(ExchangeOp::AllGather { group: wrong }, std::slice::from_ref(&odd));
        assert!(found.contains("is no group with this rank in it"), "{found}");
    }
}
