//! What operations declare about themselves agrees with their types.

use crate::text::everything;
use linc_ir::{Class, DType, Graph, NodeId, OperandTypes, Overwrites, Strides, TensorType};

fn operand_types(graph: &Graph, id: NodeId) -> Vec<TensorType> {
    graph.operands(id).into_iter().map(|v| graph.ty(v).clone()).collect()
}

#[test]
fn declared_facts_agree_with_types() {
    let graph = everything();
    let mut overwriting = 0;
    for id in graph.nodes() {
        let (op, facts) = (graph.op(id), graph.op(id).facts());
        let (name, results) = (op.name(), &graph.node(id).types);
        let operands = operand_types(&graph, id);
        assert_eq!(matches!(facts.class, Class::Leaf { .. }), op.leaf_name().is_some(), "{name}");
        let without_operands = matches!(facts.class, Class::Leaf { .. } | Class::Constant);
        assert_eq!(without_operands, operands.is_empty(), "{name}");
        let args: Vec<usize> = (0..operands.len()).collect();
        assert_eq!(facts.class == Class::Pointwise, op.step(&args).is_some(), "{name}");
        match facts.class {
            Class::Pointwise => {
                assert_eq!(results.len(), 1, "{name}");
                assert!(operands.iter().all(|x| x.shape == results[0].shape), "{name}");
            }
            Class::View | Class::Spread => assert_eq!((operands.len(), results.len()), (1, 1), "{name}"),
            Class::Join => assert_eq!(results.len(), 1, "{name}"),
            Class::Leaf { .. } | Class::Constant | Class::Region | Class::Compute => {}
        }
        if facts.class.moves_elements() {
            assert!(operands.iter().all(|x| x.dtype == results[0].dtype), "{name}");
        }
        for (result, operand) in facts.overwrites.always() {
            assert_eq!(
                results[*result as usize], operands[*operand],
                "{name}: a result takes another's place"
            );
            overwriting += 1;
        }
        if facts.overwrites == Overwrites::OwnedOperand {
            assert_eq!(results[0], operands[0], "{name}");
        }
        if let Strides::Heads(positions) = facts.reads {
            assert!(positions.iter().all(|i| operands[*i].shape.rank() == 4), "{name}");
        }
        if let Strides::Heads(positions) = facts.writes {
            assert!(positions.iter().all(|i| results[*i].shape.rank() == 4), "{name}");
        }
        if let OperandTypes::Narrow(positions) = facts.precision {
            assert!(positions.iter().all(|i| operands[*i].dtype.is_float()), "{name}");
        }
        if let Some(integers) = facts.integers {
            let found = operands.iter().enumerate().filter(|(_, ty)| ty.dtype == DType::I32);
            let found: Vec<usize> = found.map(|(i, _)| i).collect();
            // An operand that may be missing at the end is the only one that need not be there.
            let expected: Vec<usize> = integers.iter().copied().filter(|i| *i < operands.len()).collect();
            assert_eq!(found, expected, "{name}");
        }
    }
    assert!(overwriting >= 8, "adamw and both ways to decode write in place; {overwriting} pairs found");
}
