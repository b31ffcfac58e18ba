//! What to write in place of a value that is refused, where that can be told.

use crate::near::nearest;
use crate::schema::words;
use crate::value::Setting;

/// The nearest of a setting's words, in `quotes`, or an integer without its exponent.
pub(crate) fn advice<T: Setting>(text: &str, quotes: &str) -> Option<String> {
    let schema = T::schema();
    if schema["type"] == "integer" {
        let number: f64 = text.parse().ok()?;
        // Beyond that not every integer is a number of 64 bits.
        let is_whole = number.fract() == 0.0 && number.abs() < 1e15;
        // An integer is refused for another reason.
        return (is_whole && text.parse::<i64>().is_err()).then(|| format!("write {}", number as i64));
    }
    let near = nearest(text, words(&schema).into_iter())?;
    Some(format!("did you mean {quotes}{near}{quotes}?"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use linc_driver::{Placement, RecomputeMode};

    #[test]
    fn a_value_that_is_nearly_right_is_told_how_it_is_written() {
        assert_eq!(advice::<usize>("1e3", ""), Some("write 1000".to_owned()));
        assert_eq!(advice::<u64>("2.0", ""), Some("write 2".to_owned()));
        for text in ["1.5", "0", "-3", "many", "1e300"] {
            assert_eq!(advice::<usize>(text, ""), None, "{text}");
        }
        assert_eq!(advice::<Placement>("midle", "\""), Some("did you mean \"middle\"?".to_owned()));
        assert_eq!(advice::<RecomputeMode>("memry", ""), Some("did you mean memory_budget?".to_owned()));
        assert_eq!(advice::<f64>("fast", ""), None);
    }
}
