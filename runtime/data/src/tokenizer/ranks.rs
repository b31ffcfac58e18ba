//! Rank files, of OpenAI's tiktoken and of Llama 3 (`tokenizer.model`), as a Hugging Face tokenizer: there is one engine,
//! and a checkpoint always has a `tokenizer.json`.
//!
//! A rank file has a token in base64 and its rank a line. The rank is the token's id, and of two neighbours those are
//! merged first whose union ranks lowest. So each way to put a token together of two others is a merge, in the order of
//! the ranks. How a text is split into words, and which tokens are special, the file does not say: that belongs to its
//! [`Encoding`], which is known by the file's name.

use std::collections::HashMap;
use std::path::Path;

use linc_device::words::count;
use serde_json::{Value, json};

/// What Llama 3's rank file is called; a file of SentencePiece of that name has another content.
pub(super) const LLAMA3_FILE: &str = "tokenizer.model";
const LLAMA3_ENDING: &str = ".model";
pub(super) const ENDING: &str = ".tiktoken";

const GPT2_PATTERN: &str = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const CL100K_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const O200K_PATTERN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// What a rank file does not say.
struct Encoding {
    /// As people call it, and the file.
    name: &'static str,
    /// How many ranks it has.
    ranks: usize,
    pattern: &'static str,
    special: &'static [(&'static str, u32)],
}

/// Encodings of tiktoken whose ids the file's name tells.
const ENCODINGS: [Encoding; 5] = [
    Encoding { name: "gpt2", ranks: 50_256, pattern: GPT2_PATTERN, special: &[("<|endoftext|>", 50256)] },
    Encoding {
        name: "r50k_base",
        ranks: 50_256,
        pattern: GPT2_PATTERN,
        special: &[("<|endoftext|>", 50256)],
    },
    Encoding {
        name: "p50k_base",
        ranks: 50_280,
        pattern: GPT2_PATTERN,
        special: &[("<|endoftext|>", 50256)],
    },
    Encoding {
        name: "cl100k_base",
        ranks: 100_256,
        pattern: CL100K_PATTERN,
        special: &[
            ("<|endoftext|>", 100_257),
            ("<|fim_prefix|>", 100_258),
            ("<|fim_middle|>", 100_259),
            ("<|fim_suffix|>", 100_260),
            ("<|endofprompt|>", 100_276),
        ],
    },
    Encoding {
        name: "o200k_base",
        ranks: 199_998,
        pattern: O200K_PATTERN,
        special: &[("<|endoftext|>", 199_999), ("<|endofprompt|>", 200_018)],
    },
];

/// Special tokens that Llama 3.1 has behind its ranks; the other of [`LLAMA3_SPECIAL`] are reserved.
const LLAMA3_NAMED: [(&str, u32); 8] = [
    (LLAMA3_BOS, 0),
    ("<|end_of_text|>", 1),
    ("<|finetune_right_pad_id|>", 4),
    ("<|start_header_id|>", 6),
    ("<|end_header_id|>", 7),
    ("<|eom_id|>", 8),
    ("<|eot_id|>", 9),
    ("<|python_tag|>", 10),
];
const LLAMA3_BOS: &str = "<|begin_of_text|>";
const LLAMA3_SPECIAL: u32 = 256;
/// Ranks that Llama 3 has; those of a smaller vocabulary are split alike. More are of another encoding, such as Llama 4's.
const LLAMA3_RANKS: usize = 128_000;

/// Why a rank file is no tokenizer, in words.
pub(super) enum NoTokenizer {
    /// A line of it is none of a rank file, or it has not the ranks of its encoding.
    Damaged(String),
    /// It is whole for all that can be seen, but how it splits a text is not known.
    Unknown(String),
}

/// Whether a file has the name of a rank file, and its first line has the form.
pub(super) fn is_rank_file(path: &Path, bytes: &[u8]) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let first = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    name.ends_with(ENDING) || name.ends_with(LLAMA3_ENDING) && parse_line(first).is_some()
}

/// The `tokenizer.json` of a rank file, and what to say of it.
///
/// # Errors
/// A line that is none of a rank file's, or a file whose encoding is not known.
pub(super) fn to_json(path: &Path, bytes: &[u8]) -> Result<(Vec<u8>, String), NoTokenizer> {
    let ranks = parse(bytes).map_err(NoTokenizer::Damaged)?;
    let next = ranks.iter().map(|(_, rank)| rank + 1).max().unwrap_or(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_llama = name.ends_with(LLAMA3_ENDING);
    if is_llama && ranks.len() > LLAMA3_RANKS {
        let (has, most) = (count(ranks.len(), "rank"), count(LLAMA3_RANKS, "rank"));
        return Err(NoTokenizer::Unknown(format!(
            "it has {has}, and Llama 3's, the only one of that name whose way to split a text is known, has {most}"
        )));
    }
    let (called, whole, pattern, special) = if is_llama {
        // Smaller vocabularies are trained too: whether one is whole the model's config says.
        ("Llama 3", ranks.len(), CL100K_PATTERN, llama3_special(next))
    } else {
        let known = ENCODINGS.iter().find(|encoding| name.strip_suffix(ENDING) == Some(encoding.name));
        let encoding = known.ok_or_else(|| {
            let names: Vec<&str> = ENCODINGS.iter().map(|encoding| encoding.name).collect();
            NoTokenizer::Unknown(format!(
                "how it splits a text, which a rank file does not say, is known of {} and of Llama 3's tokenizer.model only",
                names.join(", ")
            ))
        })?;
        let special = encoding.special.iter().map(|(name, id)| ((*name).to_owned(), *id)).collect();
        (encoding.name, encoding.ranks, encoding.pattern, special)
    };
    let mut words: HashMap<String, u32> =
        ranks.iter().map(|(token, rank)| (in_characters(token), *rank)).collect();
    let taken: HashMap<u32, &[u8]> = ranks.iter().map(|(token, rank)| (*rank, token.as_slice())).collect();
    if let Some((name, id)) =
        special.iter().find(|(name, id)| taken.contains_key(id) || words.contains_key(name))
    {
        return Err(NoTokenizer::Damaged(format!(
            "it has a token of the rank or the name of {called}'s special token {name:?}, {id}"
        )));
    }
    if ranks.len() != whole {
        let (has, all) = (count(ranks.len(), "rank"), count(whole, "rank"));
        return Err(NoTokenizer::Damaged(format!("it has {has}, and {called} has {all}")));
    }
    let merges = merges(&ranks);
    // The library numbers tokens that are not in the vocabulary as they come, whatever ids they are given.
    words.extend(special.iter().cloned());
    let note = format!(
        "{}: {}, read with the split pattern and the {} of {called}",
        path.display(),
        count(ranks.len(), "rank"),
        count(special.len(), "special token")
    );
    let json = tokenizer_json(&words, &merges, pattern, &special);
    Ok((json.to_string().into_bytes(), note))
}

/// Tokens and ranks, each of them once.
fn parse(bytes: &[u8]) -> Result<Vec<(Vec<u8>, u32)>, String> {
    let (mut ranks, mut tokens, mut taken) = (Vec::new(), HashMap::new(), HashMap::new());
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let (line, number) = (line.strip_suffix(b"\r").unwrap_or(line), index + 1);
        if line.is_empty() {
            continue;
        }
        let (token, rank) = parse_line(line)
            .ok_or_else(|| format!("line {number} is not a token in base64, a space and a rank"))?;
        if let Some(first) = tokens.insert(token.clone(), number).or_else(|| taken.insert(rank, number)) {
            return Err(format!("line {number} has the token or the rank of line {first}"));
        }
        ranks.push((token, rank));
    }
    let missing = (0..=u8::MAX).find(|byte| !tokens.contains_key(&[*byte][..]));
    match missing {
        // Which is how a cut file looks.
        _ if ranks.is_empty() => Err("it has no tokens".to_owned()),
        Some(byte) => Err(format!("it has no token of the byte 0x{byte:02x}, which every text may contain")),
        None => Ok(ranks),
    }
}

/// A token of at least a byte, and its rank.
fn parse_line(line: &[u8]) -> Option<(Vec<u8>, u32)> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let rank: u32 = std::str::from_utf8(&line[space + 1..]).ok()?.trim_end().parse().ok()?;
    let token = of_base64(&line[..space])?;
    (!token.is_empty() && rank < u32::MAX / 2).then_some((token, rank))
}

/// Bytes in base64 of the usual alphabet, filled up with `=`.
fn of_base64(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for (index, quad) in text.chunks(4).enumerate() {
        let filled = quad.iter().rev().take_while(|byte| **byte == b'=').count();
        let is_last = (index + 1) * 4 == text.len();
        if quad.len() != 4 || filled > 2 || filled > 0 && !is_last {
            return None;
        }
        let mut bits = 0u32;
        for byte in &quad[..4 - filled] {
            bits = bits << 6 | u32::from(digit(*byte)?);
        }
        let whole = (bits << (6 * filled)).to_be_bytes();
        bytes.extend_from_slice(&whole[1..4 - filled]);
    }
    Some(bytes)
}

fn llama3_special(first: u32) -> Vec<(String, u32)> {
    let mut reserved = 0;
    let name = |offset: u32| {
        if let Some((name, _)) = LLAMA3_NAMED.iter().find(|(_, at)| *at == offset) {
            return ((*name).to_owned(), first + offset);
        }
        reserved += 1;
        (format!("<|reserved_special_token_{}|>", reserved - 1), first + offset)
    };
    (0..LLAMA3_SPECIAL).map(name).collect()
}

/// Each way to make a token of two others, those of lower ranks first.
fn merges(ranks: &[(Vec<u8>, u32)]) -> Vec<[String; 2]> {
    let known: HashMap<&[u8], u32> = ranks.iter().map(|(token, rank)| (token.as_slice(), *rank)).collect();
    let mut merges = Vec::new();
    for (token, rank) in ranks {
        for at in 1..token.len() {
            let (left, right) = token.split_at(at);
            if let (Some(first), Some(second)) = (known.get(left), known.get(right)) {
                merges.push((*rank, *first, *second, [left, right]));
            }
        }
    }
    merges.sort_unstable_by_key(|(rank, first, second, _)| (*rank, *first, *second));
    merges.into_iter().map(|(_, _, _, halves)| halves.map(in_characters)).collect()
}

/// Bytes as byte-level tokenizers write them, each as a character that can be seen.
fn in_characters(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| character(*byte)).collect()
}

/// Bytes that are printable characters of Latin-1 are these; the others follow behind U+00FF, in their order.
fn character(byte: u8) -> char {
    match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        0..=b' ' => shifted(byte),
        0x7f..=0xa0 => shifted(byte - 0x7f + 33),
        0xad => shifted(67),
    }
}

fn shifted(place: u8) -> char {
    char::from_u32(0x100 + u32::from(place)).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn tokenizer_json(
    words: &HashMap<String, u32>,
    merges: &[[String; 2]],
    pattern: &str,
    special: &[(String, u32)],
) -> Value {
    let added = special.iter().map(|(name, id)| {
        json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    });
    let bytes = |trims: bool, splits: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": trims, "use_regex": splits});
    let mut last = vec![bytes(false, true)];
    if let Some((_, bos)) = special.iter().find(|(name, _)| name == LLAMA3_BOS) {
        // linc places BOS and EOS itself; this is for other programs that read an exported model.
        let token = json!({"SpecialToken": {"id": LLAMA3_BOS, "type_id": 0}});
        let text = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
        let second = json!({"SpecialToken": {"id": LLAMA3_BOS, "type_id": 1}});
        last.push(json!({"type": "TemplateProcessing", "single": [token, text("A", 0)],
            "pair": [token, text("A", 0), second, text("B", 1)],
            "special_tokens": {LLAMA3_BOS: {"id": LLAMA3_BOS, "ids": [bos], "tokens": [LLAMA3_BOS]}}}));
    }
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added.collect::<Vec<Value>>(),
        "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false},
            bytes(true, false),
        ]},
        "post_processor": {"type": "Sequence", "processors": last},
        "decoder": bytes(true, true),
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
            "vocab": words, "merges": merges},
    })
}

#[cfg(test)]
mod tests;
