//! How values of arguments are read. The errors of the libraries are those of Rust's parsers.

use linc_bench::Pattern;
use linc_checkpoint::hugging_face::Element;
use linc_driver::MemoryLimit;

/// An integer of at least 1.
pub(super) fn positive(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|n| *n > 0).ok_or("expected an integer of at least 1")
}

/// A number of things each of which takes memory, or a place among those who wait.
pub(super) fn places(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|n| (1..=65_536).contains(n)).ok_or("expected an integer from 1 to 65536")
}

/// Points of a path, each of which is a run of all sequences.
pub(super) fn points(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|n| (1..=1024).contains(n)).ok_or("expected an integer from 1 to 1024")
}

/// Placements that are drawn; none is a number too.
pub(super) fn placements(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|n| *n <= 65_536).ok_or("expected an integer from 0 to 65536")
}

/// Cells of a side of a map, of which there is one for each head.
pub(super) fn cells(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|n| (2..=512).contains(n)).ok_or("expected an integer from 2 to 512")
}

/// Seconds up to a week: clocks cannot add much longer times.
pub(super) fn seconds(text: &str) -> Result<u64, &'static str> {
    text.parse().ok().filter(|n| (1..=604_800).contains(n)).ok_or("expected seconds from 1 to 604800, a week")
}

pub(super) fn count(text: &str) -> Result<usize, &'static str> {
    text.parse().map_err(|_| "expected an integer of at least 0")
}

pub(super) fn seed(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "expected an integer from 0 to 18446744073709551615")
}

pub(super) fn element(text: &str) -> Result<Element, &'static str> {
    let named = Element::ALL.into_iter().find(|element| element.name() == text);
    named.ok_or("expected float32, bfloat16 or float16")
}

/// An amount of memory: a number without a unit is none.
pub(super) fn memory(text: &str) -> Result<MemoryLimit, &'static str> {
    let is_amount = |limit: &MemoryLimit| matches!(limit, MemoryLimit::Bytes(_));
    text.parse()
        .ok()
        .filter(is_amount)
        .ok_or("expected an amount of memory with its unit, such as 24GiB or 800MB")
}

pub(super) fn number(text: &str) -> Result<f64, &'static str> {
    text.parse().map_err(|_| "expected a number")
}

pub(super) fn held_out(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|share| (0.0..=0.9).contains(share)).ok_or("expected a number from 0 to 0.9")
}

pub(super) fn shard_tokens(text: &str) -> Result<u64, &'static str> {
    let limits = 1000..=1 << 31;
    text.parse().ok().filter(|n| limits.contains(n)).ok_or("expected an integer from 1000 to 2147483648")
}

/// Processes of one machine: more would only take its memory.
pub(super) fn ranks(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|n| (1..=4096).contains(n)).ok_or("expected an integer from 1 to 4096")
}

/// Ranks that a program is compiled for: a kernel that adds up what all of them sent has a load for each.
pub(super) fn world(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|n| (1..=1024).contains(n)).ok_or("expected an integer from 1 to 1024")
}

/// Texts to draw for each question: all of them are kept until the question is done.
pub(super) fn completions(text: &str) -> Result<usize, &'static str> {
    text.parse().ok().filter(|n| (1..=1000).contains(n)).ok_or("expected an integer from 1 to 1000")
}

pub(super) fn exchange(text: &str) -> Result<Pattern, &'static str> {
    Pattern::ALL
        .into_iter()
        .find(|pattern| pattern.name() == text)
        .ok_or("expected all-to-all, all-gather, reduce-scatter, all-reduce, broadcast or send-receive")
}
