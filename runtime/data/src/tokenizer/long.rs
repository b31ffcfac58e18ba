//! Long texts are tokenized in pieces, on all threads and with a bound on memory, and give the ids of the whole text.
//!
//! A cut is made between two tokens. Which tokens stand there is found by tokenizing a *window* around it. Each piece is
//! then tokenized together with the halves of the windows at its ends, which are dropped afterwards. They have to come
//! out as in the window, with some more tokens besides: then the piece's own tokens follow what they follow in the whole
//! text. Where they do not (a run of one character, which is cut into tokens from its start, say), there is no cut.
//!
//! Why that is enough: pre-tokenizers look at a text from left to right, each match starting where the last ended, and
//! agree for good once they agree at one place; and tokens that BPE makes of two neighbours' text by themselves, it makes
//! of them in any text. Nothing of what normalizers and pre-tokenizers do at the ends of a text (a space in front, stripped
//! white space) is as long as half a window.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use rayon::prelude::*;
use tokenizers::{Encoding, Tokenizer};

use super::Encoded;
use crate::error::DataError;

/// Where texts are cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Bytes between two cuts, about.
    pub(super) piece: usize,
    /// Bytes on each side of a cut that are looked at.
    pub(super) half_window: usize,
    /// Tokens beyond those dropped that must come out alike.
    pub(super) alike: usize,
}

/// Pieces take about a second, which bounds how long somebody waits who stops a run.
const SIZES: Sizes = Sizes { piece: 1 << 20, half_window: 4096, alike: 32 };

/// Makes an error of a tokenizer's.
type Fail<'a> = &'a (dyn Fn(tokenizers::Error) -> DataError + Sync);
/// Who follows how far a text is tokenized, on any thread. A function is told only.
pub(crate) trait Follow: Sync {
    /// So many more bytes are tokenized (0 before work on some begins).
    ///
    /// # Errors
    /// Those that are to end the work.
    fn advance(&self, bytes: usize) -> Result<(), DataError>;

    /// The tokens of a range of the text by itself, if they are known.
    fn known(&self, _range: &Range<usize>) -> Option<Encoded> {
        None
    }

    /// Gets the tokens of a range of the text by itself, to know them the next time.
    fn keep(&self, _range: &Range<usize>, _tokens: &Encoded) {}
}

impl<F: Fn(usize) -> Result<(), DataError> + Sync> Follow for F {
    fn advance(&self, bytes: usize) -> Result<(), DataError> {
        self(bytes)
    }
}

/// Tokens of a text, and their bytes if asked for.
pub(super) fn encode(
    inner: &Tokenizer,
    text: &str,
    count_bytes: bool,
    fail: Fail<'_>,
    follow: &dyn Follow,
) -> Result<Encoded, DataError> {
    encode_in_pieces(inner, text, count_bytes, SIZES, fail, follow)
}

/// [`encode`] with cuts at other places.
pub(super) fn encode_in_pieces(
    inner: &Tokenizer,
    text: &str,
    count_bytes: bool,
    sizes: Sizes,
    fail: Fail<'_>,
    follow: &dyn Follow,
) -> Result<Encoded, DataError> {
    let places: Vec<usize> =
        (1..).map(|i| i * sizes.piece).take_while(|at| at + sizes.piece / 2 < text.len()).collect();
    let cuts: Result<Vec<Option<Cut>>, DataError> = places
        .par_iter()
        .map(|at| follow.advance(0).and_then(|()| Cut::near(inner, text, *at, sizes).map_err(fail)))
        .collect();
    let mut cuts: Vec<Cut> = cuts?.into_iter().flatten().collect();
    let mut finished: BTreeMap<(usize, usize), Piece> = BTreeMap::new();
    loop {
        let starts = std::iter::once(None).chain(cuts.iter().map(Some));
        let ends = cuts.iter().map(Some).chain([None]);
        let borders: Vec<Borders<'_>> = starts.zip(ends).collect();
        let todo: Vec<&Borders<'_>> =
            borders.iter().filter(|b| !finished.contains_key(&range(b, text))).collect();
        let new: Result<Vec<_>, DataError> = todo
            .into_par_iter()
            .map(|borders| {
                // Also in later rounds, whose pieces are larger.
                follow.advance(0)?;
                let piece =
                    Piece::encode(inner, text, *borders, count_bytes, sizes.alike, follow).map_err(fail)?;
                let (from, to) = range(borders, text);
                follow.advance(to - from)?;
                Ok(((from, to), piece))
            })
            .collect();
        finished.extend(new?);
        let pieces: Vec<Piece> = borders.iter().filter_map(|b| finished.remove(&range(b, text))).collect();
        let bad: BTreeSet<usize> = pieces.iter().flat_map(|piece| piece.bad_cuts.iter().copied()).collect();
        if bad.is_empty() {
            let mut whole = Encoded::default();
            for piece in pieces {
                whole.ids.extend(piece.tokens.ids);
                whole.bytes.extend(piece.tokens.bytes);
            }
            return Ok(whole);
        }
        // A cut on one side of which tokens did not come out as expected is none: its two pieces are one.
        let ranges: Vec<(usize, usize)> = borders.iter().map(|b| range(b, text)).collect();
        finished.extend(ranges.into_iter().zip(pieces));
        cuts.retain(|cut| !bad.contains(&cut.at));
    }
}

/// Where a piece starts and ends: at a cut, or at an end of the text.
type Borders<'a> = (Option<&'a Cut>, Option<&'a Cut>);

fn range((from, to): &Borders<'_>, text: &str) -> (usize, usize) {
    (from.map_or(0, |cut| cut.at), to.map_or(text.len(), |cut| cut.at))
}

/// A place between two tokens.
struct Cut {
    at: usize,
    /// The text around it that was tokenized.
    window: Range<usize>,
    /// Tokens of the window.
    ids: Vec<u32>,
    /// How many of them are before the cut.
    before: usize,
}

impl Cut {
    /// A cut near a place, if tokens on both sides of one are known.
    fn near(
        inner: &Tokenizer,
        text: &str,
        place: usize,
        sizes: Sizes,
    ) -> Result<Option<Cut>, tokenizers::Error> {
        let start = text.floor_char_boundary(place.saturating_sub(sizes.half_window));
        let end = text.ceil_char_boundary((place + sizes.half_window).min(text.len()));
        let encoding = inner.encode(&text[start..end], false)?;
        let offsets = encoding.get_offsets();
        let (alike, count) = (sizes.alike, offsets.len());
        let mut reached = 0;
        for (i, (from, to)) in offsets.iter().enumerate() {
            // Tokens that share a character are not cut apart.
            let is_between = start + reached >= place && *from >= reached;
            if is_between && i >= alike && i + alike <= count {
                let ids = encoding.get_ids().to_vec();
                return Ok(Some(Cut { at: start + reached, window: start..end, ids, before: i }));
            }
            reached = reached.max(*to);
        }
        Ok(None)
    }
}

/// The tokens between two borders.
struct Piece {
    tokens: Encoded,
    /// Its borders beyond which the tokens are not those of the window.
    bad_cuts: Vec<usize>,
}

impl Piece {
    fn encode(
        inner: &Tokenizer,
        text: &str,
        (from, to): Borders<'_>,
        count_bytes: bool,
        alike: usize,
        follow: &dyn Follow,
    ) -> Result<Piece, tokenizers::Error> {
        let range = from.map_or(0, |cut| cut.window.start)..to.map_or(text.len(), |cut| cut.window.end);
        let Encoded { ids, bytes } = match follow.known(&range) {
            Some(tokens) => tokens,
            None => {
                let tokens = tokens(inner, &text[range.clone()], count_bytes)?;
                follow.keep(&range, &tokens);
                tokens
            }
        };
        let dropped_before = from.map_or(0, |cut| cut.before);
        let dropped_after = to.map_or(0, |cut| cut.ids.len() - cut.before);
        let kept = dropped_before..ids.len().saturating_sub(dropped_after);
        let agrees_before = from.is_none_or(|cut| {
            ids.get(..cut.before + alike).is_some_and(|ids| *ids == cut.ids[..cut.before + alike])
        });
        let agrees_after = to.is_none_or(|cut| {
            let expected = &cut.ids[cut.before - alike..];
            ids.len() >= expected.len() && ids.ends_with(expected)
        });
        let is_whole = kept.start <= kept.end;
        let mut bad_cuts = Vec::new();
        bad_cuts.extend(from.filter(|_| !agrees_before || !is_whole).map(|cut| cut.at));
        bad_cuts.extend(to.filter(|_| !agrees_after || !is_whole).map(|cut| cut.at));
        if !bad_cuts.is_empty() {
            return Ok(Piece { tokens: Encoded::default(), bad_cuts });
        }
        let bytes = if count_bytes { bytes[kept.clone()].to_vec() } else { Vec::new() };
        Ok(Piece { tokens: Encoded { ids: ids[kept].to_vec(), bytes }, bad_cuts })
    }
}

/// The tokens of a text as they come out of it whole.
fn tokens(inner: &Tokenizer, text: &str, count_bytes: bool) -> Result<Encoded, tokenizers::Error> {
    let encoding = if count_bytes { inner.encode(text, false)? } else { inner.encode_fast(text, false)? };
    let bytes = if count_bytes { sizes_of(&encoding, text.len()) } else { Vec::new() };
    Ok(Encoded { ids: encoding.get_ids().to_vec(), bytes })
}

/// Bytes that each token of a text stands for. Offsets may leave out spaces, or repeat a character that several tokens
/// share: each token stands for what lies between the end of those before it and its own end.
fn sizes_of(encoding: &Encoding, text_len: usize) -> Vec<u32> {
    let mut end = 0;
    let mut bytes = Vec::with_capacity(encoding.len());
    for (_, token_end) in encoding.get_offsets() {
        let new_end = end.max(*token_end);
        bytes.push((new_end - end) as u32);
        end = new_end;
    }
    if let Some(last) = bytes.last_mut() {
        *last += text_len.saturating_sub(end) as u32;
    }
    bytes
}
