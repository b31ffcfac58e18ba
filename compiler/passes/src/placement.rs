//! Which layers use linear attention: ratio and placement to one kind per layer, in exact arithmetic.
//!
//! Of `n` layers the nearest whole number to `n` times the ratio is linear, halves up. But what was asked for stays what it
//! is in kind: of two layers or more, a ratio above 0 has a linear layer and one below 1 a softmax layer.
//!
//! The only place that reads the ratio; afterwards only typed per-layer attention operations exist.

use std::fmt;
use std::str::FromStr;

use linc_ir::{AttentionFamily, AttentionKind};

use crate::error::PassError;

/// A share in [0, 1], exact: 0.7 is 7/10.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ratio {
    numerator: u64,
    denominator: u64,
}

impl Ratio {
    /// 0: every layer keeps softmax attention.
    pub const ZERO: Ratio = Ratio { numerator: 0, denominator: 1 };

    /// The share of linear layers among all; 0 of none.
    pub fn of(kinds: &[AttentionKind]) -> Ratio {
        Ratio::reduced(linear_layers(kinds) as u64, (kinds.len() as u64).max(1))
    }

    fn reduced(numerator: u64, denominator: u64) -> Ratio {
        let divisor = gcd(numerator, denominator);
        Ratio { numerator: numerator / divisor, denominator: denominator / divisor }
    }

    /// How many of `n` layers are linear.
    fn count(self, n: usize) -> usize {
        let (numerator, denominator) = (u128::from(self.numerator), u128::from(self.denominator));
        let nearest = ((2 * n as u128 * numerator + denominator) / (2 * denominator)) as usize;
        if n < 2 {
            return nearest;
        }
        let least = usize::from(numerator > 0);
        let most = n - usize::from(numerator < denominator);
        nearest.clamp(least, most)
    }

    /// The nearest float.
    pub fn as_f64(self) -> f64 {
        self.numerator as f64 / self.denominator as f64
    }
}

impl FromStr for Ratio {
    type Err = PassError;

    /// Reads a decimal (`0.75`) or a fraction (`3/4`).
    fn from_str(text: &str) -> Result<Self, PassError> {
        let refuse = || {
            PassError::Setting(format!(
                "linear_attn_ratio is \"{text}\"; expected a number from 0 to 1 such as 0.75, or a fraction such as 3/4"
            ))
        };
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit()) && s.len() <= 15;
        let number = |s: &str| if s.is_empty() { Ok(0) } else { s.parse::<u64>().map_err(|_| refuse()) };
        let trimmed = text.trim();
        let trimmed = trimmed.strip_prefix('+').unwrap_or(trimmed);
        let (numerator, denominator) = if let Some((a, b)) = trimmed.split_once('/') {
            if a.is_empty() || b.is_empty() || !digits(a) || !digits(b) {
                return Err(refuse());
            }
            (number(a)?, number(b)?)
        } else {
            let (whole, part) = trimmed.split_once('.').unwrap_or((trimmed, ""));
            let part = part.trim_end_matches('0');
            if (whole.is_empty() && part.is_empty() && !trimmed.contains('0'))
                || !digits(whole)
                || !digits(part)
            {
                return Err(refuse());
            }
            let scale = 10u64.pow(part.len() as u32);
            let whole = number(whole)?;
            if whole > 1 {
                return Err(refuse());
            }
            (whole * scale + number(part)?, scale)
        };
        if denominator == 0 || numerator > denominator {
            return Err(refuse());
        }
        Ok(Ratio::reduced(numerator, denominator))
    }
}

impl fmt::Display for Ratio {
    /// The shortest exact decimal where there is one, else the fraction.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{:?}", self.as_f64());
        if text.parse::<Ratio>().as_ref() == Ok(self) {
            f.write_str(&text)
        } else {
            write!(f, "{}/{}", self.numerator, self.denominator)
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

/// Where the linear layers go.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Placement {
    /// Softmax layers evenly spread, last in each block: ratio 3/4 gives `LLLS LLLS ..`.
    #[default]
    Uniform,
    /// Linear layers first.
    Front,
    /// Linear layers in the middle, softmax at both ends (the extra one in front).
    Middle,
    /// Linear layers last.
    Back,
    /// Exactly these layers are linear, counted from 0.
    Layers(Vec<usize>),
}

impl Placement {
    /// Those that a word names, in the order of help texts and messages.
    pub const NAMED: [Placement; 4] =
        [Placement::Uniform, Placement::Front, Placement::Middle, Placement::Back];

    /// The word in settings and reports; a list of layers has none.
    pub const fn name(&self) -> Option<&'static str> {
        match self {
            Placement::Uniform => Some("uniform"),
            Placement::Front => Some("front"),
            Placement::Middle => Some("middle"),
            Placement::Back => Some("back"),
            Placement::Layers(_) => None,
        }
    }

    /// All words, separated by commas, for help texts and messages.
    pub fn words() -> String {
        Placement::NAMED.iter().filter_map(Placement::name).collect::<Vec<_>>().join(", ")
    }
}

impl FromStr for Placement {
    type Err = PassError;

    /// Reads a word, or layer numbers separated by commas.
    fn from_str(text: &str) -> Result<Self, PassError> {
        if let Some(named) = Placement::NAMED.into_iter().find(|placement| placement.name() == Some(text)) {
            return Ok(named);
        }
        let layers: Result<Vec<usize>, _> = text.split(',').map(|layer| layer.trim().parse()).collect();
        layers.map(Placement::Layers).map_err(|_| {
            PassError::Setting(format!(
                "linear_attn_placement is \"{text}\"; expected {}, or a list of layers such as 0,2,5",
                Placement::words()
            ))
        })
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Placement::Uniform | Placement::Front | Placement::Middle | Placement::Back => {
                f.write_str(self.name().unwrap_or_default())
            }
            Placement::Layers(layers) => {
                let names: Vec<String> = layers.iter().map(usize::to_string).collect();
                f.write_str(&names.join(","))
            }
        }
    }
}

/// The kind of every layer. Without a ratio none is linear but those of a list.
///
/// # Errors
/// [`PassError::Setting`] if a listed layer does not exist or is named twice, or if the ratio asks for another number of
/// layers than are listed.
pub fn layer_kinds(
    n_layers: usize,
    ratio: Option<Ratio>,
    placement: &Placement,
) -> Result<Vec<AttentionKind>, PassError> {
    let n_linear = ratio.unwrap_or(Ratio::ZERO).count(n_layers);
    let n_softmax = n_layers - n_linear;
    // Softmax layers among the first l.
    let softmax_before = |l: usize| (l as u128 * n_softmax as u128 / n_layers.max(1) as u128) as usize;
    let is_linear: Vec<bool> = match placement {
        Placement::Uniform => (0..n_layers).map(|l| softmax_before(l + 1) == softmax_before(l)).collect(),
        Placement::Front => (0..n_layers).map(|l| l < n_linear).collect(),
        Placement::Back => (0..n_layers).map(|l| l >= n_softmax).collect(),
        Placement::Middle => {
            let start = n_softmax.div_ceil(2);
            (0..n_layers).map(|l| (start..start + n_linear).contains(&l)).collect()
        }
        Placement::Layers(layers) => {
            let mut linear = vec![false; n_layers];
            for layer in layers {
                match linear.get_mut(*layer) {
                    None => {
                        return Err(PassError::Setting(format!(
                            "linear_attn_placement names layer {layer}, but the model has layers 0 to {}",
                            n_layers.saturating_sub(1)
                        )));
                    }
                    Some(true) => {
                        return Err(PassError::Setting(format!(
                            "linear_attn_placement names layer {layer} twice"
                        )));
                    }
                    Some(slot) => *slot = true,
                }
            }
            if let Some(ratio) = ratio.filter(|_| layers.len() != n_linear) {
                return Err(PassError::Setting(format!(
                    "linear_attn_placement lists {} of {n_layers} layers, but linear_attn_ratio = {ratio} asks for {n_linear}: leave the ratio out, or list as many",
                    layers.len()
                )));
            }
            linear
        }
    };
    let family =
        |is_linear: &bool| if *is_linear { AttentionFamily::Linear } else { AttentionFamily::Softmax };
    Ok(is_linear.iter().map(|linear| family(linear).default_kind()).collect())
}

fn linear_layers(kinds: &[AttentionKind]) -> usize {
    kinds.iter().filter(|kind| kind.family() == AttentionFamily::Linear).count()
}

/// The share of linear layers for people, beside what was asked for if that is another: `0.5`, or
/// `0.3 of 4 layers: 1 layer, 0.25`.
pub fn describe_share(kinds: &[AttentionKind], asked: Option<Ratio>) -> String {
    let share = Ratio::of(kinds);
    let Some(asked) = asked.filter(|asked| *asked != share) else { return share.to_string() };
    let (n, linear) = (kinds.len(), linear_layers(kinds));
    let plural = |count: usize| if count == 1 { "layer" } else { "layers" };
    format!("{asked} of {n} {}: {linear} {}, {share}", plural(n), plural(linear))
}

/// The layer map for people, in blocks of four: `LLLS LLLS`.
pub fn layer_map(kinds: &[AttentionKind]) -> String {
    let blocks: Vec<String> =
        kinds.chunks(4).map(|c| c.iter().map(|k| k.family().letter()).collect()).collect();
    blocks.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(n: usize, ratio: &str, placement: &str) -> String {
        let ratio = Some(ratio.parse().expect("a ratio"));
        layer_map(&layer_kinds(n, ratio, &placement.parse().expect("a placement")).expect("a map"))
    }

    #[test]
    fn uniform_puts_softmax_last_in_each_block() {
        assert_eq!(map(16, "0.75", "uniform"), "LLLS LLLS LLLS LLLS");
        assert_eq!(map(4, "0.5", "uniform"), "LSLS");
        assert_eq!(map(4, "0.25", "uniform"), "LSSS");
        assert_eq!(map(4, "0", "uniform"), "SSSS");
        assert_eq!(map(5, "1", "uniform"), "LLLL L");
        assert_eq!(map(10, "0.7", "uniform"), "LLLS LLSL LS");
    }

    #[test]
    fn counts_are_the_nearest_whole_numbers() {
        for n in 1..200 {
            for tenths in 0..=10 {
                let ratio: Ratio = format!("{}.{}", tenths / 10, tenths % 10).parse().expect("a ratio");
                // Tenths of layers: halves, 5 of 10, go up.
                let mut expected = (n * tenths + 5) / 10;
                if n > 1 && tenths > 0 {
                    expected = expected.max(1);
                }
                if n > 1 && tenths < 10 {
                    expected = expected.min(n - 1);
                }
                for placement in [Placement::Uniform, Placement::Front, Placement::Middle, Placement::Back] {
                    let kinds = layer_kinds(n, Some(ratio), &placement).expect("a map");
                    let linear = linear_layers(&kinds);
                    assert_eq!(linear, expected, "{n} layers at {ratio} {placement}");
                }
            }
        }
    }

    #[test]
    fn other_placements() {
        assert_eq!(map(6, "0.5", "front"), "LLLS SS");
        assert_eq!(map(6, "0.5", "back"), "SSSL LL");
        assert_eq!(map(6, "0.5", "middle"), "SSLL LS");
        let list = |n, layers: &str| {
            layer_map(&layer_kinds(n, None, &layers.parse().expect("a list")).expect("a map"))
        };
        assert_eq!(list(6, "1,4"), "SLSS LS");
    }

    #[test]
    fn a_share_between_has_layers_of_both_kinds() {
        let cases = [
            (4, "0.3", "LSSS"),
            (4, "0.01", "LSSS"),
            (4, "0.99", "LLLS"),
            (4, "0.375", "LSLS"),
            (2, "0.75", "LS"),
            (2, "0.01", "LS"),
            (3, "0.5", "LLS"),
            (16, "1/1000", "LLLL LLLL LLLL LLLS"),
        ];
        for (n, ratio, expected) in &cases[..7] {
            assert_eq!(map(*n, ratio, "uniform"), *expected, "{n} layers at {ratio}");
        }
        // One linear layer among many, and one softmax layer: the last of each block is a softmax layer.
        assert_eq!(map(16, "1/1000", "uniform"), "LSSS SSSS SSSS SSSS");
        assert_eq!(map(16, "999/1000", "uniform"), cases[7].2);
        // A model of one layer has one kind.
        for (ratio, expected) in [("0", "S"), ("0.49", "S"), ("0.5", "L"), ("1", "L")] {
            assert_eq!(map(1, ratio, "uniform"), expected, "{ratio}");
        }
        assert_eq!(layer_kinds(0, Some(Ratio::ZERO), &Placement::Uniform), Ok(vec![]));
    }

    #[test]
    fn the_share_that_results_is_said() {
        let said = |n, ratio: Option<&str>, placement: &str| {
            let ratio = ratio.map(|ratio| ratio.parse().expect("a ratio"));
            let kinds = layer_kinds(n, ratio, &placement.parse().expect("a placement")).expect("a map");
            describe_share(&kinds, ratio)
        };
        assert_eq!(said(4, Some("0.3"), "uniform"), "0.3 of 4 layers: 1 layer, 0.25");
        assert_eq!(said(3, Some("0.5"), "back"), "0.5 of 3 layers: 2 layers, 2/3");
        assert_eq!(said(1, Some("0.7"), "back"), "0.7 of 1 layer: 1 layer, 1.0");
        assert_eq!(said(4, Some("1/2"), "front"), "0.5");
        assert_eq!(said(4, None, "uniform"), "0.0");
        assert_eq!(said(4, None, "3"), "0.25");
        assert_eq!(said(4, Some("0.3"), "3"), "0.3 of 4 layers: 1 layer, 0.25");
    }

    #[test]
    fn ratio_text() {
        for (text, shown) in
            [("0.75", "0.75"), ("3/4", "0.75"), ("1/3", "1/3"), ("1", "1.0"), ("0", "0.0"), (".5", "0.5")]
        {
            assert_eq!(text.parse::<Ratio>().expect("a ratio").to_string(), shown);
        }
        for bad in ["-0.1", "1.5", "NaN", "x", "", ".", "1/0", "4/3", "0.1.2", "1e-1", "99999999999999999999"]
        {
            assert!(bad.parse::<Ratio>().is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn bad_lists() {
        assert!(layer_kinds(4, None, &Placement::Layers(vec![4])).is_err());
        assert!(layer_kinds(4, None, &Placement::Layers(vec![1, 1])).is_err());
        for (ratio, layers) in [("0", vec![0]), ("1", vec![0, 1, 2]), ("0.5", vec![3]), ("0.3", vec![])] {
            let (ratio, placement) = (Some(ratio.parse().expect("a ratio")), Placement::Layers(layers));
            let error = layer_kinds(4, ratio, &placement).expect_err("a contradiction").to_string();
            assert!(error.contains("linear_attn_ratio") && error.contains("lists"), "{error}");
        }
        assert!(layer_kinds(4, Some(Ratio::ZERO), &Placement::Layers(vec![])).is_ok());
        assert!("0,x".parse::<Placement>().is_err());
    }
}
