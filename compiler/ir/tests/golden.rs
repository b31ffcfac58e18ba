//! Linear attention against values of the numpy reference (`golden/generate.py`).

use crate::common::close;
use linc_ir::interp::{Tensor, eval};
use linc_ir::{EfficientForm, EfficientOp, EfficientSpec, Op};

struct Case {
    name: String,
    /// batch, sequence, query heads, key/value heads, features, chunk, causal
    sizes: Vec<usize>,
    temperature: f64,
    arrays: Vec<(String, Vec<f64>)>,
}

impl Case {
    fn array(&self, name: &str) -> &[f64] {
        &self.arrays.iter().find(|(n, _)| n == name).unwrap().1
    }

    fn spec(&self) -> EfficientSpec {
        EfficientSpec {
            causal: self.sizes[6] == 1,
            chunk: self.sizes[5],
            temperature: self.temperature,
            form: EfficientForm::Fused,
        }
    }

    fn operand(&self, name: &str) -> Tensor<f64> {
        let &[b, n, h, g, d, ..] = &self.sizes[..] else { panic!("short case line") };
        let s = self.spec().saved_states(n);
        let data = self.array(name).to_vec();
        match name {
            "q" | "out" | "dout" => Tensor::float([b, n, h, d], data),
            "ell" => Tensor::float([b, g, s, d], data),
            "state" => Tensor::float([b, g, s, d, d], data),
            _ => Tensor::float([b, n, g, d], data),
        }
    }
}

fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = vec![];
    for line in include_str!("golden/efficient_attention.txt").lines() {
        let mut words = line.split(' ');
        match words.next().unwrap() {
            "case" => {
                let name = words.next().unwrap().to_string();
                let mut numbers: Vec<&str> = words.collect();
                let temperature = numbers.pop().unwrap().parse().unwrap();
                let sizes = numbers.iter().map(|n| n.parse().unwrap()).collect();
                cases.push(Case { name, sizes, temperature, arrays: vec![] });
            }
            label => {
                let values = words.map(|x| x.parse().unwrap()).collect();
                cases.last_mut().unwrap().arrays.push((label.into(), values));
            }
        }
    }
    assert_eq!(cases.len(), 10);
    cases
}

#[test]
fn forward_and_backward() {
    for case in cases() {
        let [q, k, v, dout] = ["q", "k", "v", "dout"].map(|name| case.operand(name));
        let found = eval(&Op::from(EfficientOp::Forward(case.spec())), &[&q, &k, &v]).unwrap();
        for (name, x) in ["out", "ell", "state"].into_iter().zip(&found) {
            close(&format!("{} {name}", case.name), &x.doubles(), case.array(name), 2e-14);
        }
        let operands = [&q, &k, &v, &found[0], &found[1], &found[2], &dout];
        let found = eval(&Op::from(EfficientOp::Backward(case.spec())), &operands).unwrap();
        for (name, x) in ["dq", "dk", "dv"].into_iter().zip(&found) {
            close(&format!("{} {name}", case.name), &x.doubles(), case.array(name), 2e-13);
        }
    }
}

#[test]
fn single_precision_is_finite_and_near() {
    let single = |x: Tensor<f64>| {
        Tensor::<f32>::float(x.shape.clone(), x.doubles().iter().map(|x| *x as f32).collect())
    };
    for case in cases() {
        let [q, k, v, dout, out, ell, state] =
            ["q", "k", "v", "dout", "out", "ell", "state"].map(|name| single(case.operand(name)));
        let found = eval(&Op::from(EfficientOp::Forward(case.spec())), &[&q, &k, &v]).unwrap();
        // |k| up to 250 has an f32 spacing of 1.5e-5, which the exponential passes on.
        close(&case.name, &found[0].doubles(), case.array("out"), 5e-5);
        let operands = [&q, &k, &v, &out, &ell, &state, &dout];
        let found = eval(&Op::from(EfficientOp::Backward(case.spec())), &operands).unwrap();
        for (name, x) in ["dq", "dk", "dv"].into_iter().zip(&found) {
            close(&format!("{} {name}", case.name), &x.doubles(), case.array(name), 5e-5);
        }
    }
}

#[test]
fn decoding_by_tokens_or_blocks_is_the_causal_forward() {
    for case in cases().into_iter().filter(|c| c.spec().causal) {
        let &[b, n, h, g, d, ..] = &case.sizes[..] else { panic!("short case line") };
        for (block, form) in
            [(1, EfficientForm::Fused), (3, EfficientForm::Fused), (5, EfficientForm::Chunked)]
        {
            // Garbage state: position 0 must ignore it.
            let slots = b + 1;
            let mut m = Tensor::float([slots, g, d], vec![7.0; slots * g * d]);
            let mut z = Tensor::float([slots, g, d], vec![f64::NAN; slots * g * d]);
            let mut t = Tensor::float([slots, g, d, d], vec![3.0; slots * g * d * d]);
            let op = Op::from(EfficientOp::Decode(EfficientSpec { form, chunk: 2, ..case.spec() }));
            for token in (0..n).step_by(block) {
                let len = block.min(n - token);
                let part = |name: &str, heads: usize| {
                    let row = heads * d;
                    let rows =
                        (0..b).flat_map(|i| case.array(name)[(i * n + token) * row..][..len * row].to_vec());
                    Tensor::float([b, len, heads, d], rows.collect())
                };
                let pos = Tensor::int([b], vec![token as i32; b]);
                // Sequences whose states lie the other way round, behind one that nobody has.
                let slot = Tensor::int([b], (1..=b as i32).rev().collect());
                let operands = [&part("q", h), &part("k", g), &part("v", g), &m, &z, &t, &pos, &slot];
                let mut next = eval(&op, &operands).unwrap().into_iter();
                let out = next.next().unwrap();
                close(&case.name, &out.doubles(), &part("out", h).doubles(), 2e-14);
                [m, z, t] = [next.next().unwrap(), next.next().unwrap(), next.next().unwrap()];
                // The state before each chunk, of which the first sees what came in.
                if let (EfficientForm::Chunked, Some(ell), true) = (form, next.next(), token == 0) {
                    assert!(ell.doubles()[..d].iter().all(|x| *x == 0.0), "{}", case.name);
                }
            }
            assert_eq!(&t.doubles()[..g * d * d], &vec![3.0; g * d * d][..], "the slot of no sequence");
        }
    }
}
