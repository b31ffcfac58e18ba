//! Settings of passes whose values are words, each declared once: name, words, default and help, for all who let a person
//! choose, be it configs, the command line or the headers of tests.

/// A setting whose values are words.
pub trait PassSetting: Copy + Default + PartialEq + 'static {
    /// Its name, as on the command line behind `--`.
    const NAME: &'static str;
    /// What it decides.
    const HELP: &'static str;
    /// In the order of help texts and messages.
    const ALL: &'static [Self];

    /// The word for a value.
    fn name(self) -> &'static str;

    /// The value of a word.
    fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|value| value.name() == name)
    }

    /// What it decides, with all words: for a line of help.
    fn help() -> String {
        let words: Vec<&str> = Self::ALL.iter().map(|value| value.name()).collect();
        match words.split_last() {
            Some((last, [])) => format!("{}: {last}", Self::HELP),
            Some((last, rest)) => format!("{}: {} or {last}", Self::HELP, rest.join(", ")),
            None => Self::HELP.to_string(),
        }
    }
}
