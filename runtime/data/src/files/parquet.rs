//! Documents in Parquet: a column of each row, of strings or of lists of token ids, read a few rows of a row group at a time.

use std::cell::Cell;
use std::fs::File;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Once;

use parquet::basic::{Compression, LogicalType, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType, DataType};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::ColumnDescriptor;

use super::json::{Wanted, has_nul, missing};
use super::{Document, Give, unreadable};
use crate::error::DataError;
use crate::loading::Paced;

/// Rows that are read at once.
const ROWS: usize = 256;

/// Gives the text of each row that has one; the number of rows without.
///
/// # Errors
/// The file cannot be read or is no Parquet, has no such column of strings, or reading was stopped.
pub(super) fn documents(
    path: &Path,
    wanted: Wanted<'_>,
    reading: &mut Paced<'_, '_>,
    give: &mut Give<'_>,
) -> Result<usize, DataError> {
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let size = file.metadata().map_or(0, |about| about.len());
    let damaged = |error: ParquetError| damaged(path, &error);
    let reader = of_library(|| SerializedFileReader::new(file)).map_err(damaged)?;
    let about = reader.metadata();
    let column = column(path, about, wanted.field)?;
    check_codecs(path, about, column, wanted.field)?;
    let max_level = about.file_metadata().schema_descr().column(column).max_def_level();
    let rows = u64::try_from(about.file_metadata().num_rows()).unwrap_or(0).max(1);
    let has_optional_ids = about.file_metadata().schema_descr().column(column).self_type().is_optional();
    let mut place = Place { path, wanted, row: 0, without: 0, has_optional_ids };
    let mut told = 0;
    for group in 0..about.num_row_groups() {
        let group = reader.get_row_group(group).map_err(damaged)?;
        let expected = usize::try_from(group.metadata().num_rows()).unwrap_or(0);
        let mut values = of_library(|| group.get_column_reader(column)).map_err(damaged)?;
        let mut read = 0;
        loop {
            reading.check()?;
            let read_rows = match &mut values {
                ColumnReader::ByteArrayColumnReader(texts) => place.next_texts(texts, max_level, give),
                ColumnReader::Int32ColumnReader(ids) => place.next_lists(ids, max_level, give),
                ColumnReader::Int64ColumnReader(ids) => place.next_lists(ids, max_level, give),
                _ => return Err(place.fail("its column is not what the file's schema says".to_owned())),
            };
            let count = read_rows.map_err(|error| error.of(&damaged))?;
            read += count;
            // The column is a part of the file, and what is told of is the file.
            let now = (u128::from(size) * place.row as u128 / u128::from(rows)) as u64;
            reading.advance(usize::try_from(now.saturating_sub(told)).unwrap_or(0));
            told = now.max(told);
            if count == 0 {
                break;
            }
        }
        if read != expected {
            let reason = format!("a row group has {read} rows of the {expected} that are promised");
            return Err(damaged(ParquetError::EOF(reason)));
        }
    }
    Ok(place.without)
}

thread_local! {
    /// Whether a panic of this thread is about to become an error, and nobody need read of it.
    static IS_CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// What the library gives. Where pages are damaged in a way that its checks let pass it panics, which is an error here and
/// not reported.
fn of_library<T>(work: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let report = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !IS_CAUGHT.get() {
                report(info);
            }
        }));
    });
    IS_CAUGHT.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    IS_CAUGHT.set(false);
    result.unwrap_or_else(|_| {
        Err(ParquetError::General("its pages do not hold what they say they do".to_owned()))
    })
}

fn damaged(path: &Path, error: &ParquetError) -> DataError {
    let reason = match error {
        ParquetError::General(reason) | ParquetError::NYI(reason) | ParquetError::EOF(reason) => {
            reason.clone()
        }
        other => other.to_string(),
    };
    DataError::Damaged { path: path.to_path_buf(), what: "Parquet file", reason }
}

/// The number of the column of that name, the only leaf below it, which has to hold strings or lists of ids.
fn column(path: &Path, about: &ParquetMetaData, field: &str) -> Result<usize, DataError> {
    let schema = about.file_metadata().schema_descr();
    let fail =
        |reason: String| DataError::Column { path: path.to_path_buf(), reason, field: field.to_owned() };
    let is_named = |index: &usize| {
        schema.column(*index).path().string() == field || schema.get_column_root(*index).name() == field
    };
    let found: Vec<usize> = (0..schema.num_columns()).filter(is_named).collect();
    let Some(first) = found.first().copied() else {
        let leaves =
            |root: usize| (0..schema.num_columns()).filter(move |at| schema.get_column_root_idx(*at) == root);
        let name = |at: usize| match leaves(schema.get_column_root_idx(at)).count() {
            1 => schema.get_column_root(at).name().to_owned(),
            _ => schema.column(at).path().string(),
        };
        let names: Vec<String> = (0..schema.num_columns()).map(name).collect();
        return Err(fail(missing("column", field, &names)));
    };
    if found.len() > 1 {
        let names: Vec<String> =
            found.iter().map(|at| format!("`{}`", schema.column(*at).path().string())).collect();
        return Err(fail(format!("its column `{field}` has {} below it", names.join(", "))));
    }
    let column = schema.column(first);
    let is_integer = matches!(column.physical_type(), Type::INT32 | Type::INT64);
    if column.max_rep_level() == 1 && is_integer {
        return Ok(first);
    }
    if column.max_rep_level() > 0 {
        return Err(fail(format!("its column `{field}` holds lists of {}, not strings", type_of(&column))));
    }
    let is_text = match column.logical_type_ref() {
        None | Some(LogicalType::String | LogicalType::Json | LogicalType::Enum) => true,
        Some(_) => false,
    };
    if column.physical_type() != Type::BYTE_ARRAY || !is_text {
        return Err(fail(format!("its column `{field}` holds {}, not strings", type_of(&column))));
    }
    Ok(first)
}

fn type_of(column: &ColumnDescriptor) -> String {
    match column.logical_type_ref() {
        Some(logical) => format!("{logical:?}"),
        None => column.physical_type().to_string(),
    }
}

/// Some codecs are no part of this program.
fn check_codecs(path: &Path, about: &ParquetMetaData, column: usize, field: &str) -> Result<(), DataError> {
    for group in about.row_groups() {
        let codec = group.column(column).compression();
        match codec {
            Compression::UNCOMPRESSED | Compression::SNAPPY | Compression::GZIP(_) | Compression::ZSTD(_) => {
            }
            Compression::LZO | Compression::BROTLI(_) | Compression::LZ4 | Compression::LZ4_RAW => {
                let name = format!("{codec:?}");
                let codec = name.split('(').next().unwrap_or_default().to_owned();
                return Err(DataError::Codec { path: path.to_path_buf(), field: field.to_owned(), codec });
            }
        }
    }
    Ok(())
}

/// Why rows were not read.
enum Failure {
    Parquet(ParquetError),
    Data(DataError),
}

impl Failure {
    fn of(self, damaged: &dyn Fn(ParquetError) -> DataError) -> DataError {
        match self {
            Self::Parquet(error) => damaged(error),
            Self::Data(error) => error,
        }
    }
}

/// How far a file is read.
struct Place<'a> {
    path: &'a Path,
    wanted: Wanted<'a>,
    /// Rows that are done.
    row: usize,
    /// Those of them that have no text.
    without: usize,
    /// Whether an id of a list may be null.
    has_optional_ids: bool,
}

impl Place<'_> {
    fn fail(&self, reason: String) -> DataError {
        DataError::Column { path: self.path.to_path_buf(), reason, field: self.wanted.field.to_owned() }
    }

    /// Gives the texts of the next rows; how many rows there were.
    fn next_texts(
        &mut self,
        texts: &mut ColumnReaderImpl<ByteArrayType>,
        max_level: i16,
        give: &mut Give<'_>,
    ) -> Result<usize, Failure> {
        let (mut values, mut levels) = (Vec::with_capacity(ROWS), Vec::with_capacity(ROWS));
        let (rows, _, _) = of_library(|| texts.read_records(ROWS, Some(&mut levels), None, &mut values))
            .map_err(Failure::Parquet)?;
        let mut values = values.into_iter();
        for row in 0..rows {
            self.row += 1;
            // Where every row has a value there are no levels.
            if levels.get(row).is_some_and(|level| *level < max_level) {
                self.without += 1;
                continue;
            }
            let value =
                values.next().ok_or(Failure::Parquet(ParquetError::EOF("values are missing".into())))?;
            let text = self.text(&value).map_err(Failure::Data)?;
            give(Document::Text(text)).map_err(Failure::Data)?;
        }
        Ok(rows)
    }

    /// Gives the lists of ids of the next rows; how many rows there were.
    fn next_lists<T: DataType>(
        &mut self,
        ids: &mut ColumnReaderImpl<T>,
        max_level: i16,
        give: &mut Give<'_>,
    ) -> Result<usize, Failure>
    where
        T::T: Copy + Into<i64>,
    {
        let (mut values, mut levels, mut repeats) = (Vec::new(), Vec::new(), Vec::new());
        let (rows, _, _) =
            of_library(|| ids.read_records(ROWS, Some(&mut levels), Some(&mut repeats), &mut values))
                .map_err(Failure::Parquet)?;
        let mut values = values.into_iter();
        let mut elements = repeats.iter().zip(&levels).peekable();
        while let Some((_, first)) = elements.next() {
            self.row += 1;
            let mut list = Vec::new();
            let mut level = Some(first);
            while let Some(this) = level {
                if *this == max_level {
                    let id = values.next().map(Into::into).and_then(|id| u32::try_from(id).ok());
                    let fail = || self.fail(format!("row {}: an id is negative or beyond 32 bits", self.row));
                    list.push(id.ok_or_else(|| Failure::Data(fail()))?);
                } else if *this + 1 == max_level && self.has_optional_ids {
                    return Err(Failure::Data(self.fail(format!("row {}: an id is null", self.row))));
                }
                level = elements.next_if(|(repeat, _)| **repeat > 0).map(|(_, level)| level);
            }
            match list.is_empty() {
                true => self.without += 1,
                false => give(Document::Tokens(list)).map_err(Failure::Data)?,
            }
        }
        Ok(rows)
    }

    fn text(&self, value: &ByteArray) -> Result<String, DataError> {
        let fail = |reason: &str| self.fail(format!("row {}: {reason}", self.row));
        let text = std::str::from_utf8(value.data())
            .map_err(|_| fail(&format!("`{}` is not UTF-8 text", self.wanted.field)))?;
        if !self.wanted.allows_nul && text.contains('\0') {
            return Err(fail(&has_nul(self.wanted.field)));
        }
        Ok(text.to_owned())
    }
}

#[cfg(test)]
mod tests;
