//! Every kernel of the library at odd sizes: generated code on all instruction sets against the tile interpreter.

use crate::support::check_all;
use linc_cases::{decoding, elu, embeddings, library};

#[test]
fn norms() {
    check_all(library::norms());
}

#[test]
fn pointwise_programs() {
    check_all(library::pointwise_programs());
}

#[test]
fn copies_and_fills() {
    check_all(library::copies_and_fills());
}

#[test]
fn reductions() {
    check_all(library::reductions());
}

#[test]
fn ropes() {
    check_all(library::ropes());
}

#[test]
fn embeddings_and_their_gradients() {
    check_all(embeddings::embeddings());
}

#[test]
fn losses_and_optimizer() {
    check_all(library::losses_and_optimizer());
}

#[test]
fn softmax_attention() {
    check_all(library::softmax_attention());
}

#[test]
fn efficient_attention() {
    check_all(library::efficient_attention());
}

#[test]
fn elu_attention() {
    check_all(elu::elu_attention());
}

#[test]
fn decoding() {
    check_all(decoding::tokens());
    check_all(decoding::prompts());
}
