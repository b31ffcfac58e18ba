//! Rank files that the tests write, and public ones where they are there, whose ids tiktoken gave.

use std::fs;
use std::path::PathBuf;

use hmac_sha256::Hash as Sha256;

use super::*;
use crate::Tokenizer;

fn base64(bytes: &[u8]) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let quad = |three: &[u8]| {
        let all = three.iter().chain(&[0, 0]).take(3).fold(0, |all, byte| all << 8 | usize::from(*byte));
        let digit = |at: usize| match at <= three.len() {
            true => digits[all >> (18 - 6 * at) & 63] as char,
            false => '=',
        };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(quad).collect()
}

/// All bytes, and tokens of several.
fn rank_file(more: &[&str]) -> String {
    let bytes = (0..=u8::MAX).map(|byte| vec![byte]);
    let tokens = bytes.chain(more.iter().map(|token| token.as_bytes().to_vec()));
    tokens.enumerate().map(|(rank, token)| format!("{} {rank}\n", base64(&token))).collect()
}

fn open(path: &Path, content: &str) -> Result<Tokenizer, String> {
    fs::write(path, content).expect("written");
    Tokenizer::open(path).map_err(|error| error.to_string())
}

#[test]
fn neighbours_are_merged_by_the_rank_of_their_union() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tokenizer.model");
    // Of "abc" first "bc" and never "ab"; "abcd" is a word of its own, which no merge makes.
    let tokenizer = open(&path, &rank_file(&["bc", "ab", "abc", "xyzw", " he"])).expect("a tokenizer");
    let ids = |text: &str| tokenizer.encode(text).expect("ids").ids;
    assert_eq!(ids("abc"), [258]);
    assert_eq!(ids("abd"), [257, 100]);
    assert_eq!((ids("xyzw"), ids("xyzwx")), (vec![259], "xyzwx".bytes().map(u32::from).collect()));
    // Digits are split by threes, and a word has the blank before it.
    assert_eq!(ids("1234"), [49, 50, 51, 52]);
    assert_eq!(ids("a he"), [97, 260]);
    for byte in 0..=u8::MAX {
        let text = String::from_utf8_lossy(&[b'a', byte, b'b']).into_owned();
        assert_eq!(tokenizer.decode(&ids(&text)), text);
        assert_eq!(tokenizer.encode(&text).expect("ids").bytes.iter().sum::<u32>() as usize, text.len());
    }
    // The special tokens of Llama 3 follow the ranks.
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.vocab_size()), (Some(261), Some(262), 517));
    assert_eq!(ids("<|eot_id|><|reserved_special_token_247|>"), [270, 516]);
    let note = &tokenizer.notes()[0];
    assert!(note.contains("261 ranks") && note.contains("256 special tokens of Llama 3"), "{note}");
    // What a checkpoint gets is a tokenizer.json, with the same ids.
    let copy = folder.path().join("tokenizer.json");
    fs::write(&copy, &tokenizer.files()[0].bytes).expect("written");
    let again = Tokenizer::open(&copy).expect("a tokenizer");
    assert_eq!((again.encode_ids("abc he"), again.bos()), (Ok(vec![258, 260]), Some(261)));
}

#[test]
fn files_that_are_not_what_their_names_say_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let refused = |name: &str, content: &str| open(&at(name), content).expect_err("refused");
    let good = rank_file(&["ab"]);
    for (content, said) in [
        (format!("{good}YWI 300\n"), "line 258 is not a token in base64"),
        (format!("{good}YWI= -1\n"), "line 258 is not a token in base64"),
        (format!("{good}YWI= 300\n"), "line 258 has the token or the rank of line 257"),
        (format!("{good}YWM= 256\n"), "line 258 has the token or the rank of line 257"),
        (good.replace("YQ== 97\n", ""), "no token of the byte 0x61"),
        (String::new(), "it has no tokens"),
        (good.clone(), "it has 257 ranks, and gpt2 has 50,256 ranks"),
    ] {
        let error = refused("gpt2.tiktoken", &content);
        assert!(error.contains("gpt2.tiktoken: not a usable tokenizer") && error.contains(said), "{error}");
    }
    let taken = refused("gpt2.tiktoken", &good.replace(" 256\n", " 50256\n"));
    assert!(taken.contains("special token \"<|endoftext|>\", 50256"), "{taken}");
    let unknown = refused("own.tiktoken", &good);
    assert!(unknown.contains("cl100k_base") && unknown.contains("save_pretrained"), "{unknown}");
    // SentencePiece's files have the same name.
    let other = refused("tokenizer.model", "\n\t\n\u{5}<unk>");
    assert!(other.contains("not a usable tokenizer") && other.contains("save_pretrained"), "{other}");
}

#[test]
fn more_ranks_than_llama_3_has_are_of_another_encoding() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens: Vec<String> = (256..128_001).map(|rank| format!("x{rank}")).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let refused = open(&folder.path().join("tokenizer.model"), &rank_file(&tokens)).expect_err("refused");
    assert!(refused.contains("it has 128,001 ranks") && refused.contains("Llama 3's"), "{refused}");
}

#[test]
fn a_folder_may_have_a_rank_file_instead() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("tokenizer.model"), rank_file(&["ab"])).expect("written");
    let opened = Tokenizer::open(folder.path()).expect("a tokenizer");
    assert_eq!((opened.vocab_size(), opened.name().ends_with("tokenizer.model")), (513, true));
}

/// Ids of tiktoken itself, for strings of many kinds and two whole texts.
#[test]
fn golden_ids_of_public_rank_files() {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../../shared/data"].iter().collect();
    let tokenizers = folder.join("tokenizers");
    let Ok(golden) = fs::read(tokenizers.join("golden_ids.json")) else {
        eprintln!("skipped: no ../shared/data");
        return;
    };
    let golden: Value = serde_json::from_slice(&golden).expect("JSON");
    let cases: Vec<&str> =
        golden["cases"].as_array().expect("cases").iter().filter_map(Value::as_str).collect();
    for file in ["openai_tiktoken/cl100k_base.tiktoken", "torchtitan_test/test_tiktoken.model"] {
        let tokenizer = Tokenizer::open(&tokenizers.join(file)).expect("a tokenizer");
        let expected = &golden["tokenizers"][file];
        for (case, ids) in cases.iter().zip(expected["ids"].as_array().expect("ids")) {
            let encoded = tokenizer.encode(case).expect("ids");
            assert_eq!(encoded.bytes.iter().sum::<u32>() as usize, case.len(), "{file}: {case:?}");
            // The ids of a name of a special token are those of its letters there.
            if !(case.contains("<|endoftext|>") && file.contains("cl100k")) {
                assert_eq!(json!(encoded.ids), *ids, "{file}: {case:?}");
                assert_eq!(tokenizer.decode(&encoded.ids), **case, "{file}");
            }
        }
        for (text, about) in expected["files"].as_object().expect("files") {
            let text = fs::read_to_string(folder.join(text)).expect("a text");
            let bytes: Vec<u8> =
                tokenizer.encode_ids(&text).expect("ids").into_iter().flat_map(u32::to_le_bytes).collect();
            let sum: String = Sha256::hash(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(
                (json!(bytes.len() / 4), json!(sum)),
                (about["tokens"].clone(), about["sha256_u32le"].clone())
            );
        }
    }
    // Between the ranks and the special tokens, and between these, there are ids of no token.
    let cl100k = Tokenizer::open(&tokenizers.join("openai_tiktoken")).expect("the only one of its folder");
    assert_eq!((cl100k.bos(), cl100k.eos(), cl100k.vocab_size()), (None, Some(100_257), 100_277));
    assert_eq!(cl100k.encode_ids("<|endofprompt|>a<|fim_suffix|>"), Ok(vec![100_276, 64, 100_260]));
    // The same vocabulary in both formats.
    let gpt2 = Tokenizer::open(&tokenizers.join("gpt2_tiktoken/gpt2.tiktoken")).expect("a tokenizer");
    let other = Tokenizer::open(&tokenizers.join("gpt2_hf")).expect("a tokenizer");
    assert_eq!((gpt2.vocab_size(), gpt2.eos()), (other.vocab_size(), other.eos()));
    for case in cases {
        assert_eq!(gpt2.encode(case), other.encode(case), "{case:?}");
    }
}
