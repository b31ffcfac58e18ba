//! Roles of persistent tensors from the graph to the plan, and through its text: moments name their parameters, and caches
//! and recurrent states say what they are, whatever their names.

use std::collections::{BTreeMap, BTreeSet};

use linc_driver::{Entry, Options, PersistentLayout, Precision, Room, compile};
use linc_plan::{Binding, ParamState, Plan, Role, StateRole};
use linc_tests::models::{small_hybrid, training};

/// The programs of a run that accumulates gradients in f16, and of one that generates.
fn plans() -> BTreeMap<&'static str, Plan> {
    let Entry::Train(optimizer) = training() else { unreachable!("training trains") };
    let (model, mut layout) = (small_hybrid(), PersistentLayout::default());
    let entries = [
        ("train", Entry::Train(optimizer.clone())),
        ("accumulate", Entry::Accumulate),
        ("update", Entry::Update(optimizer)),
        ("decode", Entry::Decode(Room::of_one(8))),
    ];
    let options = Options { precision: Precision::Float16, ..Options::new(1, 8) };
    let compiled = entries.map(|(name, entry)| {
        let compiled = compile(&model, &entry, &options, &mut layout);
        (name, compiled.unwrap_or_else(|e| panic!("{name}: {e}")).plan)
    });
    compiled.into_iter().collect()
}

/// Names of parameters that have a state.
fn with_state(plan: &Plan, wanted: ParamState) -> Vec<&str> {
    let mut found = vec![];
    for binding in &plan.bindings {
        if let Role::State(StateRole::OfParam { state, of }) = &binding.role
            && *state == wanted
        {
            found.push(of.as_str());
        }
    }
    found.sort_unstable();
    found
}

#[test]
fn states_of_parameters_name_them() {
    let plans = plans();
    for (program, states) in [
        ("train", &[ParamState::FirstMoment, ParamState::SecondMoment][..]),
        ("accumulate", &[ParamState::Gradient]),
        ("update", &ParamState::ALL),
        ("decode", &[]),
    ] {
        let plan = &plans[program];
        let mut params: Vec<&str> =
            plan.bindings.iter().filter(|b| b.role == Role::Param).map(|b| b.name.as_str()).collect();
        params.sort_unstable();
        assert!(params.len() > 10, "{program}");
        for state in ParamState::ALL {
            let expected = if states.contains(&state) { params.clone() } else { vec![] };
            assert_eq!(with_state(plan, state), expected, "{program}: {state:?}");
        }
    }
}

#[test]
fn other_states_say_what_they_are() {
    let plans = plans();
    let names = |program: &str, role: StateRole| -> BTreeSet<String> {
        let of_role = |b: &&Binding| b.role == Role::State(role.clone());
        plans[program].bindings.iter().filter(of_role).map(|b| b.name.clone()).collect()
    };
    let set = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|n| (*n).to_string()).collect() };
    // One linear layer, then one softmax layer.
    let recurrent = ["state", "state_max", "state_sum"].map(|state| format!("layers.0.attention.{state}"));
    assert_eq!(names("decode", StateRole::Recurrent), recurrent.into());
    assert_eq!(
        names("decode", StateRole::KeyValueCache),
        set(&["layers.1.attention.cache_k", "layers.1.attention.cache_v"])
    );
    let scale = set(&linc_driver::names::LOSS_SCALE_STATES);
    assert_eq!(names("train", StateRole::LossScale), scale);
    assert_eq!(names("update", StateRole::LossScale), scale);
    // What a checkpoint keeps beside the parameters.
    for (program, per_param, alone) in [("train", 2, 3), ("accumulate", 0, 1), ("decode", 0, 0)] {
        let plan = &plans[program];
        let params = plan.bindings.iter().filter(|b| b.role == Role::Param).count();
        let kept = plan.bindings.iter().filter(|b| b.role.is_optimizer_state()).count();
        assert_eq!(kept, per_param * params + alone, "{program}");
    }
}

#[test]
fn roles_and_labels_are_read_as_they_are_written() {
    for (name, plan) in plans() {
        let text = serde_json::to_string(&plan).expect("a plan as text");
        let read: Plan = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        // Numbers of initial values may lose their last bit.
        for (read, written) in read.bindings.iter().zip(&plan.bindings) {
            assert_eq!(
                (&read.name, &read.role, read.at),
                (&written.name, &written.role, written.at),
                "{name}"
            );
        }
        assert_eq!((read.steps, read.buffers), (plan.steps, plan.buffers), "{name}");
    }
    let moment = r#"{"state":{"of_param":{"state":"first_moment","of":"w"}}}"#;
    let role: Role = serde_json::from_str(moment).expect("a role");
    assert_eq!(role, Role::State(StateRole::OfParam { state: ParamState::FirstMoment, of: "w".into() }));
    assert!(serde_json::from_str::<Role>("\"state\"").is_err(), "a state without a role");
}
