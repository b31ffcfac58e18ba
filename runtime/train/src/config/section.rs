//! The macro that declares a section of the config once: its fields, help texts, defaults, other
//! spellings and limits. Reading, writing and `--help` all follow from that one declaration.

use super::check::Check;
use super::settings::Settings;
use super::value::Setting;

/// One key of the config, for `--help` and for suggestions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// Section and key with a dot between, as after `--`.
    pub name: String,
    /// What it does.
    pub help: String,
    /// What values it takes.
    pub expected: String,
    /// Default in TOML spelling; `None` if unset by default.
    pub default: Option<String>,
    /// Other accepted spellings, with section.
    pub aliases: Vec<String>,
}

/// A section of the config.
pub(crate) trait Section: Default {
    /// Its name in brackets; a subsection has a dot in it.
    const NAME: &'static str;

    /// Takes this section's settings, leaving defaults where none is given.
    fn read(settings: &mut Settings) -> Self;

    /// Appends its keys.
    fn describe(keys: &mut Vec<KeyInfo>);

    /// Its settings that are set, as `key = value` pairs in TOML spelling.
    fn entries(&self) -> Vec<(&'static str, String)>;
}

/// An alias with its section: `local_batch_size` of `training` is `training.local_batch_size`.
pub(crate) fn qualify(section: &str, alias: &str) -> String {
    if alias.contains('.') { alias.to_owned() } else { format!("{section}.{alias}") }
}

/// What a person should write for a setting: in the words of its limit, if it has one.
pub(crate) fn expected<T: Setting>(check: Option<Check<T>>) -> String {
    check.map_or_else(T::expected, |check| check.allowed)
}

macro_rules! section {
    ($(#[doc = $section_doc:literal])+ $name:ident $section:literal {
        $($(#[doc = $doc:literal])+ $field:ident: $ty:ty = $default:expr
            $(, aka [$($alias:literal),+])? $(, check $check:expr)?;)*
    }) => {
        $(#[doc = $section_doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $($(#[doc = $doc])+ pub $field: $ty),* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }

        impl $crate::config::section::Section for $name {
            const NAME: &'static str = $section;

            fn read(settings: &mut $crate::config::settings::Settings) -> Self {
                let defaults = Self::default();
                Self { $($field: {
                    let check: Option<$crate::config::check::Check<$ty>> = None$(.or(Some($check)))?;
                    settings.take(concat!($section, ".", stringify!($field)), defaults.$field, check.as_ref())
                }),* }
            }

            fn describe(keys: &mut Vec<$crate::config::section::KeyInfo>) {
                let defaults = Self::default();
                $(keys.push($crate::config::section::KeyInfo {
                    name: concat!($section, ".", stringify!($field)).to_owned(),
                    help: [$($doc),+].map(str::trim).join(" "),
                    expected: $crate::config::section::expected::<$ty>(None$(.or(Some($check)))?),
                    default: $crate::config::value::Setting::to_toml(&defaults.$field),
                    aliases: vec![$($($crate::config::section::qualify($section, $alias)),+)?],
                });)*
            }

            fn entries(&self) -> Vec<(&'static str, String)> {
                let all: Vec<(&'static str, Option<String>)> = vec![
                    $((stringify!($field), $crate::config::value::Setting::to_toml(&self.$field))),*
                ];
                all.into_iter().filter_map(|(key, value)| value.map(|value| (key, value))).collect()
            }
        }
    };
}
pub(crate) use section;
