//! Configs in TorchTitan's TOML dialect: how settings are declared, read, checked, compared and written back, and the
//! files that a config names.
//!
//! A setting is declared once, by [`section!`], in the crate whose work it sets: its type, default, limits, help and
//! other spellings. An unknown key, a wrong type or a value out of range is an error with its line, and with the nearest
//! known key; what has no effect is a warning. What neither file nor command line says has its default.
//!
//! To add a setting: a line in its section. To add a section: [`section!`], and a field of the struct of all sections,
//! which [`sections!`] declares. To add a type of settings: [`Setting`]; one
//! that is a list of tables: [`table!`].

mod advice;
pub mod check;
mod compiler_value;
mod error;
mod file_size;
mod files;
mod legacy;
mod model;
mod model_files;
mod near;
pub mod other_kind;
mod overrides;
mod scalar;
pub mod schema;
#[doc(hidden)]
pub mod section;
mod settings;
pub mod shipped;
mod syntax;
#[doc(hidden)]
pub mod table;
mod value;

pub use error::{ConfigError, FilePlace, Place, Problem};
pub use file_size::FileSize;
pub use files::{BASE, ConfigFiles, ConfigText, sets_nothing};
pub use legacy::is_ignored;
pub use model::{Model, OVERRIDES, describe_overrides, take_overrides};
pub use model_files::{ModelFiles, read_or_shipped};
pub use near::{help_for_missing, nearest, nearest_to_pattern};
pub use overrides::Override;
pub use scalar::Scalar;
pub use section::{Entry, KeyInfo, Section, section_order};
pub use settings::{Settings, place_among};
#[doc(hidden)]
pub use toml::de::DeValue;
pub use value::{Setting, mismatch, quote};
