//! Exact shares between 0 and 1.
//!
//! Layer placement rounds `(l + 1) * (1 - r)` down. With `r = 0.7` stored as a binary float that product
//! can land just below the integer it should equal, and a layer changes its kind. A share is therefore
//! read from its decimal text (or from `a/b`) and stays a fraction of integers.

use std::fmt;

/// A share of a whole: `num / den` in lowest terms, with `num <= den` and `den > 0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ratio {
    num: u64,
    den: u64,
}

/// Decimal digits a share may have; keeps every product of the placement rule inside `u128`.
const MAX_DIGITS: usize = 15;

impl Ratio {
    /// Nothing.
    pub const ZERO: Self = Self { num: 0, den: 1 };
    /// The whole.
    pub const ONE: Self = Self { num: 1, den: 1 };

    /// `num / den` in lowest terms, or `None` if `den` is 0 or the share exceeds 1.
    pub fn new(num: u64, den: u64) -> Option<Self> {
        if den == 0 || num > den {
            return None;
        }
        let divisor = gcd(num, den);
        Some(Self { num: num / divisor, den: den / divisor })
    }

    /// Numerator, in lowest terms.
    pub fn num(self) -> u64 {
        self.num
    }

    /// Denominator, in lowest terms; never 0.
    pub fn den(self) -> u64 {
        self.den
    }

    /// The nearest binary floating-point number; for display and reports, not for placement.
    pub fn to_f64(self) -> f64 {
        self.num as f64 / self.den as f64
    }

    /// Reads `0.75`, `.5`, `1`, `7.5e-1` or `3/4`.
    ///
    /// # Errors
    /// A sentence that says what is wrong: not a number, NaN or infinite, below 0 or above 1, too many digits.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (num, den) = match text.split_once('/') {
            Some((num, den)) => (integer(num.trim(), text)?, integer(den.trim(), text)?),
            None => decimal(text)?,
        };
        if den == 0 {
            return Err(format!("`{text}` divides by zero"));
        }
        Self::new(num, den).ok_or_else(|| format!("{text} is above 1; a share lies between 0 and 1"))
    }
}

impl fmt::Display for Ratio {
    /// The finite decimal where there is one (`0.75`), otherwise the fraction (`1/3`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut scale: u64 = 1;
        for digits in 0..=MAX_DIGITS {
            if scale.is_multiple_of(self.den) {
                let scaled = self.num * (scale / self.den);
                if digits == 0 {
                    return write!(f, "{scaled}.0");
                }
                return write!(f, "{}.{:0digits$}", scaled / scale, scaled % scale);
            }
            scale *= 10;
        }
        write!(f, "{}/{}", self.num, self.den)
    }
}

fn integer(digits: &str, whole: &str) -> Result<u64, String> {
    if digits.starts_with('-') {
        return Err(format!("{whole} is below 0; a share lies between 0 and 1"));
    }
    if digits.len() > MAX_DIGITS {
        return Err(format!("{whole} has more than {MAX_DIGITS} digits"));
    }
    digits.parse().map_err(|_| format!("`{whole}` is not a number"))
}

/// Numerator and denominator of a decimal number in any of TOML's spellings.
fn decimal(text: &str) -> Result<(u64, u64), String> {
    let not_a_number = || format!("`{text}` is not a number");
    let value: f64 = text.replace('_', "").parse().map_err(|_| not_a_number())?;
    if value.is_nan() {
        return Err("NaN is not a share; a share lies between 0 and 1".to_owned());
    }
    if value < 0.0 {
        return Err(format!("{text} is below 0; a share lies between 0 and 1"));
    }
    if value > 1.0 {
        return Err(format!("{text} is above 1; a share lies between 0 and 1"));
    }
    let plain: String = text.chars().filter(|c| *c != '_').collect::<String>().to_ascii_lowercase();
    let (mantissa, exponent) = match plain.split_once('e') {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().map_err(|_| not_a_number())?),
        None => (plain.as_str(), 0),
    };
    let mantissa = mantissa.trim_start_matches(['+', '-']);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return Ok((0, 1));
    }
    // value = significant * 10^(-places)
    let places = fraction.len() as i64 - i64::from(exponent);
    let trailing = significant.len() - significant.trim_end_matches('0').len();
    let significant = significant.trim_end_matches('0');
    let places = places - trailing as i64;
    if significant.len() > MAX_DIGITS || places > MAX_DIGITS as i64 {
        return Err(format!(
            "{text} has more than {MAX_DIGITS} digits; write it as a fraction such as \"1/3\""
        ));
    }
    let num: u64 = significant.parse().map_err(|_| not_a_number())?;
    if places < 0 {
        return Err(format!("{text} is above 1; a share lies between 0 and 1"));
    }
    Ok((num, 10u64.pow(places as u32)))
}

fn gcd(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (u64, u64) {
        let ratio = Ratio::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        (ratio.num(), ratio.den())
    }

    #[test]
    fn decimals_are_exact() {
        assert_eq!(parsed("0.7"), (7, 10));
        assert_eq!(parsed("0.75"), (3, 4));
        assert_eq!(parsed("0.333"), (333, 1000));
        assert_eq!(parsed(".5"), (1, 2));
        assert_eq!(parsed("7.5e-1"), (3, 4));
        assert_eq!(parsed("0.05E+1"), (1, 2));
        assert_eq!(parsed("1"), (1, 1));
        assert_eq!(parsed("1.000"), (1, 1));
        assert_eq!(parsed("+0.25"), (1, 4));
        assert_eq!(parsed("0"), (0, 1));
        assert_eq!(parsed("-0.0"), (0, 1));
        assert_eq!(parsed("0e99999"), (0, 1));
        assert_eq!(parsed("3/4"), (3, 4));
        assert_eq!(parsed(" 2 / 6 "), (1, 3));
    }

    #[test]
    fn what_is_not_a_share_is_refused() {
        for (text, part) in [
            ("-0.1", "below 0"),
            ("1.5", "above 1"),
            ("3/2", "above 1"),
            ("-1/2", "below 0"),
            ("nan", "NaN"),
            ("inf", "above 1"),
            ("-inf", "below 0"),
            ("x", "not a number"),
            ("", "not a number"),
            ("1/", "not a number"),
            ("1/0", "zero"),
            ("0.12345678901234567", "digits"),
            ("1e-400", "digits"),
        ] {
            let error = Ratio::parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn prints_what_it_reads() {
        for text in ["0.0", "1.0", "0.7", "0.05", "0.125", "1/3", "123/1000000007"] {
            assert_eq!(Ratio::parse(text).map(|r| r.to_string()).as_deref(), Ok(text));
        }
    }
}
