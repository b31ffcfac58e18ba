//! Settings about files that none of the files of a path is read by: who sets them believes that they do something.

use super::find::Format;
use super::json::Wanted;
use crate::settings::TEXT_FIELD;

/// The kinds of files that documents come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds {
    /// Files of plain text, which have documents between separators.
    plain: bool,
    /// Files whose documents are fields of objects, or columns of rows.
    fields: bool,
}

/// What settings about files are called where they are set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    pub(crate) field: &'static str,
    pub(crate) separator: &'static str,
}

impl Kinds {
    /// A file of this format is read too.
    pub(crate) fn add(&mut self, format: Format) {
        match format {
            Format::Text => self.plain = true,
            Format::JsonLines | Format::Json | Format::Parquet => self.fields = true,
        }
    }

    /// What to say of the settings by which no file of `path` is read.
    pub(crate) fn unread(self, path: &str, wanted: Wanted<'_>, names: Names) -> Vec<String> {
        let Names { field, separator } = names;
        let mut notes = Vec::new();
        if wanted.separator.is_some() && !self.plain {
            notes.push(format!(
                "{path}: {separator} has no effect: it is for files of plain text, and each object of JSON and each row of Parquet is a document"
            ));
        }
        if wanted.field != TEXT_FIELD && !self.fields {
            notes.push(format!(
                "{path}: {field} has no effect: it is for objects of JSON and columns of Parquet, and plain text is read whole"
            ));
        }
        notes
    }
}
