//! The macro that declares a section of the config once: its fields, help texts, defaults, other
//! spellings and limits. Reading, writing and `--help` all follow from that one declaration.

use serde_json::Value;

use crate::check::Check;
use crate::settings::Settings;
use crate::value::Setting;

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
    /// What its section is about.
    pub about: String,
    /// What values it takes, as a JSON schema.
    pub schema: Value,
}

impl KeyInfo {
    /// The section: `training.mqar` of `training.mqar.num_passes`.
    pub fn section(&self) -> &str {
        self.name.rsplit_once('.').map_or("", |(section, _)| section)
    }
}

/// The names of sections, each once, in the order in which they come first, and subsections behind their section.
pub fn section_order<'a>(sections: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for section in sections {
        if !order.iter().any(|known| known == section) {
            order.push(section.to_owned());
        }
    }
    let first = order.clone();
    let place = |section: &str| first.iter().position(|known| known == section);
    order.sort_by_key(|section| {
        section.split_once('.').and_then(|(above, _)| place(above)).or(place(section))
    });
    order
}

/// A setting that is set, as it is written to a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Name of the section in brackets; a subsection has a dot in it.
    pub section: &'static str,
    /// The setting's name within its section, as written before the `=`.
    pub key: &'static str,
    /// The value in TOML spelling.
    pub value: String,
}

impl Entry {
    /// Section and key with a dot between.
    pub fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }
}

/// A section of the config, or several of them.
pub trait Section: Default {
    /// Takes its settings, leaving defaults where none is given.
    fn read(settings: &mut Settings<'_>) -> Self;

    /// Appends its keys.
    fn describe(keys: &mut Vec<KeyInfo>);

    /// Its settings that are set.
    fn entries(&self) -> Vec<Entry>;
}

/// An alias with its section: `local_batch_size` of `training` is `training.local_batch_size`.
#[doc(hidden)]
pub fn qualify(section: &str, alias: &str) -> String {
    if alias.contains('.') { alias.to_owned() } else { format!("{section}.{alias}") }
}

/// What a person should write for a setting: in the words of its limit, if it has one.
#[doc(hidden)]
pub fn expected<T: Setting>(check: Option<Check<T>>) -> String {
    check.map_or_else(T::expected, |check| check.allowed)
}

/// Declares a section, or the part of a section that belongs to one crate:
///
/// ```ignore
/// section! {
///     /// What the section is about.
///     Metrics "metrics" {
///         /// Its help text.
///         log_freq: usize = 10, aka ["frequency"], check positive;
///     }
/// }
/// ```
#[macro_export]
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

        impl $crate::Section for $name {
            fn read(settings: &mut $crate::Settings<'_>) -> Self {
                let defaults = Self::default();
                Self { $($field: {
                    let check: Option<$crate::check::Check<$ty>> = None$(.or(Some($check)))?;
                    settings.take(concat!($section, ".", stringify!($field)), defaults.$field, check.as_ref())
                }),* }
            }

            fn describe(keys: &mut Vec<$crate::KeyInfo>) {
                let defaults = Self::default();
                let about = [$($section_doc),+].map(str::trim).join(" ");
                $(keys.push($crate::KeyInfo {
                    name: concat!($section, ".", stringify!($field)).to_owned(),
                    help: [$($doc),+].map(str::trim).join(" "),
                    expected: $crate::section::expected::<$ty>(None$(.or(Some($check)))?),
                    default: $crate::Setting::to_toml(&defaults.$field),
                    aliases: vec![$($($crate::section::qualify($section, $alias)),+)?],
                    about: about.clone(),
                    schema: $crate::schema::of_value::<$ty>(None$(.or(Some(&$check)))?),
                });)*
            }

            fn entries(&self) -> Vec<$crate::Entry> {
                let all: Vec<(&'static str, Option<String>)> = vec![
                    $((stringify!($field), $crate::Setting::to_toml(&self.$field))),*
                ];
                let entry = |(key, value): (&'static str, Option<String>)| {
                    value.map(|value| $crate::Entry { section: $section, key, value })
                };
                all.into_iter().filter_map(entry).collect()
            }
        }
    };
}

/// Declares a struct of sections, in their order; behind a semicolon, other fields, which begin with their defaults.
#[macro_export]
macro_rules! sections {
    ($(#[$attribute:meta])+ $name:ident {
        $($(#[doc = $doc:literal])+ $field:ident: $ty:ty),* $(,)?
        $(; $($(#[doc = $other_doc:literal])+ $other:ident: $other_ty:ty),* $(,)?)?
    }) => {
        $(#[$attribute])+
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: $ty,)*
            $($($(#[doc = $other_doc])+ pub $other: $other_ty,)*)?
        }

        impl $crate::Section for $name {
            fn read(settings: &mut $crate::Settings<'_>) -> Self {
                Self {
                    $($field: $crate::Section::read(settings),)*
                    $($($other: Default::default(),)*)?
                }
            }

            fn describe(keys: &mut Vec<$crate::KeyInfo>) {
                $(<$ty as $crate::Section>::describe(keys);)*
            }

            fn entries(&self) -> Vec<$crate::Entry> {
                let parts = [$($crate::Section::entries(&self.$field)),*];
                parts.into_iter().flatten().collect()
            }
        }
    };
}
