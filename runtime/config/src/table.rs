//! Settings that are tables, of which a list makes `[[section.key]]`: each entry is declared once, as a section is, and what
//! is wrong in one is said at its own place.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::check::Check;
use crate::near::nearest;
use crate::value::{Setting, describe};

/// What is wrong with a part of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What was found and what was expected.
    pub message: String,
    /// Where it stands in the text, if the value is of a file.
    pub span: Range<usize>,
}

/// The keys of one entry that nobody has taken yet.
pub struct Reader<'v, 'a> {
    table: &'v DeTable<'a>,
    fault: Option<Fault>,
}

impl<'v, 'a> Reader<'v, 'a> {
    /// Opens an entry whose keys are `known`.
    ///
    /// # Errors
    /// It is no table, or has another key.
    pub fn new<T: Setting>(value: &'v DeValue<'a>, known: &[&str]) -> Result<Self, Fault> {
        let DeValue::Table(table) = value else {
            let message = format!("expected {}, found {}", T::expected(), describe(value));
            return Err(Fault { message, span: 0..0 });
        };
        for key in table.keys() {
            let name: &str = key.get_ref();
            if !known.contains(&name) {
                let help = match nearest(name, known.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}", known.join(", ")),
                };
                return Err(Fault { message: format!("unknown key `{name}`: {help}"), span: key.span() });
            }
        }
        Ok(Reader { table, fault: None })
    }

    /// Takes one key; its default if it is not given or is wrong, which [`Reader::finish`] then reports.
    pub fn take<T: Setting + 'static>(&mut self, key: &str, default: T, check: Option<Check<T>>) -> T {
        let given = self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value);
        let Some(given) = given else { return default };
        let read = match T::from_toml(given.get_ref()) {
            Ok(value) => check.map_or(Ok(()), |check| check.apply(&value)).map(|()| value),
            Err(message) => Err(check.map_or(message, |check| {
                format!("expected {}, found {}", check.allowed, describe(given.get_ref()))
            })),
        };
        read.unwrap_or_else(|message| {
            let fault = Fault { message: format!("`{key}`: {message}"), span: given.span() };
            self.fault.get_or_insert(fault);
            default
        })
    }

    /// The entry, or the first thing that was wrong with it.
    ///
    /// # Errors
    /// See [`Reader::take`].
    pub fn finish<T>(self, entry: T) -> Result<T, Fault> {
        self.fault.map_or(Ok(entry), Err)
    }
}

/// The first fault of a list of tables, or of one table that stands for a list.
pub(crate) fn fault_of_list<T: Setting>(value: &DeValue<'_>) -> Option<Fault> {
    let items = match value {
        DeValue::Array(items) => items,
        DeValue::Table(_) => return T::fault(value),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => return None,
    };
    let fault = |(index, item): (usize, &Spanned<DeValue<'_>>)| {
        let fault = T::fault(item.get_ref())?;
        Some(Fault { message: format!("entry {}: {}", index + 1, fault.message), ..fault })
    };
    items.iter().enumerate().find_map(fault)
}

/// Declares a setting that is a table:
///
/// ```ignore
/// table! {
///     /// What an entry is.
///     Segment {
///         /// Its help text.
///         steps: Option<usize> = None, check positive().if_set();
///     }
/// }
/// ```
#[macro_export]
macro_rules! table {
    ($(#[doc = $table_doc:literal])+ $name:ident {
        $($(#[doc = $doc:literal])+ $field:ident: $ty:ty = $default:expr $(, check $check:expr)?;)*
    }) => {
        $(#[doc = $table_doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $($(#[doc = $doc])+ pub $field: $ty),* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }

        impl $name {
            fn read(value: &$crate::DeValue<'_>) -> Result<Self, $crate::table::Fault> {
                let mut reader = $crate::table::Reader::new::<Self>(value, &[$(stringify!($field)),*])?;
                let defaults = Self::default();
                let entry = Self {
                    $($field: reader.take(stringify!($field), defaults.$field, None$(.or(Some($check)))?)),*
                };
                reader.finish(entry)
            }
        }

        impl $crate::Setting for $name {
            fn expected() -> String {
                let keys = [$((
                    stringify!($field),
                    $crate::section::expected::<$ty>(None$(.or(Some($check)))?),
                )),*];
                let keys: Vec<String> = keys.into_iter().map(|(key, what)| format!("{key} ({what})")).collect();
                format!("a table of {}", keys.join(", "))
            }

            fn schema() -> $crate::schema::Json {
                $crate::schema::of_table(vec![$((
                    stringify!($field),
                    [$($doc),+].map(str::trim).join(" "),
                    $crate::schema::of_value::<$ty>(None$(.or(Some(&$check)))?),
                )),*])
            }

            fn from_toml(value: &$crate::DeValue<'_>) -> Result<Self, String> {
                Self::read(value).map_err(|fault| fault.message)
            }

            fn fault(value: &$crate::DeValue<'_>) -> Option<$crate::table::Fault> {
                // What is no table at all is the list's to tell.
                matches!(value, $crate::DeValue::Table(_)).then(|| Self::read(value).err())?
            }

            fn to_toml(&self) -> Option<String> {
                let keys: Vec<(&str, Option<String>)> =
                    vec![$((stringify!($field), $crate::Setting::to_toml(&self.$field))),*];
                let set = keys.into_iter().filter_map(|(key, value)| Some(format!("{key} = {}", value?)));
                let set: Vec<String> = set.collect();
                Some(format!("{{ {} }}", set.join(", ")))
            }
        }
    };
}
